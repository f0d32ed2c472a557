//! How many slots a service has: which exist, which are too many, which are missing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{DesiredState, NodeId, UpdateOrder};

use super::attempt::Attempt;
use super::ledger::Ledger;
use super::slot::{Beginning, Slot};
use super::target::Target;
use super::{Remark, ServiceView};

/// Tasks that one plan creates: about 150 bytes each, so a log entry stays below 2 MB. The rest follows in the next one.
const MAX_CREATED: usize = 10_000;

/// The slots of a service in order, and apart from them the tasks that are being removed: those hold no slot.
pub(super) fn slots<'a>(view: &ServiceView<'a>) -> (Vec<Slot<'a>>, Vec<Attempt<'a>>) {
    let mut leaving = Vec::new();
    let mut staying = Vec::with_capacity(view.tasks.len());
    for task in &view.tasks {
        let attempt = Attempt::of(task);
        if attempt.desired == DesiredState::Remove {
            leaving.push((task.task.slot, attempt));
        } else {
            staying.push((task.task.slot, attempt));
        }
    }
    let order = |(slot, attempt): &(u32, Attempt<'_>)| (*slot, attempt.age_order());
    leaving.sort_by_cached_key(order);
    staying.sort_by_cached_key(order);
    let mut slots: Vec<Slot<'a>> = Vec::new();
    for (number, attempt) in staying {
        match slots.last_mut() {
            Some(last) if last.number == number => last.attempts.push(attempt),
            _ => slots.push(Slot { number, attempts: vec![attempt] }),
        }
    }
    (slots, leaving.into_iter().map(|(_, attempt)| attempt).collect())
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
pub(super) fn missing(slots: &[Slot<'_>], replicas: u32) -> Vec<u32> {
    let wanted = (replicas as usize).saturating_sub(slots.len());
    let mut taken = slots.iter().map(|slot| slot.number).peekable();
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
        ledger.remark(Remark::CreationContinues { slots: u32::try_from(later).unwrap_or(u32::MAX) });
    }
    for number in missing.into_iter().take(MAX_CREATED) {
        let mut slot = Slot { number, attempts: Vec::new() };
        slot.replace(ledger, None, Beginning::of(target.revision()), UpdateOrder::StartFirst);
        slots.push(slot);
    }
}
