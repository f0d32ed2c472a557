//! Statuses on their way to a manager: the newest per task, many in one message.
//!
//! A status that reaches what is desired, or is final, goes out at the end of its batch. Steps on the way there wait for
//! a moment, since most are overtaken within it: a task that runs after 20 ms costs one message.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::{TaskId, TaskStatus};

/// Statuses in one message, at most: some 200 bytes each, so well under a message's limit of 4 MiB.
const MESSAGE_LIMIT: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: BTreeMap<TaskId, TaskStatus>,
    urgent: bool,
}

impl Outbox {
    /// How long a step on the way may wait; short for the eye of an operator, long against a container's start.
    pub const PATIENCE: Duration = Duration::from_millis(100);

    pub fn put(&mut self, task: TaskId, status: TaskStatus, urgent: bool) {
        self.waiting.insert(task, status);
        self.urgent |= urgent;
    }

    /// What waits has waited long enough.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Something is waiting that may not wait.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everything, in messages of bounded length.
    pub fn take(&mut self) -> Vec<Vec<(TaskId, TaskStatus)>> {
        self.urgent = false;
        let all: Vec<_> = std::mem::take(&mut self.waiting).into_iter().collect();
        all.chunks(MESSAGE_LIMIT).map(<[_]>::to_vec).collect()
    }

    /// Everything as part of a full report, which says it all.
    pub fn take_all(&mut self) -> BTreeMap<TaskId, TaskStatus> {
        self.urgent = false;
        std::mem::take(&mut self.waiting)
    }
}
