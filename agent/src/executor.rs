//! The seam between what the core decides and the node that it is done on.

mod fake;
mod local;

use std::time::SystemTime;

use futures_util::future::BoxFuture;

use swarm_agent_core::{Change, Event, Operation};
use swarm_model::TaskId;
use tokio::sync::mpsc;

pub use fake::FakeExecutor;
pub use local::{LocalConfig, LocalExecutor, NetworkOptions, OpenLocalError};

/// Does operations on a node, and keeps what must outlive the agent.
///
/// Nothing here retries or decides: an operation succeeds or fails once, and its answer is an event.
pub trait Executor: Send + Sync + 'static {
    /// Writes down. Short; a failure is logged by the callee, because the agent can go on: see `StateStore`.
    fn persist(&self, changes: Vec<Change>);

    /// Begins an operation and returns at once. Its answer goes to the [`Answers`] that the executor was made with.
    fn begin(&self, operation: Operation);

    /// Opens the output of a task's container; `None` where there is none (yet, or any more).
    fn open_log(&self, task: TaskId, options: LogOptions) -> Option<Box<dyn LogReader>>;

    /// The agent ends: nothing new is begun, and what waits gives up. Resolves when nothing is under way any more.
    /// Containers go on.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// The node has left its cluster: remove everything of it that is on this machine.
    fn clear(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// Which lines of a container's output to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The last so many lines; `None`: all that is kept.
    pub tail: Option<u64>,
    /// Nothing written before.
    pub since: Option<SystemTime>,
}

/// Reads one container's output, old to new. Blocks for the time of a file read.
pub trait LogReader: Send {
    /// The next lines, a bounded number; none at the end of what has been written so far.
    fn read_batch(&mut self) -> Result<Vec<LogLine>, String>;
}

/// A line of a container's output, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Microseconds since the Unix epoch.
    pub at_micros: u64,
    pub stderr: bool,
    pub bytes: Vec<u8>,
    pub partial: bool,
}

/// Where an executor sends the answers of its operations. Clones lead to the same agent.
#[derive(Debug, Clone)]
pub struct Answers {
    events: mpsc::Sender<Event>,
}

impl Answers {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events }
    }

    /// Sends an answer from anywhere inside the async runtime, without waiting. An agent that has ended needs none.
    pub fn post(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            let events = self.events.clone();
            tokio::spawn(async move {
                let _ = events.send(event).await;
            });
        }
    }

    /// Sends an answer and waits for room: the sender is to be slowed down by a busy agent.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Sends news that may be lost: what comes next says more.
    pub fn post_lossy(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
