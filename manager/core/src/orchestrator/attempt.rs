//! A task as the plan in the making leaves it.

use std::borrow::Cow;

use swarm_model::{DesiredState, NodeId, Outcome, Task, TaskId, TaskState, Timestamp};

use super::ledger::Ledger;
use super::{NodeCondition, Observed, TaskAction, TaskView};

/// One attempt to run a slot.
#[derive(Debug, Clone)]
pub(super) struct Attempt<'a> {
    pub id: TaskId,
    pub revision: u64,
    pub created_at: Timestamp,
    pub desired: DesiredState,
    pub desired_since: Timestamp,
    pub not_before: Option<Timestamp>,
    pub restarts: u32,
    pub node: Option<NodeId>,
    pub condition: NodeCondition,
    pub observed: Option<Observed<'a>>,
    pub outcome: Option<Cow<'a, Outcome>>,
}

impl<'a> Attempt<'a> {
    pub fn of(view: &TaskView<'a>) -> Self {
        let task: &'a Task = view.task;
        Self {
            id: task.id,
            revision: task.revision,
            created_at: task.created_at,
            desired: task.desired,
            desired_since: task.desired_since,
            not_before: task.not_before,
            restarts: task.restarts,
            node: task.node,
            condition: view.node,
            observed: view.observed,
            outcome: task.outcome.as_ref().map(Cow::Borrowed),
        }
    }

    /// May run, or be made to run.
    pub fn is_live(&self) -> bool {
        self.outcome.is_none() && self.desired <= DesiredState::Running
    }

    /// Was told to stop, and did not end yet.
    pub fn is_stopping(&self) -> bool {
        self.outcome.is_none() && self.desired >= DesiredState::Shutdown
    }

    /// Since when it runs, as its agent says; a node that is down or unknown says nothing.
    pub fn running_since(&self) -> Option<Timestamp> {
        let speaks = match self.condition {
            NodeCondition::Usable | NodeCondition::Draining | NodeCondition::Mismatch => true,
            NodeCondition::Unplaced
            | NodeCondition::Unknown
            | NodeCondition::Down { .. }
            | NodeCondition::Gone => false,
        };
        let observed = self.observed.filter(|_| speaks && self.outcome.is_none())?;
        (observed.status.state == TaskState::Running).then_some(observed.since)
    }

    pub fn is_running(&self) -> bool {
        self.running_since().is_some()
    }

    /// Must not stay on its node, though it may run there until its replacement does.
    pub fn must_leave(&self) -> bool {
        matches!(self.condition, NodeCondition::Draining | NodeCondition::Mismatch)
    }

    /// Raises the desired state.
    pub fn raise(&mut self, desired: DesiredState, ledger: &mut Ledger<'_>) {
        self.desired = desired;
        self.desired_since = ledger.now;
        ledger.act(TaskAction::SetDesired { id: self.id, desired });
    }

    /// How it ended, if that was the container's own doing: it exited or failed although it was to run.
    pub fn own_end(&self) -> Option<&Outcome> {
        let outcome = self.outcome.as_deref()?;
        let own = matches!(outcome.state, TaskState::Failed | TaskState::Complete);
        (own && self.desired == DesiredState::Running).then_some(outcome)
    }

    pub fn is_orphaned(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Orphaned)
    }

    /// Was replaced or not needed any more: it says nothing about what its slot needs. One that was lost with its node
    /// does.
    pub fn is_superseded(&self) -> bool {
        self.desired >= DesiredState::Shutdown && !self.is_orphaned()
    }

    /// When it was allowed to start.
    pub fn started_at(&self) -> Timestamp {
        self.not_before.map_or(self.created_at, |time| time.max(self.created_at))
    }

    /// The older one first. Behind the time of creation only for the sake of a total order.
    pub fn age_order(&self) -> (Timestamp, u64, bool, TaskId) {
        (self.created_at, self.revision, self.is_live(), self.id)
    }
}
