//! One plan: the nodes of a class compete for the tasks of one service, one task after the other.
//!
//! Within a plan nothing is freed and no failure is forgotten, so a node that was passed over stays passed over: each
//! order is swept once, forwards, whatever the number of tasks.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::NodeId;

use super::class::{Class, GroupId, ROOT};
use super::nodes::{Footprint, Nodes, Slot};
use super::order::Rank;
use super::service::Places;

/// What a plan needs to know of the request.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) footprint: &'a Footprint,
    /// `u32::MAX`: no limit.
    pub(super) max_replicas: u32,
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
    sweeps: BTreeMap<GroupId, Sweep>,
    /// The inner groups' children that have a node to offer.
    races: BTreeMap<GroupId, BTreeSet<Runner>>,
}

/// How far the two orders of a leaf were searched: that of nodes without and that of nodes with tasks of the service.
#[derive(Debug)]
struct Sweep {
    fresh_from: Rank,
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
        let (sweeps, races) = Default::default();
        let mut contest = Self { class, nodes, places, terms, last_choice: false, sweeps, races };
        contest.stage(ROOT);
        contest
    }

    /// Places one task; `None` if no node is left that fits.
    pub(super) fn place(&mut self) -> Option<(Slot, NodeId)> {
        let Winner { path, leaf, best } = self.winner()?;
        self.nodes.occupy(best.slot, self.terms.footprint);
        self.places.place(best.slot, self.class, self.nodes);
        let mut group = leaf;
        let mut next = if path.is_empty() { None } else { self.best_of(leaf) };
        for (inner, ran) in path.into_iter().rev() {
            let fill = self.places.fill(group);
            let race = self.races.entry(inner).or_default();
            race.remove(&ran);
            race.extend(next.map(|best| Runner { fill, best, group }));
            next = race.first().map(|runner| runner.best);
            group = inner;
        }
        Some((best.slot, best.node))
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
            for (leaf, sweep) in self.sweeps {
                if sweep.fresh_from > Rank::MIN {
                    self.places.set_fresh_from(leaf, sweep.fresh_from);
                }
            }
        }
        self.places.is_synced(self.nodes);
    }

    fn winner(&mut self) -> Option<Winner> {
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

    /// Sets up the races in a group and those below; returns the group's best node.
    fn stage(&mut self, group: GroupId) -> Option<Rank> {
        let class = self.class;
        let children = &class.group(group).children;
        if children.is_empty() {
            return self.best_of(group);
        }
        let mut race = BTreeSet::new();
        for child in children.values().copied() {
            if let Some(best) = self.stage(child) {
                race.insert(Runner { fill: self.places.fill(child), best, group: child });
            }
        }
        let best = race.first().map(|runner| runner.best);
        self.races.insert(group, race);
        best
    }

    /// The best node of a leaf: one without a task of the service, else the one with the fewest.
    fn best_of(&mut self, leaf: GroupId) -> Option<Rank> {
        let Terms { footprint, max_replicas, failing } = &self.terms;
        if *max_replicas == 0 {
            return None;
        }
        let passed_over = |slot| !self.last_choice && failing.binary_search(&slot).is_ok();
        let places = &*self.places;
        let sweep = self
            .sweeps
            .entry(leaf)
            .or_insert_with(|| Sweep { fresh_from: places.fresh_from(leaf), used_from: Rank::MIN });
        let fresh = &self.class.group(leaf).order;
        while sweep.fresh_from < Rank::MAX {
            match fresh.first_fit(sweep.fresh_from, footprint.reservations) {
                Some(rank) if places.replicas_on(rank.slot) == 0 && !passed_over(rank.slot) => {
                    return Some(rank);
                }
                Some(rank) => sweep.fresh_from = rank.next(),
                None => sweep.fresh_from = Rank::MAX,
            }
        }
        loop {
            let rank = places.first_used_fit(leaf, sweep.used_from, footprint.reservations)?;
            if rank.replicas_here >= *max_replicas {
                return None;
            }
            if !passed_over(rank.slot) {
                return Some(rank);
            }
            sweep.used_from = rank.next();
        }
    }
}
