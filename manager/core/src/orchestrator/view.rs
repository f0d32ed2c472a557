//! What a decision about a service is made from. Borrowed from the leader's store and observations.

use std::collections::BTreeSet;

use swarm_model::{Service, Task, TaskStatus, Timestamp};

/// A service and everything that exists of it, but for what is left out as calm.
#[derive(Debug, Clone)]
pub struct ServiceView<'a> {
    pub service: &'a Service,
    /// The operator removed it: its tasks are stopped and forgotten.
    pub removed: bool,
    /// All tasks of its slots but of those in `calm`, in any order. `Task::created_at` must rise strictly from one task
    /// of a slot to the next, across changes of leader too: it tells which one is newer.
    pub tasks: Vec<TaskView<'a>>,
    /// Slots of which nothing changed since a plan named them as [`super::ServicePlan::calm`]: the work is in proportion
    /// to what changed. Empty unless [`super::may_leave_out`] allows it.
    pub calm: &'a BTreeSet<u32>,
}

/// A task, with what the leader sees of it.
#[derive(Debug, Clone, Copy)]
pub struct TaskView<'a> {
    pub task: &'a Task,
    /// `None`: its agent has not reported it.
    pub observed: Option<Observed<'a>>,
    pub node: NodeCondition,
}

/// The newest report of a task. Times are by the leader's clock.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    pub status: &'a TaskStatus,
    /// When this state was first seen.
    pub since: Timestamp,
    /// When it was first seen running; `None`: not by this leader.
    pub ran_since: Option<Timestamp>,
}

/// What a task's node means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeCondition {
    /// It has no node yet.
    Unplaced,
    /// Ready, active or paused, and it still fits there.
    Usable,
    /// Not heard of since this leader took over. Nothing that depends on the task's status is decided.
    Unknown,
    /// Ready, but the operator empties it.
    Draining,
    Down {
        since: Timestamp,
    },
    /// Not a member any more.
    Gone,
    /// Ready, but the task no longer satisfies its placement there: the one that the scheduler would use for the
    /// task's revision.
    Mismatch,
}
