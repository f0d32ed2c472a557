//! Applies committed actions: deterministic, never panicking, each action alone. An action that does not fit the state is
//! a no-op with an error for its proposer.

mod nodes;
mod operators;
mod services;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    Autolock, Cluster, EventId, HostPort, Image, Node, NodeId, NodeRole, OperatorId, RootRotation, Secret,
    Service, ServiceId, Task, TaskId, Timestamp,
};

use super::audit::describe;
use super::object::Key;
use super::{Action, Payload, Store};

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
    Operator(OperatorId),
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
    #[error("it is the last manager")]
    LastManager,
    #[error("it is not to be a manager, or is one already")]
    NotSeatable,
    #[error("the token was used, or has expired")]
    TokenSpent,
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
        let mut event = EventId { index, position: 0 };
        for (position, action) in payload.actions.into_iter().enumerate() {
            let told = describe(self, payload.by.as_ref(), &action);
            match self.apply_one(stamp, action) {
                Ok(changed) => {
                    applied.changes.push(changed);
                    if let Some(what) = told {
                        self.note(event, stamp.at, what);
                        event.position += 1;
                    }
                }
                Err(error) => applied.errors.push((position, error)),
            }
        }
        applied
    }

    fn apply_one(&mut self, stamp: Stamp, action: Action) -> Result {
        match action {
            Action::CreateCluster(cluster) => self.create_cluster(stamp, *cluster),
            Action::SetJoinSecret { role, secret } => self.set_join_secret(stamp, role, secret),
            Action::SetCertificateLife { life } => self.change_cluster(stamp, |cluster| {
                cluster.certificate_life = life;
                Ok(())
            }),
            Action::BeginRootRotation { base, rotation } => self.begin_rotation(stamp, base, rotation),
            Action::FinishRootRotation { root_digest } => self.finish_rotation(stamp, &root_digest),
            Action::SetAutolock { unlock_key } => self.set_autolock(stamp, unlock_key),
            Action::CreateNode(node) => self.create_node(stamp, *node),
            Action::UpdateNode { node, base, spec } => self.update_node(stamp, node, base, spec),
            Action::DescribeNode { node, engine } => self.describe_node(stamp, node, engine),
            Action::SeatManager { node, address, raft_id } => {
                self.seat_manager(stamp, node, address, raft_id)
            }
            Action::UnseatManager { node, raft_id } => self.unseat_manager(stamp, node, raft_id),
            Action::RemoveNode { node } => self.remove_node(stamp, node),
            Action::CreateService(service) => self.create_service(stamp, *service),
            Action::UpdateService(update) => self.update_service(stamp, *update),
            Action::SetUpdateStatus { service, revision, update } => {
                self.set_update_status(service, revision, update)
            }
            Action::RemoveService { service } => self.remove_service(stamp, service),
            Action::ForgetService { service } => self.forget_service(stamp, service),
            Action::CreateTask(task) => self.create_task(stamp, task),
            Action::PlaceTask { task, node, address } => self.place_task(stamp, task, (node, address)),
            Action::SetDesired { task, desired } => self.set_desired(stamp, task, desired),
            Action::FinishTask { task, outcome } => self.finish_task(stamp, task, outcome),
            Action::ForgetTask { task } => self.forget_task(task),
            Action::InviteOperator(account) => self.invite_operator(stamp, *account),
            Action::EnrolOperator { operator, enrolment } => self.enrol_operator(stamp, operator, *enrolment),
            Action::RenewOperator { operator, valid_until } => self.renew_operator(operator, valid_until),
            Action::RemoveOperator { operator, by } => self.remove_operator(stamp, operator, by),
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
        self.change_cluster(stamp, |cluster| {
            match role {
                NodeRole::Worker => cluster.join.worker = secret,
                NodeRole::Manager => cluster.join.manager = secret,
            }
            Ok(())
        })
    }

    fn begin_rotation(&mut self, stamp: Stamp, base: u64, rotation: Box<RootRotation>) -> Result {
        self.change_cluster(stamp, |cluster| {
            if cluster.version != base {
                return Err(ApplyError::OutOfSequence { given: base, current: cluster.version });
            }
            cluster.rotation = Some(Box::new(RootRotation { started_at: stamp.at, ..*rotation }));
            Ok(())
        })
    }

    fn finish_rotation(&mut self, stamp: Stamp, root_digest: &str) -> Result {
        self.change_cluster(stamp, |cluster| {
            let rotation = cluster.rotation.take_if(|rotation| rotation.root_digest == root_digest);
            let rotation = rotation.ok_or(ApplyError::Gone("rotation"))?;
            cluster.root_certificate = rotation.root_certificate;
            cluster.root_key = rotation.root_key;
            cluster.join = rotation.join;
            Ok(())
        })
    }

    fn change_cluster(
        &mut self,
        stamp: Stamp,
        change: impl FnOnce(&mut Cluster) -> std::result::Result<(), ApplyError>,
    ) -> Result {
        let known = self.cluster.as_mut().ok_or(ApplyError::NoCluster)?;
        let mut cluster = Cluster::clone(known);
        change(&mut cluster)?;
        cluster.version = stamp.index;
        cluster.updated_at = stamp.at;
        *known = Arc::new(cluster);
        self.unsaved.insert(Key::Cluster);
        Ok(Changed::Cluster)
    }

    fn set_autolock(&mut self, stamp: Stamp, unlock_key: Option<Secret>) -> Result {
        let cluster = Arc::make_mut(self.cluster.as_mut().ok_or(ApplyError::NoCluster)?);
        cluster.autolock = Autolock { unlock_key, version: stamp.index };
        cluster.version = stamp.index;
        cluster.updated_at = stamp.at;
        self.unsaved.insert(Key::Cluster);
        Ok(Changed::Cluster)
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
