//! The deadlines of a leader, each named once.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{ServiceId, Timestamp};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A node may have been silent for too long.
    Fleet,
    /// A stop has waited long enough for the mesh.
    Gates,
    /// The mesh's next version may be cut.
    Mesh,
    /// Everything is dirty.
    Sweep,
    /// A service asked to be looked at again: a restart delay, a monitored update.
    Service(ServiceId),
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    by_timer: BTreeMap<Timer, Timestamp>,
    by_time: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    /// `None`: not at all.
    pub fn set(&mut self, timer: Timer, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.by_timer.insert(timer, at),
            None => self.by_timer.remove(&timer),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, timer));
        }
        self.by_time.extend(at.map(|at| (at, timer)));
    }

    pub fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(timer, None);
        Some(timer)
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }
}
