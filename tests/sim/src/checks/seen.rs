//! What the present leader knows of tasks, as it publishes it.

use std::collections::BTreeMap;

use swarm_manager_core::api::Change;
use swarm_model::{DesiredState, NodeId, NodeState, TaskId, TaskState, Timestamp};

#[derive(Debug, Default)]
pub struct Seen {
    term: u64,
    tasks: BTreeMap<TaskId, TaskState>,
    nodes: BTreeMap<NodeId, NodeState>,
    /// Tasks that any leader ever saw running, or ended.
    ran: BTreeMap<TaskId, TaskState>,
    /// When a task was last told to be running: it may have ended before the next entry is committed.
    told_running: BTreeMap<TaskId, Timestamp>,
}

impl Seen {
    /// Another leader knows nothing yet.
    pub fn begin(&mut self, term: u64) {
        if term > self.term {
            let Self { ran, told_running, .. } = std::mem::take(self);
            *self = Self { term, ran, told_running, ..Self::default() };
        }
    }

    pub fn term(&self) -> u64 {
        self.term
    }

    pub fn state(&self, task: TaskId) -> Option<TaskState> {
        self.tasks.get(&task).copied()
    }

    pub fn told_running(&self, task: TaskId) -> Option<Timestamp> {
        self.told_running.get(&task).copied()
    }

    pub fn node(&self, node: NodeId) -> Option<NodeState> {
        self.nodes.get(&node).copied()
    }

    /// Starts from everything.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Task(view) => drop(self.tasks.insert(view.task.id, view.status.state)),
                Change::Node(view) => drop(self.nodes.insert(view.node.id, view.state)),
                Change::TaskRemoved { task, .. } => drop(self.tasks.remove(&task)),
                Change::NodeRemoved(node) => drop(self.nodes.remove(&node)),
                Change::Service(_)
                | Change::ServiceRemoved(_)
                | Change::Image(_)
                | Change::ImageRemoved(_) => {}
            }
        }
    }

    /// Follows what is published.
    ///
    /// # Errors
    /// A task's state fell.
    pub fn follow(&mut self, changes: Vec<Change>, now: Timestamp) -> Result<(), String> {
        for change in &changes {
            let Change::Task(view) = change else { continue };
            let (id, state) = (view.task.id, view.status.state);
            if let Some(before) = self.state(id).filter(|before| *before > state) {
                return Err(format!("task {id} fell from {before} to {state}"));
            }
            if state == TaskState::Running {
                self.told_running.insert(id, now);
            }
            if state >= TaskState::Running {
                let before = self.ran.insert(id, state);
                // A node that has cleaned up says no more how a task ended that is to be removed.
                let forgotten = view.task.desired == DesiredState::Remove && state > TaskState::Running;
                if let Some(before) = before.filter(|before| *before > state && !forgotten) {
                    return Err(format!("task {id} was {before} for an earlier leader and is {state}"));
                }
            }
        }
        self.apply(changes);
        Ok(())
    }
}
