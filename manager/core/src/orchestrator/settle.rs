//! Each slot on its own: it keeps one task that may run, and loses those that are not needed any more.

use swarm_model::{DesiredState, TaskId, UpdateOrder};

use super::attempt::Attempt;
use super::eviction::{self, Leaving};
use super::ledger::Ledger;
use super::restart::{self, Verdict};
use super::slot::{Beginning, Slot};
use super::target::{Phase, Target};
use super::{NodeCondition, Remark};

/// Settles every slot; what comes back are those that have to leave their node.
pub(super) fn settle_all(slots: &mut [Slot<'_>], target: &Target<'_>, ledger: &mut Ledger<'_>) -> Leaving {
    let mut leaving = Leaving::default();
    for (at, slot) in slots.iter_mut().enumerate() {
        if slot.is_frozen() {
            ledger.remark(Remark::NodeUnknown { slot: slot.number });
            continue;
        }
        match settle(slot, target, ledger) {
            Settled::Stays => {
                if eviction::is_under_way(slot, target) {
                    leaving.in_progress += 1;
                }
            }
            Settled::MustLeave => leaving.waiting.push(at),
        }
    }
    leaving
}

enum Settled {
    Stays,
    /// Its task runs where it must not stay, and has no replacement yet.
    MustLeave,
}

fn settle(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> Settled {
    // While the one that is to stay does not run, one that does goes on serving.
    if let Some(holder) = slot.holder(target) {
        let (id, runs) = (holder.id, holder.is_running());
        slot.stop_where(ledger, |attempt| attempt.id != id && (runs || !attempt.is_running()));
        return Settled::Stays;
    }
    if let Some(stand_in) = slot.stand_in(target) {
        let (id, runs) = (stand_in.id, stand_in.is_running());
        let surplus = |attempt: &Attempt<'_>| {
            attempt.id != id && (attempt.must_leave() || !target.is_current(attempt.revision))
        };
        slot.stop_where(ledger, |attempt| surplus(attempt) && (runs || !attempt.is_running()));
    }
    let Some(at) = slot.decisive(target) else {
        let ended = slot.attempts.last().map_or(target.revision(), |attempt| attempt.revision);
        let beginning = Beginning::of(target.successor_revision(slot, ended));
        slot.replace(ledger, None, beginning, target.order());
        return Settled::Stays;
    };
    let decisive = &slot.attempts[at];
    let (id, live) = (decisive.id, decisive.is_live());
    if live && !decisive.must_leave() {
        // It runs another spec, and the update has not come to it.
        return Settled::Stays;
    }
    if decisive.is_running() {
        return Settled::MustLeave;
    }
    if slot.stand_in(target).is_some() && !is_tried_again(decisive, target) {
        slot.stop_where(ledger, |attempt| attempt.id == id);
    } else if live {
        let beginning = Beginning {
            revision: target.successor_revision(slot, decisive.revision),
            restarts: decisive.restarts,
            not_before: decisive.not_before.filter(|time| *time > ledger.now),
        };
        slot.replace(ledger, serving(slot, target), beginning, target.order());
    } else {
        restart(slot, at, target, ledger);
    }
    Settled::Stays
}

/// Whether an attempt that failed beside one that serves is repeated: what the update at hand began is; a paused update
/// tries nothing.
fn is_tried_again(attempt: &Attempt<'_>, target: &Target<'_>) -> bool {
    match target.phase() {
        Phase::UpdatePaused | Phase::RollbackPaused => false,
        Phase::Updating | Phase::RollingBack => attempt.revision == target.revision(),
        Phase::Settled => target.is_current(attempt.revision),
    }
}

/// Whether an attempt may run while its replacement already does: with start-first, and wherever it must leave its node.
fn may_run_beside(attempt: &Attempt<'_>, target: &Target<'_>) -> bool {
    match target.order() {
        UpdateOrder::StartFirst => true,
        UpdateOrder::StopFirst => attempt.must_leave(),
    }
}

/// What a replacement is put beside: the newest attempt that runs and may do so until the replacement does.
pub(super) fn serving(slot: &Slot<'_>, target: &Target<'_>) -> Option<TaskId> {
    let serving = slot.live().filter(|attempt| attempt.is_running() && may_run_beside(attempt, target));
    serving.map(|attempt| attempt.id).next_back()
}

/// What the restart policy says about the attempt at `at`, which has ended.
pub(super) fn verdict(slot: &Slot<'_>, at: usize, target: &Target<'_>) -> Verdict {
    let ended = &slot.attempts[at];
    let policy = target.restart_policy(ended.revision);
    // A new revision begins a new history; another spec owes nothing to the one that failed.
    if target.successor_revision(slot, ended.revision) == ended.revision {
        restart::decide(policy, &slot.attempts[..=at], ended.restarts)
    } else if target.is_current(ended.revision) {
        restart::decide(policy, std::slice::from_ref(ended), 0)
    } else {
        Verdict::Restart { restarts: 0, not_before: None }
    }
}

fn restart(slot: &mut Slot<'_>, at: usize, target: &Target<'_>, ledger: &mut Ledger<'_>) {
    let ended = &slot.attempts[at];
    match verdict(slot, at, target) {
        Verdict::Retry { at, .. } if !ledger.is_due(at) => {
            ledger.remark(Remark::RetryDelayed { slot: slot.number });
        }
        Verdict::Restart { restarts, not_before } | Verdict::Retry { restarts, not_before, .. } => {
            let beginning = Beginning {
                revision: target.successor_revision(slot, ended.revision),
                restarts,
                not_before: not_before.filter(|time| *time > ledger.now),
            };
            slot.replace(ledger, serving(slot, target), beginning, target.order());
        }
        Verdict::Exhausted { restarts } => {
            ledger.remark(Remark::RestartsExhausted { slot: slot.number, restarts });
        }
        Verdict::Ended => ledger.remark(Remark::Ended { slot: slot.number }),
    }
}

/// Lets a task that was only prepared run, when its delay is over and, with stop-first, what it replaces has ended.
pub(super) fn start_prepared(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) {
    if slot.is_frozen() {
        return;
    }
    let stopping = match target.order() {
        UpdateOrder::StopFirst => stopping_first(slot, target, ledger),
        UpdateOrder::StartFirst => None,
    };
    let number = slot.number;
    let ready = |attempt: &&mut Attempt<'_>| attempt.is_live() && attempt.desired == DesiredState::Ready;
    for attempt in slot.attempts.iter_mut().filter(ready) {
        if is_delayed(attempt, target, ledger) {
            ledger.remark(Remark::RestartDelayed { slot: number, restarts: attempt.restarts });
        } else if let Some(task) = stopping {
            ledger.remark(Remark::WaitsForStop { slot: number, task });
        } else if attempt.condition != NodeCondition::Unknown {
            attempt.raise(DesiredState::Running, ledger);
        }
    }
}

/// What has to end before a prepared task may start. An update that was start-first before the operator changed that may
/// have left something running that was not told yet.
fn stopping_first(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> Option<TaskId> {
    let now = ledger.now;
    let due = |attempt: &Attempt<'_>| {
        attempt.desired == DesiredState::Ready && attempt.not_before.is_none_or(|time| time <= now)
    };
    if slot.live().any(due) {
        slot.stop_where(ledger, |attempt| {
            attempt.desired == DesiredState::Running && !may_run_beside(attempt, target)
        });
    }
    slot.attempts.iter().find(|attempt| attempt.is_stopping()).map(|attempt| attempt.id)
}

fn is_delayed(attempt: &Attempt<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> bool {
    let Some(not_before) = attempt.not_before else { return false };
    // Further away than any delay can be: a former leader's clock was ahead. Not worth waiting for.
    let longest = restart::longest_delay(target.restart_policy(attempt.revision));
    not_before.since(ledger.now) <= longest && !ledger.is_due(not_before)
}
