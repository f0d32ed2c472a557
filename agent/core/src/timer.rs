//! All deadlines of the core, in one ordered set.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{TaskId, Timestamp};

/// What is due at a deadline. At most one deadline of each is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Try the next manager.
    Connect,
    /// The manager has not welcomed us.
    Welcome,
    Heartbeat,
    /// Statuses that could wait have waited long enough.
    Report,
    /// Try again to prepare a task.
    Prepare(TaskId),
    /// The grace period of a stopping task is over.
    Kill(TaskId),
    /// Try again to remove a task.
    Remove(TaskId),
    /// Try again to program the mesh.
    Mesh,
    /// Try again to open the data path.
    Network,
    CollectGarbage,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_timer: BTreeMap<Timer, Timestamp>,
    by_time: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    /// Sets the deadline of `timer`, replacing an earlier one.
    pub fn set(&mut self, timer: Timer, at: Timestamp) {
        self.clear(timer);
        self.by_timer.insert(timer, at);
        self.by_time.insert((at, timer));
    }

    /// Sets the deadline of `timer` unless it has one already.
    pub fn set_if_unset(&mut self, timer: Timer, at: Timestamp) {
        if !self.by_timer.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.by_timer.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Takes a timer whose deadline has come.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }
}
