//! Bounded parallelism: operations of one kind wait in line for a free place.

use std::collections::VecDeque;

use swarm_model::TaskId;

#[derive(Debug)]
pub(crate) struct Lane {
    limit: usize,
    busy: usize,
    waiting: VecDeque<TaskId>,
}

impl Lane {
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), busy: 0, waiting: VecDeque::new() }
    }

    /// Gets in line. The caller checks, when its turn comes, that the task still wants it.
    pub fn enter(&mut self, task: TaskId) {
        self.waiting.push_back(task);
    }

    /// Who is next, where a place is free. Whoever goes on with it calls [`Self::begin`].
    pub fn next(&mut self) -> Option<TaskId> {
        if self.busy < self.limit { self.waiting.pop_front() } else { None }
    }

    pub fn begin(&mut self) {
        self.busy += 1;
    }

    pub fn end(&mut self) {
        assert!(self.busy > 0, "an operation ended that never began");
        self.busy -= 1;
    }
}
