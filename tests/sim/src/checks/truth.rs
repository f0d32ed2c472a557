//! The replicated state as the most advanced manager applied it. What is applied is committed, so it never goes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_manager_core::Replica;
use swarm_model::{Image, Node, NodeId, Service, ServiceId, ServiceSpec, Task, TaskId};

#[derive(Debug, Default)]
pub struct Truth {
    pub applied: u64,
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Without removed ones.
    pub services: BTreeMap<ServiceId, Arc<Service>>,
    /// With those that were removed and still have tasks.
    records: BTreeMap<ServiceId, Arc<Service>>,
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    pub images: BTreeMap<String, Arc<Image>>,
}

impl Truth {
    pub fn of(replica: Replica<'_>) -> Self {
        let tasks: BTreeMap<_, _> = replica.tasks().map(|task| (task.id, task.clone())).collect();
        let records = tasks.values().filter_map(|task| replica.service(task.service));
        Self {
            applied: replica.applied(),
            nodes: replica.nodes().map(|node| (node.id, node.clone())).collect(),
            services: replica.services().map(|service| (service.id, service.clone())).collect(),
            records: records.map(|service| (service.id, service.clone())).collect(),
            images: replica.images().map(|image| (image.name.clone(), image.clone())).collect(),
            tasks,
        }
    }

    /// For mutations: services as the operator knows them.
    pub fn each_service_table(&mut self, mut change: impl FnMut(&mut BTreeMap<ServiceId, Arc<Service>>)) {
        change(&mut self.services);
        change(&mut self.records);
    }

    /// What the task was made from; `None` once it is forgotten.
    pub fn spec_of(&self, task: &Task) -> Option<&Arc<ServiceSpec>> {
        self.records.get(&task.service)?.revisions.get(&task.revision)
    }

    /// Tasks that may hold something: not ended.
    pub fn open_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().filter(|task| task.outcome.is_none())
    }

    pub fn slot(&self, service: ServiceId, slot: u32) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().filter(move |task| task.service == service && task.slot == slot)
    }
}
