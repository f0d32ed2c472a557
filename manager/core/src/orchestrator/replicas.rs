//! How many slots a service has: which exist, which are too many, which are missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{DesiredState, NodeId, Service, UpdateOrder, UpdateState};

use super::attempt::Attempt;
use super::ledger::Ledger;
use super::slot::{Beginning, Slot};
use super::target::Target;
use super::{NodeCondition, Remark, ServiceView, TaskView};

/// Tasks that one plan creates: some ten milliseconds' work. The rest follows in the next one.
const MAX_CREATED: usize = 100_000;
/// Tasks that one plan removes, for the same reason.
pub(super) const MAX_REMOVED: usize = 100_000;

/// What exists of a service.
pub(super) struct Slots<'a> {
    /// In order.
    pub restless: Vec<Slot<'a>>,
    /// Numbers of the slots whose one task is as it should be, in order: nothing is decided about them, and of a large
    /// service they are nearly all.
    pub calm: Vec<u32>,
    /// Tasks that are being removed: they hold no slot.
    pub leaving: Vec<Attempt<'a>>,
}

pub(super) fn slots<'a>(view: &ServiceView<'a>) -> Slots<'a> {
    let mut by_slot: Vec<(u32, &TaskView<'a>)> = Vec::with_capacity(view.tasks.len());
    let mut leaving: Vec<(u32, Attempt<'a>)> = Vec::new();
    for task in &view.tasks {
        if task.task.desired == DesiredState::Remove {
            leaving.push((task.task.slot, Attempt::of(task)));
        } else {
            by_slot.push((task.task.slot, task));
        }
    }
    leaving.sort_by_cached_key(|(slot, attempt)| (*slot, attempt.age_order()));
    by_slot.sort_by_key(|(slot, _)| *slot);
    let all = || by_slot.chunk_by(|(one, _), (other, _)| one == other);
    // Which of them are too many is decided among all.
    let surplus = all().nth(view.service.replicas() as usize).is_some();
    let may_be_calm = !view.removed && !surplus && is_at_rest(view.service);
    let (mut restless, mut calm) = (Vec::new(), Vec::new());
    for tasks in all() {
        match tasks {
            [(number, task)] if may_be_calm && is_calm(task, view.service) => calm.push(*number),
            [] => {}
            [(number, _), ..] => {
                let mut attempts: Vec<_> = tasks.iter().map(|(_, task)| Attempt::of(task)).collect();
                attempts.sort_by_key(Attempt::age_order);
                restless.push(Slot { number: *number, attempts });
            }
        }
    }
    Slots { restless, calm, leaving: leaving.into_iter().map(|(_, attempt)| attempt).collect() }
}

/// Neither is an update under way, nor one to be announced.
fn is_at_rest(service: &Service) -> bool {
    match &service.update {
        None => service.revisions.len() <= 1,
        Some(update) => {
            update.to_revision == service.revision
                && matches!(update.state, UpdateState::Completed | UpdateState::RollbackCompleted)
        }
    }
}

/// It runs, or is about to, what and where it should.
fn is_calm(task: &TaskView<'_>, service: &Service) -> bool {
    task.task.desired == DesiredState::Running
        && task.task.outcome.is_none()
        && task.task.revision == service.revision
        && task.node == NodeCondition::Usable
        && task.observed.is_none_or(|observed| !observed.status.state.is_final())
}

/// Removes the slots above the wanted number, with their history.
pub(super) fn drop_surplus(slots: &mut Vec<Slot<'_>>, replicas: u32, ledger: &mut Ledger<'_>) {
    let surplus = slots.len().saturating_sub(replicas as usize);
    if surplus == 0 {
        return;
    }
    if replicas > 0 && slots.iter().any(Slot::is_frozen) {
        ledger.remark(Remark::ScaleDownWaits { surplus: u32::try_from(surplus).unwrap_or(u32::MAX) });
        return;
    }
    let mut ranks = removal_ranks(slots);
    ranks.sort_unstable();
    let dropped: BTreeSet<u32> = ranks.iter().take(surplus).map(|rank| rank.slot.0).collect();
    slots.retain(|slot| {
        let drop = dropped.contains(&slot.number);
        if drop {
            slot.attempts.iter().for_each(|attempt| ledger.remove(attempt));
        }
        !drop
    });
}

/// Which slot goes first: one without a node, then one from the node with most of them, then one that does not run,
/// then the highest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RemovalRank {
    placed: bool,
    /// How many slots its node has if those that go before it there are gone.
    copies: Reverse<usize>,
    running: bool,
    slot: Reverse<u32>,
}

fn removal_ranks(slots: &[Slot<'_>]) -> Vec<RemovalRank> {
    let mut by_node: BTreeMap<Option<NodeId>, Vec<(Reverse<bool>, u32)>> = BTreeMap::new();
    for slot in slots {
        let running = slot.live().any(Attempt::is_running);
        let node = slot.live().filter_map(|attempt| attempt.node).next_back();
        by_node.entry(node).or_default().push((Reverse(running), slot.number));
    }
    let rank_node = |(node, mut here): (Option<NodeId>, Vec<(Reverse<bool>, u32)>)| {
        here.sort_unstable();
        here.into_iter().enumerate().map(move |(before, (running, slot))| RemovalRank {
            placed: node.is_some(),
            copies: Reverse(if node.is_some() { before + 1 } else { 0 }),
            running: running.0,
            slot: Reverse(slot),
        })
    };
    by_node.into_iter().flat_map(rank_node).collect()
}

/// The lowest free numbers, as many as there are slots too few.
pub(super) fn missing(slots: &[Slot<'_>], calm: &[u32], replicas: u32) -> Vec<u32> {
    let wanted = (replicas as usize).saturating_sub(slots.len() + calm.len());
    let mut taken: Vec<u32> = slots.iter().map(|slot| slot.number).chain(calm.iter().copied()).collect();
    taken.sort_unstable();
    let mut taken = taken.into_iter().peekable();
    (1..=u32::MAX).filter(|number| taken.next_if_eq(number).is_none()).take(wanted).collect()
}

/// Creates the missing slots.
pub(super) fn fill(
    slots: &mut Vec<Slot<'_>>,
    missing: Vec<u32>,
    target: &Target<'_>,
    ledger: &mut Ledger<'_>,
) {
    let later = missing.len().saturating_sub(MAX_CREATED);
    if later > 0 {
        ledger.go_on();
        ledger.remark(Remark::CreationContinues { slots: u32::try_from(later).unwrap_or(u32::MAX) });
    }
    for number in missing.into_iter().take(MAX_CREATED) {
        let mut slot = Slot { number, attempts: Vec::new() };
        slot.replace(ledger, None, Beginning::of(target.revision()), UpdateOrder::StartFirst);
        slots.push(slot);
    }
}
