//! How many slots a service has: which exist, which are too many, which are missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{DesiredState, NodeId, Service, UpdateOrder, UpdateState};

use super::attempt::Attempt;
use super::ledger::Ledger;
use super::slot::{Beginning, Slot};
use super::target::Target;
use super::{NodeCondition, Remark, ServiceView, TaskView, reaper};

/// Tasks that one plan creates. They are placed, addressed, applied and sent: some fifty milliseconds' work, for which no
/// heartbeat leaves. The rest follows in the next one. With fewer, each of many nodes gets a message per task.
const MAX_CREATED: usize = 4_096;
/// Tasks that one plan removes.
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
    /// The slots that they held.
    pub leaving_from: BTreeSet<u32>,
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
    let may_be_calm = may_leave_out(view.service, view.removed, view.calm.len() + all().count());
    let (mut restless, mut calm) = (Vec::new(), Vec::new());
    for tasks in all() {
        match tasks {
            [] => {}
            [(number, _), ..]
                if may_be_calm && is_calm(tasks.iter().map(|(_, task)| *task), view.service) =>
            {
                calm.push(*number);
            }
            [(number, _), ..] => {
                let mut attempts: Vec<_> = tasks.iter().map(|(_, task)| Attempt::of(task)).collect();
                attempts.sort_by_key(Attempt::age_order);
                restless.push(Slot { number: *number, attempts });
            }
        }
    }
    let leaving_from: BTreeSet<u32> = leaving.iter().map(|(slot, _)| *slot).collect();
    Slots { restless, calm, leaving: leaving.into_iter().map(|(_, attempt)| attempt).collect(), leaving_from }
}

/// Whether slots may be left out of the look at a service of that many slots: what is decided about one of them does not
/// hang on the others. While an update is under way, or some are too many, it does.
pub(crate) fn may_leave_out(service: &Service, removed: bool, slots: usize) -> bool {
    !removed && slots <= service.replicas() as usize && is_at_rest(service)
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

/// Whether nothing is to be decided about a slot with these tasks: one runs, or is about to, what and where it should, and
/// of those that ended before none has to go.
pub(crate) fn is_calm<'v>(tasks: impl Iterator<Item = &'v TaskView<'v>>, service: &Service) -> bool {
    let (mut present, mut ended) = (0, 0);
    for task in tasks {
        match task.task.outcome {
            Some(_) => ended += 1,
            None if is_as_wanted(task, service) => present += 1,
            None => return false,
        }
    }
    present == 1 && ended <= reaper::history(service)
}

fn is_as_wanted(task: &TaskView<'_>, service: &Service) -> bool {
    let stays = match task.node {
        NodeCondition::Usable => true,
        // The scheduler's matter, and one that waits for its node.
        NodeCondition::Unplaced | NodeCondition::Unknown => true,
        NodeCondition::Draining
        | NodeCondition::Down { .. }
        | NodeCondition::Gone
        | NodeCondition::Mismatch => false,
    };
    stays
        && task.task.desired == DesiredState::Running
        && task.task.revision == service.revision
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

/// Slots too few.
pub(super) struct Missing {
    pub count: usize,
    /// The lowest free numbers, as many as one plan creates.
    numbers: Vec<u32>,
}

/// What lacks beside `slots` and those that are calm, in the view or left out of it.
pub(super) fn missing(slots: &[Slot<'_>], calm: &[u32], left_out: &BTreeSet<u32>, replicas: u32) -> Missing {
    let count = (replicas as usize).saturating_sub(slots.len() + calm.len() + left_out.len());
    if count == 0 {
        return Missing { count, numbers: Vec::new() };
    }
    let mut taken: Vec<u32> = slots.iter().map(|slot| slot.number).chain(calm.iter().copied()).collect();
    taken.sort_unstable();
    let (mut taken, mut left_out) = (taken.into_iter().peekable(), left_out.iter().peekable());
    let is_free = |number: &u32| taken.next_if_eq(number).is_none() && left_out.next_if_eq(&number).is_none();
    Missing { count, numbers: (1..=u32::MAX).filter(is_free).take(count.min(MAX_CREATED)).collect() }
}

/// Creates the missing slots.
pub(super) fn fill(
    slots: &mut Vec<Slot<'_>>,
    missing: Missing,
    target: &Target<'_>,
    ledger: &mut Ledger<'_>,
) {
    let later = missing.count - missing.numbers.len();
    if later > 0 {
        ledger.go_on();
        ledger.remark(Remark::CreationContinues { slots: u32::try_from(later).unwrap_or(u32::MAX) });
    }
    for number in missing.numbers {
        let mut slot = Slot { number, attempts: Vec::new() };
        slot.replace(ledger, None, Beginning::of(target.revision()), UpdateOrder::StartFirst);
        slots.push(slot);
    }
}
