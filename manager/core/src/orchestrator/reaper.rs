//! The reaper: how many records of ended tasks a slot keeps.

use std::time::Duration;

use swarm_model::Service;

use super::NodeCondition;
use super::attempt::Attempt;
use super::ledger::Ledger;
use super::plan::TaskAction;
use super::slot::Slot;
use super::target::Target;

/// Ended tasks kept per slot.
const HISTORY: usize = 5;
/// The most that are kept where the restart policy counts attempts, which it does from these records.
const MAX_COUNTED: u64 = 50;
/// A task that was lost with its node is remembered for this long while the node is down, so that the agent is told to
/// stop it should the node return.
const ORPHAN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Ended tasks that a slot keeps at least.
pub(super) fn history(service: &Service) -> usize {
    let counted = service.spec.task.restart.max_attempts.min(MAX_COUNTED);
    HISTORY.max(usize::try_from(counted).unwrap_or(HISTORY))
}

/// Forgets the oldest ended tasks beyond the history.
pub(super) fn reap(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) {
    let ended = slot.attempts.iter().filter(|attempt| attempt.outcome.is_some()).count();
    let mut excess = ended.saturating_sub(history(&target.service));
    if excess == 0 {
        return;
    }
    for attempt in slot.attempts.iter().filter(|attempt| attempt.outcome.is_some()) {
        if excess == 0 {
            break;
        }
        excess -= 1;
        if !target.is_first_of_update(slot, attempt) && !may_return(attempt, ledger) {
            ledger.act(TaskAction::Forget { id: attempt.id });
        }
    }
}

fn may_return(attempt: &Attempt<'_>, ledger: &mut Ledger<'_>) -> bool {
    let Some(outcome) = attempt.outcome.as_deref() else { return true };
    match attempt.condition {
        NodeCondition::Down { .. } | NodeCondition::Unknown => {
            attempt.is_orphaned() && !ledger.is_due(outcome.at + ORPHAN_KEPT)
        }
        NodeCondition::Unplaced
        | NodeCondition::Usable
        | NodeCondition::Draining
        | NodeCondition::Gone
        | NodeCondition::Mismatch => false,
    }
}
