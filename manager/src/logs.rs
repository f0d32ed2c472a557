//! The way of log lines: an operator subscribes here; the agents that have the tasks are told on their sessions; each
//! opens a call of its own and sends; what it sends goes to the subscriber and nowhere else.
//!
//! An agent may send only of tasks that it was asked for. A node that cannot be asked is named in a notice at once, so
//! that nothing hangs. Everything between agent and subscriber is bounded: a slow reader slows its agents down.

mod subscription;
mod tracked;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_manager_core::api::ApiError;
use swarm_model::{NodeId, TaskId};
use swarm_proto::v1;
use tokio::sync::{Semaphore, mpsc};

use crate::engine::Engine;
use subscription::Subscription;

/// Subscribers at the same time.
const MAX_SUBSCRIBERS: usize = 256;
/// Entries that wait for one subscriber.
const MAX_ENTRIES: usize = 256;
/// Batches from agents that wait for one subscriber to take the entries before them.
const MAX_BATCHES: usize = 4;

/// What an operator wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub target: Target,
    pub follow: bool,
    /// Last lines per task; `None`: all that is kept.
    pub tail: Option<u64>,
    pub since_micros: Option<u64>,
}

/// Whose logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every task of a service, by id, unique prefix or name.
    Service(String),
    /// One task.
    Task(String),
}

/// The meeting point of subscribers and agents. Clones are the same.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

struct Shared {
    engine: Engine,
    next: AtomicU64,
    room: Arc<Semaphore>,
    routes: Mutex<BTreeMap<u64, Route>>,
}

/// Where the call of one agent for one subscription leads. The agent takes it out when it calls.
struct Route {
    node: NodeId,
    tasks: BTreeSet<TaskId>,
    events: mpsc::Sender<FromNode>,
}

/// What comes of one agent's call.
#[derive(Debug)]
enum FromNode {
    Opened(u64),
    Entries(Vec<(TaskId, v1::LogEntry)>),
    /// It sent all that there is.
    Finished(u64),
    Broken(u64),
}

/// Why an agent's call was refused.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("nobody waits for subscription {0} of this node")]
    Unknown(u64),
    #[error("the entry is not of a task that was asked for")]
    ForeignTask,
    #[error("the subscriber is gone")]
    Gone,
}

impl Logs {
    pub fn new(engine: Engine) -> Self {
        Self(Arc::new(Shared {
            engine,
            next: AtomicU64::new(1),
            room: Arc::new(Semaphore::new(MAX_SUBSCRIBERS)),
            routes: Mutex::default(),
        }))
    }

    /// Begins to collect; ends when everything was sent, or when what is returned is dropped.
    ///
    /// # Errors
    /// There is no such service or task, or there are too many subscribers.
    pub async fn subscribe(&self, wanted: Wanted) -> Result<mpsc::Receiver<v1::LogEntry>, ApiError> {
        let room = Arc::clone(&self.0.room).try_acquire_owned().map_err(|_| {
            ApiError::Unavailable("this manager has too many readers of logs; try again".to_owned())
        })?;
        let (outgoing, entries) = mpsc::channel(MAX_ENTRIES);
        let subscription = Subscription::begin(self.clone(), wanted, outgoing).await?;
        tokio::spawn(async move {
            subscription.run().await;
            drop(room);
        });
        Ok(entries)
    }

    /// An agent's call for subscription `id` begins.
    ///
    /// # Errors
    /// This node was not asked, or nobody waits any more.
    pub async fn publish(&self, node: NodeId, id: u64) -> Result<Publisher, PublishError> {
        let route = {
            let mut routes = self.routes();
            match routes.get(&id) {
                Some(route) if route.node == node => routes.remove(&id),
                Some(_) | None => None,
            }
        };
        let route = route.ok_or(PublishError::Unknown(id))?;
        route.events.send(FromNode::Opened(id)).await.map_err(|_| PublishError::Gone)?;
        Ok(Publisher { id, route, finished: false })
    }

    fn open_route(&self, node: NodeId, tasks: BTreeSet<TaskId>, events: mpsc::Sender<FromNode>) -> u64 {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.routes().insert(id, Route { node, tasks, events });
        id
    }

    fn close_route(&self, id: u64) {
        self.routes().remove(&id);
    }

    fn routes(&self) -> MutexGuard<'_, BTreeMap<u64, Route>> {
        self.0.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One agent's call. Dropping it before [`Self::finish`] tells the subscriber that it broke.
#[derive(Debug)]
pub struct Publisher {
    id: u64,
    route: Route,
    finished: bool,
}

impl Publisher {
    /// Waits while the subscriber is slow.
    ///
    /// # Errors
    /// An entry is not of a task that this node was asked for, or the subscriber is gone.
    pub async fn send(&self, entries: Vec<v1::LogEntry>) -> Result<(), PublishError> {
        let mut checked = Vec::with_capacity(entries.len());
        for entry in entries {
            let task = entry.task_id.parse().ok().filter(|task| self.route.tasks.contains(task));
            checked.push((task.ok_or(PublishError::ForeignTask)?, entry));
        }
        let sent = self.route.events.send(FromNode::Entries(checked)).await;
        sent.map_err(|_| PublishError::Gone)
    }

    /// Everything that was asked for is sent.
    pub async fn finish(mut self) {
        self.finished = true;
        let _ = self.route.events.send(FromNode::Finished(self.id)).await;
    }

    /// Resolves when the subscriber is gone.
    pub async fn abandoned(&self) {
        self.route.events.closed().await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if !self.finished {
            let (id, events) = (self.id, self.route.events.clone());
            // The queue may be full, and this may not wait; outside of a runtime there is no subscriber either.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { events.send(FromNode::Broken(id)).await });
            }
        }
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("node", &self.node).field("tasks", &self.tasks).finish_non_exhaustive()
    }
}
