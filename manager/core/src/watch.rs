//! What watchers are to be told: which objects changed in a batch, each once. [`crate::views`] shows them as they are at
//! its end.

use std::collections::BTreeSet;

use swarm_model::{NodeId, Service, ServiceId, Task, TaskId};

use crate::api::Change;
use crate::door::Publication;

#[derive(Debug, Default)]
pub(crate) struct Watch {
    sequence: u64,
    changed: Changed,
}

/// What changed in a batch.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub services: BTreeSet<ServiceId>,
    pub tasks: BTreeSet<TaskId>,
    pub nodes: BTreeSet<NodeId>,
    pub images: BTreeSet<String>,
    /// In the order in which they happened.
    pub removed: Vec<Change>,
}

impl Watch {
    /// Number of the last publication.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn service(&mut self, id: ServiceId) {
        self.changed.services.insert(id);
    }

    pub fn task(&mut self, id: TaskId) {
        self.changed.tasks.insert(id);
    }

    pub fn node(&mut self, id: NodeId) {
        self.changed.nodes.insert(id);
    }

    pub fn image(&mut self, name: &str) {
        self.changed.images.insert(name.to_owned());
    }

    pub fn service_removed(&mut self, service: &Service) {
        self.changed.services.remove(&service.id);
        self.changed.removed.push(Change::ServiceRemoved(service.id));
    }

    pub fn task_removed(&mut self, task: &Task) {
        self.changed.tasks.remove(&task.id);
        self.changed.removed.push(Change::TaskRemoved { task: task.id, service: task.service });
    }

    pub fn node_removed(&mut self, id: NodeId) {
        self.changed.nodes.remove(&id);
        self.changed.removed.push(Change::NodeRemoved(id));
    }

    pub fn image_removed(&mut self, name: &str) {
        self.changed.images.remove(name);
        self.changed.removed.push(Change::ImageRemoved(name.to_owned()));
    }

    /// Everything since the last time.
    pub fn take(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Numbers what there is to tell; `None`: nothing.
    pub fn publication(&mut self, changes: Vec<Change>, index: u64) -> Option<Publication> {
        if changes.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(Publication { sequence: self.sequence, index, changes })
    }
}
