//! Gates: a task that stands in the routing mesh is told to stop only after the mesh without it is programmed.
//!
//! A gate opens when every connected agent has acknowledged the mesh version that no longer names the task, or when its
//! time is up: one hung agent must not keep tasks alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_model::{TaskId, Timestamp};

/// Longest time that a stop waits for the mesh.
const MAX_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Gates {
    tasks: BTreeMap<TaskId, (u64, Timestamp)>,
    by_version: BTreeSet<(u64, TaskId)>,
    by_deadline: BTreeSet<(Timestamp, TaskId)>,
}

impl Gates {
    /// Holds the stop of `task` until mesh version `version` is acknowledged everywhere.
    pub fn hold(&mut self, task: TaskId, version: u64, now: Timestamp) {
        if self.tasks.contains_key(&task) {
            return;
        }
        let deadline = now + MAX_WAIT;
        self.tasks.insert(task, (version, deadline));
        self.by_version.insert((version, task));
        self.by_deadline.insert((deadline, task));
    }

    pub fn is_held(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// Tasks that may stop now.
    pub fn open(&mut self, acknowledged: u64, now: Timestamp) -> Vec<TaskId> {
        let mut opened = Vec::new();
        while let Some(&(version, task)) = self.by_version.first()
            && version <= acknowledged
        {
            self.release(task);
            opened.push(task);
        }
        while let Some(&(deadline, task)) = self.by_deadline.first()
            && deadline <= now
        {
            self.release(task);
            opened.push(task);
        }
        opened
    }

    /// The task ended by itself.
    pub fn release(&mut self, task: TaskId) {
        if let Some((version, deadline)) = self.tasks.remove(&task) {
            self.by_version.remove(&(version, task));
            self.by_deadline.remove(&(deadline, task));
        }
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }
}
