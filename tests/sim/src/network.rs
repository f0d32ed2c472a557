//! Which host reaches which, how fast, and what is lost on the way between managers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_model::Timestamp;

use super::dice::Dice;

#[derive(Debug)]
pub struct Network {
    dice: Dice,
    /// Directed: nothing comes through from the first host to the second.
    blocked: BTreeSet<(usize, usize)>,
    /// Raft messages that break their connection, of a thousand.
    pub loss: u64,
    /// Raft messages that come twice, of a thousand.
    pub duplication: u64,
    /// Messages that take long, of a thousand.
    pub spikes: u64,
    /// When the last message of a direction of a pair arrives: what follows comes later.
    busy_until: BTreeMap<(usize, usize), Timestamp>,
}

impl Network {
    pub fn new(dice: Dice) -> Self {
        Self {
            dice,
            blocked: BTreeSet::new(),
            loss: 0,
            duplication: 0,
            spikes: 0,
            busy_until: BTreeMap::new(),
        }
    }

    pub fn block(&mut self, from: usize, to: usize) {
        if from != to {
            self.blocked.insert((from, to));
        }
    }

    pub fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    pub fn unblock(&mut self, from: usize, to: usize) {
        self.blocked.remove(&(from, to));
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
    }

    pub fn loses(&mut self) -> bool {
        let chance = self.loss;
        self.dice.per_mille(chance)
    }

    pub fn doubles(&mut self) -> bool {
        let chance = self.duplication;
        self.dice.per_mille(chance)
    }

    /// One way.
    pub fn latency(&mut self) -> Duration {
        let chance = self.spikes;
        if self.dice.per_mille(chance) { self.dice.millis(5..120) } else { self.dice.micros(80..400) }
    }

    /// When a message between two managers arrives: in order.
    pub fn arrival(&mut self, from: usize, to: usize, now: Timestamp) -> Timestamp {
        let at = now + self.latency();
        let free = self.busy_until.entry((from, to)).or_default();
        let at = at.max(*free + Duration::from_micros(1));
        *free = at;
        at
    }
}
