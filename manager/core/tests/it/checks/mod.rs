//! Invariants of the design, one file each, checked after every publication of the leader.

mod addresses;
mod equal_stores;
mod host_ports;
mod reservations;
mod slots;
mod states;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use swarm_manager_core::api::{Change, NodeView, ServiceView, TaskView};
use swarm_model::{NodeId, ServiceId, TaskId, TaskState};

use crate::sim::World;

pub use equal_stores::check as equal_stores;

/// The cluster as a watcher of the present leader saw it.
#[derive(Default)]
pub struct Mirror {
    pub tasks: BTreeMap<TaskId, TaskView>,
    pub services: BTreeMap<ServiceId, ServiceView>,
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Highest state that was seen of a task.
    pub highest: BTreeMap<TaskId, TaskState>,
}

impl Mirror {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(view) => drop(self.services.insert(view.service.id, view)),
            Change::Task(view) => drop(self.tasks.insert(view.task.id, view)),
            Change::Node(view) => drop(self.nodes.insert(view.node.id, view)),
            Change::ServiceRemoved(id) => drop(self.services.remove(&id)),
            Change::TaskRemoved { task, .. } => drop(self.tasks.remove(&task)),
            Change::NodeRemoved(id) => drop(self.nodes.remove(&id)),
            Change::Image(_) | Change::ImageRemoved(_) => {}
        }
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for view in self.tasks.values() {
            let task = &view.task;
            let _ = writeln!(
                text,
                "{}.{} {} rev {} on {} desired {} is {} {:?} {:?}",
                view.service_name,
                task.slot,
                &task.id.to_string()[..6],
                task.revision,
                view.node_hostname,
                task.desired,
                view.status.state,
                view.status.message,
                view.status.error,
            );
        }
        for view in self.services.values() {
            let _ = writeln!(
                text,
                "{} {}/{} {:?}",
                view.service.spec.name, view.running, view.desired, view.service.update
            );
        }
        for view in self.nodes.values() {
            let _ = writeln!(text, "{} {:?} {}", view.node.engine.hostname, view.state, view.message);
        }
        text
    }
}

/// Fails with the seed and the story.
pub fn check(world: &mut World) {
    let violations = [
        states::check(&mut world.mirror),
        slots::check(&world.mirror),
        addresses::check(&world.mirror),
        host_ports::check(&world.mirror),
        reservations::check(&world.mirror),
    ];
    let violations: Vec<String> = violations.into_iter().flatten().collect();
    assert!(violations.is_empty(), "seed {}: {}\n{}", world.seed, violations.join("\n"), world.story());
}
