//! One plan: the nodes of a class compete for the tasks of one service, one task after the other.
//!
//! Within a plan nothing is freed and no failure is forgotten, so a node that was passed over stays passed over: each
//! order is swept once, forwards, whatever the number of tasks.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::NodeId;

use super::class::{Class, GroupId, ROOT};
use super::ladder::Mark;
use super::nodes::{Footprint, Nodes, Slot};
use super::order::Rank;
use super::service::{Others, Places};

/// What a plan needs to know of the request.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) footprint: &'a Footprint,
    /// `u32::MAX`: no limit.
    pub(super) max_replicas: u32,
    /// The service's other tasks: for that limit they count too.
    pub(super) others: Others<'a>,
    /// Nodes that are the last choice, ascending.
    pub(super) failing: Vec<Slot>,
}

#[derive(Debug)]
pub(super) struct Contest<'a> {
    class: &'a Class,
    nodes: &'a mut Nodes,
    places: &'a mut Places,
    terms: Terms<'a>,
    /// First no failing node is taken; when no other is left, those too.
    last_choice: bool,
    /// The nodes that run the service were brought in order, because a leaf ran out of others.
    used_ranked: bool,
    sweeps: BTreeMap<GroupId, Sweep>,
    /// The inner groups' children that have a node to offer.
    races: BTreeMap<GroupId, BTreeSet<Runner>>,
    /// Who won last: their groups' best nodes are others now.
    last_winner: Option<Winner>,
    passed_over: usize,
}

/// How far a leaf was searched for nodes without tasks of the service, up the ladder, and for nodes with, by rank.
#[derive(Debug)]
struct Sweep {
    fresh_from: Mark,
    used_from: Rank,
}

/// A group and the best node in it. The group with the fewest tasks of the service wins, then the one with the better
/// node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Runner {
    fill: u32,
    best: Rank,
    group: GroupId,
}

/// The best node, its leaf, and how it won in each group above, outermost first.
#[derive(Debug)]
struct Winner {
    path: Vec<(GroupId, Runner)>,
    leaf: GroupId,
    best: Rank,
}

impl<'a> Contest<'a> {
    /// `places` must have been synced to `class`, and `class` to `nodes`.
    pub(super) fn open(
        class: &'a Class,
        nodes: &'a mut Nodes,
        places: &'a mut Places,
        terms: Terms<'a>,
    ) -> Self {
        let mut contest = Self {
            class,
            nodes,
            places,
            terms,
            last_choice: false,
            used_ranked: false,
            sweeps: BTreeMap::new(),
            races: BTreeMap::new(),
            last_winner: None,
            passed_over: 0,
        };
        contest.stage(ROOT);
        contest
    }

    /// Places one task; `None` if no node is left that fits.
    pub(super) fn place(&mut self) -> Option<(Slot, NodeId)> {
        let winner = self.winner()?;
        let Rank { slot, node, .. } = winner.best;
        self.nodes.occupy(slot, self.terms.footprint);
        self.places.add(slot);
        if self.used_ranked {
            self.places.rank_used(slot, self.class, self.nodes);
        }
        self.last_winner = Some(winner);
        Some((slot, node))
    }

    /// Lets the groups of the last winner run with their next best nodes.
    fn rerun(&mut self) {
        let Some(Winner { path, leaf, .. }) = self.last_winner.take().filter(|last| !last.path.is_empty())
        else {
            return;
        };
        let mut next = self.best_of(leaf);
        for (group, ran) in path.into_iter().rev() {
            let race = self.races.get_mut(&group).expect("every group on the path has a race");
            race.remove(&ran);
            race.extend(next.map(|best| Runner { fill: ran.fill + 1, best, group: ran.group }));
            next = race.first().map(|runner| runner.best);
        }
    }

    pub(super) fn node(&self, slot: Slot) -> NodeId {
        self.nodes.at(slot).id
    }

    /// Whether one more task could be placed.
    pub(super) fn is_open(&mut self) -> bool {
        self.winner().is_some()
    }

    /// Ends the plan, keeping what the next one of this service can go on from.
    pub(super) fn close(self) {
        if self.terms.failing.is_empty() {
            let learned = self.sweeps.into_iter().map(|(leaf, sweep)| (leaf, sweep.fresh_from));
            self.places.learn_fresh(learned.filter(|(_, from)| *from > Mark::FIRST), self.passed_over);
        }
    }

    fn winner(&mut self) -> Option<Winner> {
        self.rerun();
        loop {
            if let Some(found) = self.leader() {
                return Some(found);
            }
            if self.last_choice || self.terms.failing.is_empty() {
                return None;
            }
            self.last_choice = true;
            self.sweeps.clear();
            self.races.clear();
            self.stage(ROOT);
        }
    }

    fn leader(&mut self) -> Option<Winner> {
        let mut path = Vec::new();
        let mut at = ROOT;
        while let Some(race) = self.races.get(&at) {
            let first = *race.first()?;
            path.push((at, first));
            at = first.group;
        }
        let best = match path.last() {
            Some((_, runner)) => runner.best,
            None => self.best_of(at)?,
        };
        Some(Winner { path, leaf: at, best })
    }

    /// Sets up the races in a group and those below; returns the group's tasks of the service, and its best node.
    fn stage(&mut self, group: GroupId) -> (u32, Option<Rank>) {
        let class = self.class;
        let children = &class.group(group).children;
        if children.is_empty() {
            let best = if class.spreads() { self.best_of(group) } else { None };
            return (self.places.fill(group), best);
        }
        let mut race = BTreeSet::new();
        let mut total = 0;
        for child in children.values().copied() {
            let (fill, best) = self.stage(child);
            total += fill;
            race.extend(best.map(|best| Runner { fill, best, group: child }));
        }
        let best = race.first().map(|runner| runner.best);
        self.races.insert(group, race);
        (total, best)
    }

    /// The best node of a leaf: one without a task of the service, else the one with the fewest.
    fn best_of(&mut self, leaf: GroupId) -> Option<Rank> {
        if self.terms.max_replicas == 0 {
            return None;
        }
        let fresh = self.best_fresh(leaf);
        if fresh.is_some() {
            return fresh;
        }
        if !self.used_ranked {
            self.places.sync_used(self.class, self.nodes, &self.terms.footprint.host_ports);
            self.used_ranked = true;
        }
        self.best_used(leaf)
    }

    fn best_fresh(&mut self, leaf: GroupId) -> Option<Rank> {
        let Footprint { reservations, host_ports, .. } = self.terms.footprint;
        let mask = &self.class.group(leaf).mask;
        let mut from = self.sweep(leaf).fresh_from;
        let best = loop {
            let Some((mark, slot)) = self.nodes.ladder().first_fit(mask, from, *reservations, host_ports)
            else {
                from = Mark::END;
                break None;
            };
            from = mark;
            if self.places.replicas_on(slot) == 0 && !self.is_passed_over(slot) && !self.is_full(slot, 0) {
                let node = self.nodes.at(slot).id;
                break Some(Rank { replicas_here: 0, tasks_here: mark.tasks, node, slot });
            }
            self.passed_over += 1;
            from = mark.next();
        };
        self.sweep(leaf).fresh_from = from;
        best
    }

    fn best_used(&mut self, leaf: GroupId) -> Option<Rank> {
        let need = self.terms.footprint.reservations;
        let mut from = self.sweep(leaf).used_from;
        loop {
            let rank = self.places.first_used_fit(leaf, from, need)?;
            if rank.replicas_here >= self.terms.max_replicas {
                return None;
            }
            if !self.is_passed_over(rank.slot) && !self.is_full(rank.slot, rank.replicas_here) {
                self.sweep(leaf).used_from = from;
                return Some(rank);
            }
            from = rank.next();
        }
    }

    fn sweep(&mut self, leaf: GroupId) -> &mut Sweep {
        let places = &*self.places;
        let start = || Sweep { fresh_from: places.fresh_from(leaf), used_from: Rank::MIN };
        self.sweeps.entry(leaf).or_insert_with(start)
    }

    /// Whether the limit of replicas per node is reached; `own` are those of the revision.
    fn is_full(&self, slot: Slot, own: u32) -> bool {
        let Terms { max_replicas, others, .. } = self.terms;
        max_replicas != u32::MAX && own + others.replicas_on(slot) >= max_replicas
    }

    fn is_passed_over(&self, slot: Slot) -> bool {
        !self.last_choice && self.terms.failing.binary_search(&slot).is_ok()
    }
}
