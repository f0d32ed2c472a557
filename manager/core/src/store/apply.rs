//! Applies committed actions: deterministic, never panicking, each action alone. An action that does not fit the state is
//! a no-op with an error for its proposer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    Cluster, DesiredState, EngineDescription, HostPort, Image, Node, NodeId, NodeRole, NodeSpec, Outcome,
    Service, ServiceId, Task, TaskId, Timestamp, UpdateStatus,
};

use super::action::ServiceUpdate;
use super::indexes::ingress;
use super::object::Key;
use super::service::prune_revisions;
use super::{Action, NewTask, Payload, ServiceRecord, Store};
use crate::addresses;

/// What an action changed. The object after the change is in the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Changed {
    Cluster,
    Node(NodeId),
    NodeRemoved(Arc<Node>),
    /// With the service as it was before; `None`: it is new.
    Service {
        service: ServiceId,
        before: Option<Arc<Service>>,
    },
    /// Invisible from here on; the record stays until its tasks are gone.
    ServiceRemoved(Arc<Service>),
    ServiceForgotten(ServiceId),
    TaskCreated(TaskId),
    /// With the task as it was before.
    TaskUpdated(Arc<Task>),
    TaskForgotten(Arc<Task>),
    Image(String),
    ImageRemoved(String),
}

/// Why an action changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("there is a cluster already")]
    ClusterExists,
    #[error("there is no cluster")]
    NoCluster,
    #[error("there is a {0} with this id already")]
    IdTaken(&'static str),
    #[error("node number {0} is taken")]
    NodeIndexTaken(u16),
    #[error("{0} is gone")]
    Gone(&'static str),
    #[error("update out of sequence: version {given} is not the current {current}")]
    OutOfSequence { given: u64, current: u64 },
    #[error("name {0:?} is taken")]
    NameTaken(String),
    #[error("published port {0} is taken")]
    PortTaken(HostPort),
    #[error("service still has tasks")]
    HasTasks,
    #[error("service moved on to another revision")]
    OtherRevision,
    #[error("address is taken or lies outside the node's block")]
    BadAddress,
    #[error("task already has a node, or may not get one any more")]
    NotPlaceable,
    #[error("states only rise")]
    WouldFall,
}

/// Outcome of an entry: what changed, in order, and why each failed action changed nothing.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub changes: Vec<Changed>,
    /// Position in the entry, and the reason.
    pub errors: Vec<(usize, ApplyError)>,
}

/// When and where in the log an action happens.
#[derive(Clone, Copy)]
struct Stamp {
    index: u64,
    at: Timestamp,
}

type Result = std::result::Result<Changed, ApplyError>;

impl Store {
    /// Applies the entry at `index`.
    pub fn apply(&mut self, index: u64, payload: Payload) -> Applied {
        self.applied = index;
        self.clock = payload.at.max(self.clock + Duration::from_micros(1));
        self.unsaved.insert(Key::Clock);
        let stamp = Stamp { index, at: self.clock };
        let mut applied = Applied::default();
        for (position, action) in payload.actions.into_iter().enumerate() {
            match self.apply_one(stamp, action) {
                Ok(changed) => applied.changes.push(changed),
                Err(error) => applied.errors.push((position, error)),
            }
        }
        applied
    }

    fn apply_one(&mut self, stamp: Stamp, action: Action) -> Result {
        match action {
            Action::CreateCluster(cluster) => self.create_cluster(stamp, *cluster),
            Action::SetJoinSecret { role, secret } => self.set_join_secret(stamp, role, secret),
            Action::CreateNode(node) => self.create_node(stamp, *node),
            Action::UpdateNode { node, base, spec } => self.update_node(stamp, node, base, spec),
            Action::DescribeNode { node, engine } => self.describe_node(stamp, node, engine),
            Action::RemoveNode { node } => self.remove_node(node),
            Action::CreateService(service) => self.create_service(stamp, *service),
            Action::UpdateService(update) => self.update_service(stamp, *update),
            Action::SetUpdateStatus { service, revision, update } => {
                self.set_update_status(service, revision, update)
            }
            Action::RemoveService { service } => self.remove_service(stamp, service),
            Action::ForgetService { service } => self.forget_service(service),
            Action::CreateTask(task) => self.create_task(stamp, task),
            Action::PlaceTask { task, node, address } => self.place_task(stamp, task, (node, address)),
            Action::SetDesired { task, desired } => self.set_desired(stamp, task, desired),
            Action::FinishTask { task, outcome } => self.finish_task(stamp, task, outcome),
            Action::ForgetTask { task } => self.forget_task(task),
            Action::PutImage(image) => self.put_image(stamp, image),
            Action::RemoveImage { name } => self.remove_image(name),
        }
    }

    fn create_cluster(&mut self, stamp: Stamp, cluster: Cluster) -> Result {
        if self.cluster.is_some() {
            return Err(ApplyError::ClusterExists);
        }
        self.cluster = Some(Arc::new(Cluster {
            version: stamp.index,
            created_at: stamp.at,
            updated_at: stamp.at,
            ..cluster
        }));
        self.unsaved.insert(Key::Cluster);
        Ok(Changed::Cluster)
    }

    fn set_join_secret(&mut self, stamp: Stamp, role: NodeRole, secret: String) -> Result {
        let cluster = Arc::make_mut(self.cluster.as_mut().ok_or(ApplyError::NoCluster)?);
        match role {
            NodeRole::Worker => cluster.join.worker = secret,
            NodeRole::Manager => cluster.join.manager = secret,
        }
        cluster.version = stamp.index;
        cluster.updated_at = stamp.at;
        self.unsaved.insert(Key::Cluster);
        Ok(Changed::Cluster)
    }

    fn create_node(&mut self, stamp: Stamp, node: Node) -> Result {
        if self.nodes.contains_key(&node.id) {
            return Err(ApplyError::IdTaken("node"));
        }
        if self.node_index_taken(node.index) {
            return Err(ApplyError::NodeIndexTaken(node.index));
        }
        let id = node.id;
        self.put_node(Arc::new(Node {
            version: stamp.index,
            created_at: stamp.at,
            updated_at: stamp.at,
            ..node
        }));
        Ok(Changed::Node(id))
    }

    pub(super) fn put_node(&mut self, node: Arc<Node>) {
        self.indexes.add_node(&node);
        self.unsaved.insert(Key::Node(node.id));
        self.nodes.insert(node.id, node);
    }

    fn update_node(&mut self, stamp: Stamp, id: NodeId, base: u64, spec: NodeSpec) -> Result {
        let node = Arc::make_mut(self.nodes.get_mut(&id).ok_or(ApplyError::Gone("node"))?);
        if node.version != base {
            return Err(ApplyError::OutOfSequence { given: base, current: node.version });
        }
        node.spec = spec;
        node.version = stamp.index;
        node.updated_at = stamp.at;
        self.unsaved.insert(Key::Node(id));
        Ok(Changed::Node(id))
    }

    /// What the node says of itself is not the operator's: the version stays.
    fn describe_node(&mut self, stamp: Stamp, id: NodeId, engine: EngineDescription) -> Result {
        let mut node = self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?.clone();
        self.indexes.remove_node(&node);
        let changed = Arc::make_mut(&mut node);
        changed.engine = engine;
        changed.updated_at = stamp.at;
        self.put_node(node);
        Ok(Changed::Node(id))
    }

    /// Its tasks stay for the orchestrator to end and replace.
    fn remove_node(&mut self, id: NodeId) -> Result {
        let node = self.nodes.remove(&id).ok_or(ApplyError::Gone("node"))?;
        self.indexes.remove_node(&node);
        self.unsaved.insert(Key::Node(id));
        Ok(Changed::NodeRemoved(node))
    }

    fn create_service(&mut self, stamp: Stamp, service: Service) -> Result {
        if self.services.contains_key(&service.id) {
            return Err(ApplyError::IdTaken("service"));
        }
        if self.indexes.service_called(&service.spec.name).is_some() {
            return Err(ApplyError::NameTaken(service.spec.name.clone()));
        }
        self.check_ports(service.id, &service.ports)?;
        let id = service.id;
        let service = Arc::new(Service {
            version: stamp.index,
            created_at: stamp.at,
            updated_at: stamp.at,
            revisions: [(service.revision, service.spec.clone())].into(),
            ..service
        });
        self.indexes.add_service(&service);
        self.services.insert(id, ServiceRecord { service, removed: false });
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::Service { service: id, before: None })
    }

    fn check_ports(
        &self,
        service: ServiceId,
        ports: &[swarm_model::PortSpec],
    ) -> std::result::Result<(), ApplyError> {
        let mut seen = BTreeSet::new();
        for port in ingress(ports) {
            let taken = self.port_holder(port).is_some_and(|holder| holder != service);
            if taken || !seen.insert(port) {
                return Err(ApplyError::PortTaken(port));
            }
        }
        Ok(())
    }

    fn update_service(&mut self, stamp: Stamp, update: ServiceUpdate) -> Result {
        let id = update.service;
        let current = self.service(id).ok_or(ApplyError::Gone("service"))?;
        if current.version != update.base {
            return Err(ApplyError::OutOfSequence { given: update.base, current: current.version });
        }
        self.check_ports(id, &update.ports)?;
        let before = current.clone();
        let mut service = before.clone();
        self.indexes.remove_service(&service);
        let changed = Arc::make_mut(&mut service);
        changed.version = stamp.index;
        changed.updated_at = stamp.at;
        changed.spec = update.spec.clone();
        changed.revision = update.revision;
        changed.revisions.insert(update.revision, update.spec);
        changed.ports = update.ports;
        changed.update = update.update;
        if changed.revisions.len() > Service::MAX_REVISIONS {
            let in_use = self.tasks_of_service(id).map(|task| task.revision).collect();
            prune_revisions(changed, &in_use);
        }
        self.indexes.add_service(&service);
        self.services.insert(id, ServiceRecord { service, removed: false });
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::Service { service: id, before: Some(before) })
    }

    /// Progress is not the operator's: the version stays, so that a running update never makes theirs out of sequence.
    fn set_update_status(&mut self, id: ServiceId, revision: u64, update: UpdateStatus) -> Result {
        let record = self.services.get_mut(&id).filter(|record| !record.removed);
        let service = &mut record.ok_or(ApplyError::Gone("service"))?.service;
        if service.revision != revision {
            return Err(ApplyError::OtherRevision);
        }
        let before = service.clone();
        Arc::make_mut(service).update = Some(update);
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::Service { service: id, before: Some(before) })
    }

    fn remove_service(&mut self, stamp: Stamp, id: ServiceId) -> Result {
        let record = self.services.get_mut(&id).filter(|record| !record.removed);
        let record = record.ok_or(ApplyError::Gone("service"))?;
        record.removed = true;
        let service = Arc::make_mut(&mut record.service);
        service.version = stamp.index;
        service.updated_at = stamp.at;
        let service = record.service.clone();
        self.indexes.remove_service(&service);
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::ServiceRemoved(service))
    }

    fn forget_service(&mut self, id: ServiceId) -> Result {
        if self.services.get(&id).is_none_or(|record| !record.removed) {
            return Err(ApplyError::Gone("removed service"));
        }
        if self.indexes.has_tasks(id) {
            return Err(ApplyError::HasTasks);
        }
        self.services.remove(&id);
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::ServiceForgotten(id))
    }

    fn create_task(&mut self, stamp: Stamp, new: NewTask) -> Result {
        let service = self.service(new.service).ok_or(ApplyError::Gone("service"))?;
        if !service.revisions.contains_key(&new.revision) {
            return Err(ApplyError::Gone("revision"));
        }
        if self.tasks.contains_key(&new.id) {
            return Err(ApplyError::IdTaken("task"));
        }
        if let Some(place) = new.place {
            self.take_address(place)?;
        }
        let id = new.id;
        self.put_task(Arc::new(Task {
            id,
            service: new.service,
            slot: new.slot,
            revision: new.revision,
            version: stamp.index,
            created_at: stamp.at,
            desired_since: stamp.at,
            desired: new.desired,
            node: new.place.map(|(node, _)| node),
            address: new.place.map(|(_, address)| address),
            not_before: new.not_before,
            restarts: new.restarts,
            outcome: None,
        }));
        Ok(Changed::TaskCreated(id))
    }

    /// Checks that the address may be given out, and moves the node's cursor behind it.
    fn take_address(
        &mut self,
        (node, address): (NodeId, std::net::Ipv4Addr),
    ) -> std::result::Result<(), ApplyError> {
        let pool = self.cluster.as_ref().ok_or(ApplyError::NoCluster)?.gateway_pool;
        let node = self.nodes.get_mut(&node).ok_or(ApplyError::Gone("node"))?;
        let offset = addresses::offset_in_block(pool, node.index, address).ok_or(ApplyError::BadAddress)?;
        if self.indexes.address_holder(address).is_some() {
            return Err(ApplyError::BadAddress);
        }
        let node = Arc::make_mut(node);
        node.next_address = addresses::after(offset);
        self.unsaved.insert(Key::Node(node.id));
        Ok(())
    }

    pub(super) fn put_task(&mut self, task: Arc<Task>) {
        self.indexes.add_task(&task);
        self.unsaved.insert(Key::Task(task.id));
        self.tasks.insert(task.id, task);
    }

    fn place_task(&mut self, stamp: Stamp, id: TaskId, place: (NodeId, std::net::Ipv4Addr)) -> Result {
        let before = self.tasks.get(&id).ok_or(ApplyError::Gone("task"))?.clone();
        if before.node.is_some() || !before.is_live() {
            return Err(ApplyError::NotPlaceable);
        }
        self.take_address(place)?;
        let (node, address) = place;
        self.put_task(Arc::new(Task {
            node: Some(node),
            address: Some(address),
            version: stamp.index,
            ..(*before).clone()
        }));
        Ok(Changed::TaskUpdated(before))
    }

    fn set_desired(&mut self, stamp: Stamp, id: TaskId, desired: DesiredState) -> Result {
        let task = self.tasks.get_mut(&id).ok_or(ApplyError::Gone("task"))?;
        if desired <= task.desired {
            return Err(ApplyError::WouldFall);
        }
        let before = task.clone();
        let changed = Arc::make_mut(task);
        changed.desired = desired;
        changed.desired_since = stamp.at;
        changed.version = stamp.index;
        self.unsaved.insert(Key::Task(id));
        Ok(Changed::TaskUpdated(before))
    }

    fn finish_task(&mut self, stamp: Stamp, id: TaskId, outcome: Outcome) -> Result {
        let task = self.tasks.get_mut(&id).ok_or(ApplyError::Gone("task"))?;
        if task.outcome.is_some() || !outcome.state.is_final() {
            return Err(ApplyError::WouldFall);
        }
        let before = task.clone();
        let changed = Arc::make_mut(task);
        changed.outcome = Some(outcome);
        changed.version = stamp.index;
        self.indexes.free_address(&before);
        self.unsaved.insert(Key::Task(id));
        Ok(Changed::TaskUpdated(before))
    }

    fn forget_task(&mut self, id: TaskId) -> Result {
        let task = self.tasks.remove(&id).ok_or(ApplyError::Gone("task"))?;
        self.indexes.remove_task(&task);
        self.unsaved.insert(Key::Task(id));
        Ok(Changed::TaskForgotten(task))
    }

    fn put_image(&mut self, stamp: Stamp, image: Image) -> Result {
        let name = image.name.clone();
        self.images
            .insert(name.clone(), Arc::new(Image { version: stamp.index, created_at: stamp.at, ..image }));
        self.unsaved.insert(Key::Image(name.clone()));
        Ok(Changed::Image(name))
    }

    fn remove_image(&mut self, name: String) -> Result {
        self.images.remove(&name).ok_or(ApplyError::Gone("image"))?;
        self.unsaved.insert(Key::Image(name.clone()));
        Ok(Changed::ImageRemoved(name))
    }
}
