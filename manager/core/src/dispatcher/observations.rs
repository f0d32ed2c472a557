//! What agents report of their tasks: the newest status per task, in memory only.

use std::collections::BTreeMap;

use swarm_model::{TaskId, TaskState, TaskStatus, Timestamp};

/// Of each text that an agent sends; the rest is cut off.
const MAX_TEXT_BYTES: usize = 1_024;

/// The newest report of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    pub status: TaskStatus,
    /// When this leader first saw it in this state, by the leader's clock.
    pub since: Timestamp,
    /// When this leader first saw it running.
    pub running_since: Option<Timestamp>,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: it is older than what is known, or the same.
    Stale,
    /// The state is the same, its description is newer.
    Detail,
    /// The state rose.
    Rose,
}

#[derive(Debug, Default)]
pub(crate) struct Observations {
    tasks: BTreeMap<TaskId, Observed>,
}

impl Observations {
    pub fn get(&self, task: TaskId) -> Option<&Observed> {
        self.tasks.get(&task)
    }

    pub fn state(&self, task: TaskId) -> Option<TaskState> {
        self.tasks.get(&task).map(|observed| observed.status.state)
    }

    /// States only rise: what is lower than what is known came late.
    pub fn note(&mut self, task: TaskId, mut status: TaskStatus, now: Timestamp) -> Seen {
        cut(&mut status.message);
        cut(&mut status.error);
        let running = (status.state == TaskState::Running).then_some(now);
        let Some(known) = self.tasks.get_mut(&task) else {
            self.tasks.insert(task, Observed { status, since: now, running_since: running });
            return Seen::Rose;
        };
        if status.state < known.status.state || status == known.status || known.status.state.is_final() {
            return Seen::Stale;
        }
        let rose = status.state > known.status.state;
        known.status = status;
        if !rose {
            return Seen::Detail;
        }
        known.since = now;
        known.running_since = known.running_since.or(running);
        Seen::Rose
    }

    pub fn forget(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
}
