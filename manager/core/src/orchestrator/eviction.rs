//! Evictions: tasks leave nodes that are drained or that they no longer fit, one replacement running before one stops.

use std::time::Duration;

use swarm_model::UpdateOrder;

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
        let keep = serving(slot);
        let Some(old) = slot.attempts.iter().find(|attempt| Some(attempt.id) == keep) else { continue };
        let revision = target.successor_revision(slot, old.revision);
        let beginning = Beginning { revision, restarts: old.restarts, not_before: None };
        slot.replace(ledger, keep, beginning, UpdateOrder::StartFirst);
    }
    if !later.is_empty() {
        ledger.remark(Remark::EvictionQueued { slots: u32::try_from(later.len()).unwrap_or(u32::MAX) });
    }
}

/// Whether a task of the slot runs where it must not stay while its replacement is on the way. Stops it when the
/// deadline has passed.
pub(super) fn is_under_way(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> bool {
    let leaves = |attempt: &Attempt<'_>| attempt.is_live() && attempt.must_leave() && attempt.is_running();
    let Some(at) = slot.attempts.iter().position(leaves) else { return false };
    let old = &slot.attempts[at];
    let replaces = |attempt: &&Attempt<'_>| {
        !attempt.is_superseded() && (attempt.revision == old.revision || target.is_current(attempt.revision))
    };
    let Some(first) = slot.attempts[at + 1..].iter().find(replaces) else { return false };
    if ledger.is_due(first.created_at + DEADLINE) {
        let id = old.id;
        slot.stop_where(ledger, |attempt| attempt.id == id);
        return false;
    }
    true
}
