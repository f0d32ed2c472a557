//! Evictions: tasks leave nodes that are drained or that they no longer fit, one replacement running before one stops.

use std::time::Duration;

use swarm_model::{TaskId, Timestamp, UpdateOrder};

use super::Remark;
use super::attempt::Attempt;
use super::ledger::Ledger;
use super::settle::serving;
use super::slot::{Beginning, Slot};
use super::target::Target;

/// Slots of one service that leave their nodes at the same time, so that a drain does not double a service.
const PARALLELISM: usize = 5;
/// A task whose replacement does not run after this long is stopped all the same: a drained node gets empty.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Slots that have to leave, by their position.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub waiting: Vec<usize>,
    pub in_progress: usize,
}

/// Creates replacements for the next slots in turn.
pub(super) fn evict(slots: &mut [Slot<'_>], leaving: Leaving, target: &Target<'_>, ledger: &mut Ledger<'_>) {
    let turn = PARALLELISM.saturating_sub(leaving.in_progress).min(leaving.waiting.len());
    let (now, later) = leaving.waiting.split_at(turn);
    for at in now {
        let slot = &mut slots[*at];
        let keep = serving(slot, target);
        let Some(old) = slot.attempts.iter().find(|attempt| Some(attempt.id) == keep) else { continue };
        let revision = target.successor_revision(slot, old.revision);
        let beginning = Beginning { revision, restarts: old.restarts, not_before: None };
        slot.replace(ledger, keep, beginning, UpdateOrder::StartFirst);
    }
    if !later.is_empty() {
        ledger.remark(Remark::EvictionQueued { slots: u32::try_from(later.len()).unwrap_or(u32::MAX) });
    }
}

/// Stops what runs where it must not stay, if its replacement had its time. Before anything else is decided: the slot may
/// be out of service from here on.
pub(super) fn enforce_deadline(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) {
    if let Some((old, since)) = under_way(slot, target)
        && !slot.is_frozen()
        && ledger.is_due(since + DEADLINE)
    {
        slot.stop_where(ledger, |attempt| attempt.id == old);
    }
}

/// Whether a task of the slot runs where it must not stay while its replacement is on the way.
pub(super) fn is_under_way(slot: &Slot<'_>, target: &Target<'_>) -> bool {
    under_way(slot, target).is_some()
}

/// The task that is to leave, and since when it is being replaced.
fn under_way(slot: &Slot<'_>, target: &Target<'_>) -> Option<(TaskId, Timestamp)> {
    let leaves = |attempt: &Attempt<'_>| attempt.is_live() && attempt.must_leave() && attempt.is_running();
    let at = slot.attempts.iter().position(leaves)?;
    let old = &slot.attempts[at];
    let replaces = |attempt: &&Attempt<'_>| {
        !attempt.is_superseded() && (attempt.revision == old.revision || target.is_current(attempt.revision))
    };
    let first = slot.attempts[at + 1..].iter().find(replaces)?;
    Some((old.id, first.created_at))
}
