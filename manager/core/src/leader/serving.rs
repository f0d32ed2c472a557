//! Which tasks serve: wanted to run, seen running, on a node that is not down. They count as running and stand in the mesh.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use swarm_model::{DesiredState, NodeState, ServiceId, TaskId, TaskState};

use super::Leader;
use crate::store::Store;
use crate::watch::Watch;

#[derive(Debug, Default)]
pub(super) struct Serving {
    tasks: BTreeMap<TaskId, (ServiceId, Ipv4Addr)>,
    running: BTreeMap<ServiceId, u32>,
}

impl Serving {
    pub fn running(&self, service: ServiceId) -> u32 {
        self.running.get(&service).copied().unwrap_or(0)
    }

    pub fn contains(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    fn insert(&mut self, task: TaskId, service: ServiceId, address: Ipv4Addr) {
        if self.tasks.insert(task, (service, address)).is_none() {
            *self.running.entry(service).or_default() += 1;
        }
    }

    fn remove(&mut self, task: TaskId) -> Option<(ServiceId, Ipv4Addr)> {
        let (service, address) = self.tasks.remove(&task)?;
        if let Some(count) = self.running.get_mut(&service) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&service);
            }
        }
        Some((service, address))
    }
}

impl Leader {
    /// Looks at a task again after anything about it, or about its node, changed.
    pub(super) fn refresh_serving(&mut self, id: TaskId, store: &Store, watch: &mut Watch) {
        let serves = store.task(id).and_then(|task| {
            let runs = task.outcome.is_none()
                && task.desired == DesiredState::Running
                && self.observations.state(id) == Some(TaskState::Running)
                && self.fleet.state(task.node?) != NodeState::Down;
            runs.then_some((task.service, task.address?))
        });
        match (serves, self.serving.contains(id)) {
            (Some((service, address)), false) => {
                self.serving.insert(id, service, address);
                self.mesh.add_backend(service, address);
                watch.service(service);
            }
            (None, true) => {
                if let Some((service, address)) = self.serving.remove(id) {
                    self.mesh.remove_backend(service, address);
                    watch.service(service);
                }
            }
            (Some(_), true) | (None, false) => {}
        }
    }
}
