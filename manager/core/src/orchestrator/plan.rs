//! What was decided about a service. Leaves the executor no choice but the node of a new task.

use swarm_model::{DesiredState, Outcome, TaskId, Timestamp, UpdateStatus};

use super::Remark;

/// The decisions about one service at one time, to be put into one log entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// In this order. A task may be named twice: its desired state rises, and it is finished.
    pub actions: Vec<TaskAction>,
    /// Present if it changed. On a rollback `to_revision` is the number that the restored spec gets: one above the
    /// service's revision.
    pub update: Option<UpdateStatus>,
    /// The revision whose spec becomes the service's spec again, but for its number of replicas.
    pub rollback_to: Option<u64>,
    /// There is more to do than one plan holds: to decide again when this one is written.
    pub continues: bool,
    /// Whether to decide again when a task of the service comes up: something waits for it. Where it is not set, a
    /// service of thousands starts without a decision per task.
    pub awaits_start: bool,
    /// When to decide again even if nothing changes before.
    pub next_wakeup: Option<Timestamp>,
    /// Slots of the view that need no other look until something about their tasks, or those tasks' nodes, changes.
    pub calm: Vec<u32>,
    /// Why it did not do what one might expect.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskAction {
    Create {
        id: TaskId,
        slot: u32,
        /// Ready or Running.
        desired: DesiredState,
        not_before: Option<Timestamp>,
        restarts: u32,
        revision: u64,
    },
    /// Always above the present one.
    SetDesired { id: TaskId, desired: DesiredState },
    /// It ended, or counts as ended.
    Finish { id: TaskId, outcome: Outcome },
    /// The record goes.
    Forget { id: TaskId },
}

impl ServicePlan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.update.is_none() && self.rollback_to.is_none()
    }
}
