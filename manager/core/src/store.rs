//! The replicated state: tables of shared objects with secondary indexes, changed by [`Store::apply`] alone.
//!
//! Everything here is a function of the log: two stores that applied the same entries are equal. What agents observe is
//! not here (see `dispatcher`), nor any decision (see `leader`).

mod action;
mod apply;
mod audit;
mod capture;
mod indexes;
mod object;
mod operators;
mod removed;
mod service;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use imbl::OrdMap;
use swarm_model::{Cluster, HostPort, Image, Node, NodeId, Service, ServiceId, Task, TaskId, Timestamp};

pub(crate) use action::{Action, NewTask, Payload, PayloadError, ServiceUpdate};
pub(crate) use apply::{Applied, ApplyError, Changed};
pub(crate) use audit::Gone;
pub use audit::{After, EventQuery};
pub use capture::Capture;
pub(crate) use capture::Unsaved;
pub(crate) use object::DecodeError;
pub use object::{ObjectKey, StoredObject};
pub use operators::Operators;
pub use removed::RemovedNodes;
use removed::RemovedServices;
pub(crate) use service::ServiceRecord;

use indexes::Indexes;
use object::Key;

/// All tables at one log index.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// Index of the last entry applied.
    applied: u64,
    /// Time of the last entry. Entries happen one after the other whatever the clocks of their proposers say.
    clock: Timestamp,
    cluster: Option<Arc<Cluster>>,
    nodes: OrdMap<NodeId, Arc<Node>>,
    removed: RemovedNodes,
    operators: Operators,
    audit: audit::Audit,
    services: OrdMap<ServiceId, ServiceRecord>,
    removed_services: RemovedServices,
    tasks: OrdMap<TaskId, Arc<Task>>,
    images: OrdMap<String, Arc<Image>>,
    indexes: Indexes,
    /// What differs from the last checkpoint that was cut.
    unsaved: BTreeSet<Key>,
}

/// Equal state; what was already checkpointed is no part of it.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        self.applied == other.applied
            && self.clock == other.clock
            && self.cluster == other.cluster
            && self.nodes == other.nodes
            && self.removed == other.removed
            && self.operators == other.operators
            && self.audit == other.audit
            && self.services == other.services
            && self.removed_services == other.removed_services
            && self.tasks == other.tasks
            && self.images == other.images
            && self.indexes == other.indexes
    }
}

impl Store {
    /// The store that a checkpoint describes.
    ///
    /// # Errors
    /// An object that this version cannot read.
    pub fn restore(applied: u64, objects: &[StoredObject]) -> Result<Self, DecodeError> {
        let mut store = Self { applied, ..Self::default() };
        for object in objects {
            store.load(object)?;
        }
        store.unsaved.clear();
        Ok(store)
    }

    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Notes an entry that changes nothing here: Raft's own.
    pub fn skip_to(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Nodes that were members, and are refused.
    pub fn removed_nodes(&self) -> &RemovedNodes {
        &self.removed
    }

    pub fn operators(&self) -> &Operators {
        &self.operators
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub fn nodes_called<'a>(&'a self, hostname: &str) -> impl Iterator<Item = &'a Arc<Node>> {
        self.indexes.nodes_called(hostname).filter_map(|id| self.nodes.get(&id))
    }

    /// Ids in ascending order from `from` on, for prefix lookups.
    pub fn nodes_from(&self, from: NodeId) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.range(from..).map(|(_, node)| node)
    }

    /// Nodes that are managers, are about to be, or were a moment ago.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.indexes.managers().filter_map(|id| self.nodes.get(&id))
    }

    /// 0: there is no node.
    pub fn highest_node_index(&self) -> u16 {
        self.indexes.highest_node_index()
    }

    pub fn node_index_taken(&self, index: u16) -> bool {
        self.indexes.node_at(index).is_some()
    }

    /// A service that was not removed.
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id).filter(|record| !record.removed).map(|record| &record.service)
    }

    /// A service with its mark of removal: kept until its last task is gone.
    pub fn service_record(&self, id: ServiceId) -> Option<&ServiceRecord> {
        self.services.get(&id)
    }

    /// Whether the id was that of a service that is removed and forgotten: nothing may take it again.
    pub fn was_service(&self, id: ServiceId) -> bool {
        self.removed_services.get(id).is_some()
    }

    /// Services that were not removed.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter(|record| !record.removed).map(|record| &record.service)
    }

    pub fn service_ids(&self) -> impl Iterator<Item = ServiceId> {
        self.services.keys().copied()
    }

    pub fn services_from(&self, from: ServiceId) -> impl Iterator<Item = &Arc<Service>> {
        self.services.range(from..).filter(|(_, record)| !record.removed).map(|(_, record)| &record.service)
    }

    pub fn service_called(&self, name: &str) -> Option<&Arc<Service>> {
        self.indexes.service_called(name).and_then(|id| self.service(id))
    }

    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.indexes.service_names()
    }

    /// Who publishes an ingress port.
    pub fn port_holder(&self, port: HostPort) -> Option<ServiceId> {
        self.indexes.port_holder(port)
    }

    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    pub fn tasks_from(&self, from: TaskId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.range(from..).map(|(_, task)| task)
    }

    pub fn tasks_of_service(&self, id: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.tasks_of_service(id).filter_map(|id| self.tasks.get(&id))
    }

    pub fn tasks_of_slot(&self, id: ServiceId, slot: u32) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.tasks_of_slot(id, slot).filter_map(|id| self.tasks.get(&id))
    }

    pub fn tasks_on_node(&self, id: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.tasks_on_node(id).filter_map(|id| self.tasks.get(&id))
    }

    /// The task that holds an address: it has not ended, so its container may still exist.
    pub fn address_holder(&self, address: Ipv4Addr) -> Option<TaskId> {
        self.indexes.address_holder(address)
    }

    pub fn image(&self, name: &str) -> Option<&Arc<Image>> {
        self.images.get(name)
    }

    pub fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// What changed since the last call.
    pub fn take_unsaved(&mut self) -> Unsaved {
        Unsaved { keys: std::mem::take(&mut self.unsaved), store: self.frozen() }
    }

    /// Every object, encoded.
    pub fn export(&self) -> Vec<StoredObject> {
        self.objects().collect()
    }

    fn objects(&self) -> impl Iterator<Item = StoredObject> {
        let keys = [Key::Clock]
            .into_iter()
            .chain(self.cluster.iter().map(|_| Key::Cluster))
            .chain(self.nodes.keys().map(|id| Key::Node(*id)))
            .chain(self.removed.iter().map(|(id, _)| Key::RemovedNode(*id)))
            .chain(self.operators.accounts().map(|account| Key::Operator(account.id)))
            .chain(self.operators.removed().map(|(id, _)| Key::RemovedOperator(*id)))
            .chain(self.audit.pages().map(|(trail, number)| Key::Events(trail, number)))
            .chain(self.services.keys().map(|id| Key::Service(*id)))
            .chain(self.removed_services.ids().map(Key::RemovedService))
            .chain(self.tasks.keys().map(|id| Key::Task(*id)))
            .chain(self.images.keys().map(|name| Key::Image(name.clone())));
        keys.filter_map(|key| self.encode(&key))
    }
}
