//! All open nodes by their number of tasks: one rung per number, each a bitmap over the nodes in the order of their ids.
//!
//! The ladder is shared by all classes. A class is a bitmap too ([`Mask`]), so the least loaded node of a class that has
//! room is found 64 nodes at a time, and a task that comes or goes moves one bit, however many classes there are. Nodes
//! that are full are skipped by the most that is free in each part of a [`Rung`]. Bitmaps need the nodes in order: a node that joins
//! moves others, so all is set up anew before the next search ([`Ladder::epoch`]). Joins are rare and come in crowds.

use std::collections::BTreeMap;

use swarm_model::{HostPort, NodeId, Resources};

use super::nodes::Slot;
use super::rung::Rung;

const NONE: u32 = u32::MAX;

/// The place of a node in the order of ids, and its bit in every bitmap of one epoch.
pub(super) type Seat = u32;

#[derive(Debug, Default)]
pub(super) struct Ladder {
    epoch: u64,
    stale: bool,
    slots: Vec<Slot>,
    /// By slot.
    seats: Vec<Seat>,
    rungs: BTreeMap<u32, Rung>,
    /// By seat: the rung it is on; [`NONE`] if it is not open.
    rung_of: Vec<u32>,
    /// By seat.
    free: Vec<Resources>,
    held: BTreeMap<HostPort, BTreeMap<u32, u64>>,
}

/// A position on the ladder: the order in which nodes are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) tasks: u32,
    seat: Seat,
}

/// A set of seats: words that are not zero, with their index, ascending.
#[derive(Debug, Default)]
pub(super) struct Mask(Vec<(u32, u64)>);

/// A node as the ladder has to know it.
pub(super) struct Standpoint<'a> {
    pub(super) slot: Slot,
    pub(super) id: NodeId,
    /// `None`: not open.
    pub(super) tasks: Option<u32>,
    pub(super) free: Resources,
    pub(super) ports: &'a [HostPort],
}

impl Mark {
    pub(super) const FIRST: Self = Self { tasks: 0, seat: 0 };
    /// After all nodes.
    pub(super) const END: Self = Self { tasks: NONE, seat: NONE };

    pub(super) fn next(self) -> Self {
        Self { seat: self.seat + 1, ..self }
    }
}

impl Mask {
    pub(super) fn insert(&mut self, seat: Seat) {
        let (word, bit) = (seat / 64, 1 << (seat % 64));
        match self.0.binary_search_by_key(&word, |(word, _)| *word) {
            Ok(at) => self.0[at].1 |= bit,
            Err(at) => self.0.insert(at, (word, bit)),
        }
    }

    pub(super) fn remove(&mut self, seat: Seat) {
        let (word, bit) = (seat / 64, 1u64 << (seat % 64));
        if let Ok(at) = self.0.binary_search_by_key(&word, |(word, _)| *word) {
            self.0[at].1 &= !bit;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }

    /// The words from that of `seat` on.
    pub(super) fn from(&self, seat: Seat) -> &[(u32, u64)] {
        let begin = if seat == 0 { 0 } else { self.0.partition_point(|(word, _)| *word < seat / 64) };
        &self.0[begin..]
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Ladder {
    /// Seats and masks are those of one epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Seats have to be given anew before the next search.
    pub(super) fn unsettle(&mut self) {
        self.stale = true;
    }

    pub(super) fn is_settled(&self) -> bool {
        !self.stale
    }

    /// Gives all nodes their seats.
    pub(super) fn settle<'a>(&mut self, nodes: impl Iterator<Item = Standpoint<'a>>) {
        let mut nodes: Vec<Standpoint<'a>> = nodes.collect();
        nodes.sort_unstable_by_key(|node| node.id);
        let slots = nodes.iter().map(|node| node.slot.index() + 1).max().unwrap_or(0);
        *self = Self {
            epoch: self.epoch + 1,
            slots: nodes.iter().map(|node| node.slot).collect(),
            seats: vec![NONE; slots],
            rung_of: vec![NONE; nodes.len()],
            free: vec![Resources::default(); nodes.len()],
            ..Self::default()
        };
        for (seat, node) in (0..).zip(&nodes) {
            self.seats[node.slot.index()] = seat;
            self.update(node.slot, node.tasks, node.free);
            node.ports.iter().for_each(|port| self.hold(node.slot, *port, true));
        }
    }

    pub(super) fn seat(&self, slot: Slot) -> Option<Seat> {
        self.seats.get(slot.index()).copied().filter(|seat| *seat != NONE)
    }

    /// All nodes in the order of their seats.
    pub(super) fn seated(&self) -> impl Iterator<Item = (Seat, Slot)> {
        (0..).zip(self.slots.iter().copied())
    }

    /// Where a node stands; `None` if it is not open.
    pub(super) fn mark(&self, slot: Slot) -> Option<Mark> {
        let seat = self.seat(slot)?;
        let tasks = self.rung_of[seat as usize];
        (tasks != NONE).then_some(Mark { tasks, seat })
    }

    /// A node has that many tasks now (`None`: is not open), and that much free.
    pub(super) fn update(&mut self, slot: Slot, tasks: Option<u32>, free: Resources) {
        if self.stale {
            return;
        }
        let Some(seat) = self.seat(slot) else { return };
        let at = seat as usize;
        let (old, new) = (self.rung_of[at], tasks.unwrap_or(NONE));
        let was = std::mem::replace(&mut self.free[at], free);
        self.rung_of[at] = new;
        if let Some(rung) = self.rungs.get_mut(&old) {
            if old == new {
                rung.change(seat, was, &self.free);
                return;
            }
            rung.leave(seat, was, &self.free);
            if rung.is_empty() {
                self.rungs.remove(&old);
            }
        }
        if new != NONE {
            let seats = self.slots.len();
            let rung = self.rungs.entry(new).or_insert_with(|| Rung::for_seats(seats));
            rung.enter(seat, &self.free);
        }
    }

    /// A host port of a node is taken, or free again.
    pub(super) fn hold(&mut self, slot: Slot, port: HostPort, taken: bool) {
        let Some(seat) = self.seat(slot).filter(|_| !self.stale) else { return };
        let words = self.held.entry(port).or_default();
        let bit = 1u64 << (seat % 64);
        let word = words.entry(seat / 64).or_default();
        *word = if taken { *word | bit } else { *word & !bit };
        if *word == 0 {
            words.remove(&(seat / 64));
        }
        if words.is_empty() {
            self.held.remove(&port);
        }
    }

    /// The first node of `mask` at or after `from` that has `need` and all of `ports` free.
    pub(super) fn first_fit(
        &self,
        mask: &Mask,
        from: Mark,
        need: Resources,
        ports: &[HostPort],
    ) -> Option<(Mark, Slot)> {
        debug_assert!(!self.stale, "settled before a search");
        let held: Vec<&BTreeMap<u32, u64>> = ports.iter().filter_map(|port| self.held.get(port)).collect();
        let taken =
            |word: u32| held.iter().filter_map(|words| words.get(&word)).fold(0, |all, bits| all | bits);
        self.rungs.range(from.tasks..).find_map(|(tasks, rung)| {
            let start = if *tasks == from.tasks { from.seat } else { 0 };
            let seat = rung.first_fit(mask, start, need, &self.free, taken)?;
            Some((Mark { tasks: *tasks, seat }, self.slots[seat as usize]))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::Protocol;

    use super::*;

    const NODES: u32 = 300;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Model {
        tasks: Option<u32>,
        free: Resources,
        port: bool,
        member: bool,
    }

    fn model() -> impl Strategy<Value = Model> {
        (prop::option::weighted(0.9, 0..4u32), 0..4u64, 0..4u64, any::<bool>(), any::<bool>()).prop_map(
            |(tasks, cpu_nanos, memory_bytes, port, member)| Model {
                tasks,
                free: Resources { cpu_nanos, memory_bytes },
                port,
                member,
            },
        )
    }

    fn port() -> HostPort {
        HostPort { protocol: Protocol::Tcp, published: 80 }
    }

    /// Slot n has the n-th largest id.
    fn standpoints(nodes: &[Model]) -> impl Iterator<Item = Standpoint<'_>> {
        (0..).zip(nodes).map(|(n, node)| Standpoint {
            slot: Slot(n),
            id: NodeId::from_u128((NODES - n).into()),
            tasks: node.tasks,
            free: node.free,
            ports: &[],
        })
    }

    fn scan(nodes: &[Model], from: (u32, u32), need: Resources, ports: bool) -> Option<Slot> {
        let key = |n: usize| (nodes[n].tasks.unwrap_or(NONE), nodes.len() as u32 - 1 - n as u32);
        let fits = |n: &usize| {
            let node = nodes[*n];
            node.tasks.is_some()
                && node.member
                && need.fits_in(node.free)
                && !(ports && node.port)
                && key(*n) >= from
        };
        (0..nodes.len()).filter(fits).min_by_key(|n| key(*n)).map(|n| Slot(n as u32))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn finds_what_a_scan_finds(
            mut nodes in prop::collection::vec(model(), NODES as usize),
            steps in prop::collection::vec((0..NODES, model(), 0..5u32, 0..NODES), 0..200),
        ) {
            let mut ladder = Ladder::default();
            ladder.settle(standpoints(&nodes));
            let mut mask = Mask::default();
            for (n, node) in nodes.iter().enumerate() {
                ladder.hold(Slot(n as u32), port(), node.port);
                if node.member {
                    mask.insert(NODES - 1 - n as u32);
                }
            }
            for (n, now, tasks, seat) in steps {
                let slot = Slot(n);
                ladder.update(slot, now.tasks, now.free);
                ladder.hold(slot, port(), now.port);
                let own = NODES - 1 - n;
                if now.member { mask.insert(own) } else { mask.remove(own) }
                nodes[n as usize] = now;
                for ports in [vec![], vec![port()]] {
                    let found = ladder.first_fit(&mask, Mark { tasks, seat }, now.free, &ports);
                    let expected = scan(&nodes, (tasks, seat), now.free, !ports.is_empty());
                    prop_assert_eq!(found.map(|(_, slot)| slot), expected);
                    if let Some((mark, slot)) = found {
                        prop_assert_eq!(ladder.mark(slot), Some(mark));
                    }
                }
            }
        }
    }
}
