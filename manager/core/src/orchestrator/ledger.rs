//! The plan in the making: actions, reasons and the next deadline are entered here.

use std::borrow::Cow;
use std::time::Duration;

use swarm_model::{DesiredState, Outcome, TaskId, Timestamp, UpdateStatus};

use super::attempt::Attempt;
use super::replicas::MAX_REMOVED;
use super::{NodeCondition, Remark, ServicePlan, TaskAction};

/// A task that is to be removed is forgotten when its node has been down for this long; before that the agent may
/// still confirm that it stopped. An agent that returns later removes what it is not assigned.
const FORGET_AFTER_DOWN: Duration = Duration::from_secs(60);
/// Remarks that one plan carries; an operator reads no more.
const MAX_REMARKS: usize = 100;

pub(super) struct Ledger<'i> {
    pub now: Timestamp,
    plan: ServicePlan,
    removed: usize,
    new_task_id: &'i mut dyn FnMut() -> TaskId,
}

impl<'i> Ledger<'i> {
    pub fn new(now: Timestamp, new_task_id: &'i mut dyn FnMut() -> TaskId) -> Self {
        Self { now, plan: ServicePlan::default(), removed: 0, new_task_id }
    }

    pub fn into_plan(self) -> ServicePlan {
        self.plan
    }

    pub fn act(&mut self, action: TaskAction) {
        self.plan.actions.push(action);
    }

    pub fn new_task_id(&mut self) -> TaskId {
        (self.new_task_id)()
    }

    /// More is to be done than one plan holds.
    pub fn go_on(&mut self) {
        self.plan.continues = true;
    }

    pub fn remark(&mut self, remark: Remark) {
        if self.plan.remarks.len() < MAX_REMARKS {
            self.plan.remarks.push(remark);
        }
    }

    /// Whether `time` has come; if not, the plan is made again then.
    pub fn is_due(&mut self, time: Timestamp) -> bool {
        if time <= self.now {
            return true;
        }
        let earlier = self.plan.next_wakeup.map_or(time, |planned| planned.min(time));
        self.plan.next_wakeup = Some(earlier);
        false
    }

    pub fn set_update(&mut self, status: UpdateStatus) {
        self.plan.update = Some(status);
    }

    pub fn roll_back(&mut self, to_revision: u64) {
        self.plan.rollback_to = Some(to_revision);
    }

    pub fn finish(&mut self, attempt: &mut Attempt<'_>, outcome: Outcome) {
        self.act(TaskAction::Finish { id: attempt.id, outcome: outcome.clone() });
        attempt.outcome = Some(Cow::Owned(outcome));
    }

    /// Has a task stopped and forgotten, or forgets it if nothing of it can be running under our eyes.
    pub fn remove(&mut self, attempt: &Attempt<'_>) {
        let ended = attempt.outcome.is_some()
            || attempt.observed.is_some_and(|observed| observed.status.state.is_final());
        let forget = ended
            || match attempt.condition {
                NodeCondition::Unplaced | NodeCondition::Gone => true,
                NodeCondition::Down { since } => self.is_due(since + FORGET_AFTER_DOWN),
                NodeCondition::Usable
                | NodeCondition::Unknown
                | NodeCondition::Draining
                | NodeCondition::Mismatch => false,
            };
        let action = if forget {
            TaskAction::Forget { id: attempt.id }
        } else if attempt.desired < DesiredState::Remove {
            TaskAction::SetDesired { id: attempt.id, desired: DesiredState::Remove }
        } else {
            return;
        };
        if self.removed == MAX_REMOVED {
            return self.go_on();
        }
        self.removed += 1;
        self.act(action);
    }
}
