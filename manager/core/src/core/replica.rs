//! The replicated state, to look at: for checkers, which believe neither views nor publications.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{Image, Node, Service, ServiceId, Task};

use crate::core::ManagerCore;
use crate::store::Store;

/// What a manager has applied.
#[derive(Debug, Clone, Copy)]
pub struct Replica<'a>(&'a Store);

impl ManagerCore {
    pub fn replica(&self) -> Replica<'_> {
        Replica(&self.store)
    }

    /// Raft ids of the managers that vote, as this one knows it.
    pub fn voters(&self) -> BTreeSet<u64> {
        self.consensus.membership().voters
    }
}

impl<'a> Replica<'a> {
    /// Log index.
    pub fn applied(self) -> u64 {
        self.0.applied()
    }

    pub fn nodes(self) -> impl Iterator<Item = &'a Arc<Node>> {
        self.0.nodes()
    }

    /// Without those that were removed and still have tasks.
    pub fn services(self) -> impl Iterator<Item = &'a Arc<Service>> {
        self.0.services()
    }

    /// Also if it was removed and still has tasks.
    pub fn service(self, id: ServiceId) -> Option<&'a Arc<Service>> {
        self.0.service_record(id).map(|record| &record.service)
    }

    /// Also of services that were removed.
    pub fn tasks(self) -> impl Iterator<Item = &'a Arc<Task>> {
        self.0.tasks()
    }

    pub fn images(self) -> impl Iterator<Item = &'a Arc<Image>> {
        self.0.images()
    }
}
