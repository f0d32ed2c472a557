//! What watchers are told: committed and observed changes, collected per batch, each object once and as it is at the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{NodeId, Service, ServiceId, Task, TaskId};

use crate::api::Change;
use crate::door::Publication;
use crate::views::Sight;

#[derive(Debug, Default)]
pub(crate) struct Watch {
    sequence: u64,
    services: BTreeSet<ServiceId>,
    tasks: BTreeSet<TaskId>,
    nodes: BTreeSet<NodeId>,
    images: BTreeSet<String>,
    /// In the order in which they happened.
    removed: Vec<Change>,
}

impl Watch {
    /// Number of the last publication.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn service(&mut self, id: ServiceId) {
        self.services.insert(id);
    }

    pub fn task(&mut self, id: TaskId) {
        self.tasks.insert(id);
    }

    pub fn node(&mut self, id: NodeId) {
        self.nodes.insert(id);
    }

    pub fn image(&mut self, name: &str) {
        self.images.insert(name.to_owned());
    }

    pub fn service_removed(&mut self, service: &Service) {
        self.services.remove(&service.id);
        self.removed.push(Change::ServiceRemoved(service.id));
    }

    pub fn task_removed(&mut self, task: &Task) {
        self.tasks.remove(&task.id);
        self.removed.push(Change::TaskRemoved { task: task.id, service: task.service });
    }

    pub fn node_removed(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        self.removed.push(Change::NodeRemoved(id));
    }

    pub fn image_removed(&mut self, name: &str) {
        self.images.remove(name);
        self.removed.push(Change::ImageRemoved(name.to_owned()));
    }

    pub fn clear(&mut self) {
        *self = Self { sequence: self.sequence, ..Self::default() };
    }

    /// `None`: nothing happened.
    pub fn publish(&mut self, sight: &Sight<'_>, index: u64) -> Option<Publication> {
        let services = std::mem::take(&mut self.services);
        let tasks = std::mem::take(&mut self.tasks);
        let nodes = std::mem::take(&mut self.nodes);
        let images = std::mem::take(&mut self.images);
        let mut changes = std::mem::take(&mut self.removed);
        let store = sight.store;
        changes
            .extend(nodes.iter().filter_map(|id| store.node(*id)).map(|node| Change::Node(sight.node(node))));
        changes.extend(
            services.iter().filter_map(|id| store.service(*id)).map(|it| Change::Service(sight.service(it))),
        );
        changes
            .extend(tasks.iter().filter_map(|id| store.task(*id)).map(|task| Change::Task(sight.task(task))));
        changes.extend(
            images.iter().filter_map(|name| store.image(name)).map(|it| Change::Image(Arc::clone(it))),
        );
        if changes.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(Publication { sequence: self.sequence, index, changes })
    }
}
