//! An executor without containers: a whole fleet of agents fits into one process.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use swarm_agent_core::fake::{Delays, FakeNode};
use swarm_agent_core::{Change, Event, Exit, Operation, Recovered};
use swarm_model::TaskId;

use super::{Answers, Executor, LogOptions, LogReader};
use crate::clock::Clock;

/// Answers every operation after its delay, and keeps nothing on disk. Clones are the same node.
#[derive(Debug, Clone)]
pub struct FakeExecutor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    node: Mutex<FakeNode>,
    answers: Mutex<Option<Answers>>,
}

impl FakeExecutor {
    pub fn new(delays: Delays) -> Self {
        let node = Mutex::new(FakeNode::new(delays));
        Self { shared: Arc::new(Shared { clock: Clock::start(), node, answers: Mutex::default() }) }
    }

    /// Begins an agent's life on this node; what an earlier one left is recovered.
    pub fn attach(&self, answers: Answers) -> Recovered {
        *self.shared.answers.lock() = Some(answers);
        self.shared.node.lock().restart_agent()
    }

    /// Has a container end by itself.
    pub fn exit(&self, task: TaskId, exit: Exit) {
        let now = self.shared.clock.now();
        self.with_node(|node| node.exit(now, task, exit));
    }

    /// Tasks whose container runs.
    pub fn running(&self) -> Vec<TaskId> {
        self.shared.node.lock().running().collect()
    }

    fn with_node(&self, change: impl FnOnce(&mut FakeNode)) {
        let now = self.shared.clock.now();
        let mut node = self.shared.node.lock();
        change(&mut node);
        while let Some((at, event)) = node.pop_next() {
            match self.shared.clock.instant(at) {
                due if at > now => self.post_at(due, event),
                _ => self.post(event),
            }
        }
    }

    fn post_at(&self, due: std::time::Instant, event: Event) {
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            this.post(event);
        });
    }

    fn post(&self, event: Event) {
        if let Some(answers) = &*self.shared.answers.lock() {
            answers.post(event);
        }
    }
}

impl Executor for FakeExecutor {
    fn persist(&self, changes: Vec<Change>) {
        self.shared.node.lock().persist(changes);
    }

    fn begin(&self, operation: Operation) {
        let now = self.shared.clock.now();
        self.with_node(|node| node.operate(now, operation));
    }

    fn open_log(&self, _task: TaskId, _options: LogOptions) -> Option<Box<dyn LogReader>> {
        None
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        *self.shared.answers.lock() = None;
        std::future::ready(()).boxed()
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), String>> {
        *self.shared.node.lock() = FakeNode::default();
        std::future::ready(Ok(())).boxed()
    }
}
