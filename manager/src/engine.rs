//! Runs the core: one thread that thinks, one that writes the log, one that writes checkpoints.
//!
//! Everything from outside becomes an event in the core's inbox; the core's effects are done here and nowhere else.
//! Whatever comes from outside holds a permit while it waits, so the inbox is bounded.

mod clock;
mod disk;
mod inbox;
mod run;
mod sessions;
mod space;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::{
    Capture, Config, Event, Leadership, Member, Operators, Publication, Recovered, RemovedNodes,
};
use swarm_manager_core::{ManagerCore, StartError};
use swarm_model::{Actor, Autolock, EventId, ManagerMessage, NodeId, Registration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::keys::DataKey;
use crate::log::{LogError, LogStore, SegmentLog};
pub use clock::Clock;
use disk::Disk;
use inbox::{Inbox, Item};
use run::Outlet;
pub use sessions::AgentSession;
use sessions::Sessions;
use space::Space;

/// Events from outside that may wait for the core. More wait in their callers.
const MAX_WAITING: usize = 16_384;
/// Batches of changes that a watcher may be behind before it is cut. While a large fleet reports, a batch is often one agent's
/// word.
const PUBLICATIONS_KEPT: usize = 16_384;
/// How long a leader may take to hand over when it stops.
const STEP_DOWN: Duration = Duration::from_millis(500);
/// A leader without space gives the others so long to make some.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot open the manager's log in {path}")]
    Log {
        path: PathBuf,
        #[source]
        source: LogError,
    },
    #[error("cannot open the manager's state in {path}")]
    Checkpoint {
        path: PathBuf,
        #[source]
        source: CheckpointError,
    },
    #[error(
        "the manager's log {path} is gone, though its state is there: this manager does not start, because it might \
         forget what it promised to the others. Restore the log from a backup; or, if the cluster has other managers, \
         run `swarmctl node rm --force` for this node at one of them, move this node's data directory aside, and join \
         again"
    )]
    LogGone { path: PathBuf },
    #[error("what the manager's disk holds in {path} cannot be used")]
    Recover {
        path: PathBuf,
        #[source]
        source: StartError,
    },
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Sends to a Raft member; must not block.
pub type RaftOut = Box<dyn Fn(u64, Outgoing) + Send>;

/// What goes to a Raft member.
#[derive(Debug)]
pub enum Outgoing {
    /// An encoded `eraftpb::Message`.
    Message(Bytes),
    /// One that announces a state, and the state.
    Snapshot(Bytes, Capture),
}

/// A running manager core. Clones are handles to the same one.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    inbox: Inbox,
    room: Arc<Semaphore>,
    sessions: Sessions,
    publications: broadcast::Sender<Arc<Publication>>,
    leadership: watch::Receiver<Leadership>,
    members: watch::Receiver<Vec<Member>>,
    removed: watch::Receiver<RemovedNodes>,
    autolock: watch::Receiver<Option<Autolock>>,
    operators: watch::Receiver<Operators>,
    happened: watch::Receiver<Option<EventId>>,
    failed: watch::Receiver<bool>,
    space: Space,
    /// When leadership was last given to a manager that might have more space.
    handed_over: tokio::sync::Mutex<Option<Instant>>,
    clock: Clock,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Recovers the manager's state from `directory` (`log/` and `state/`, made if absent, encrypted with `key`) and
    /// starts its threads.
    ///
    /// # Errors
    /// The disk refused or is damaged.
    pub fn start(
        config: Config,
        directory: &Path,
        key: &DataKey,
        raft_out: RaftOut,
    ) -> Result<Self, EngineError> {
        Self::start_on(config, directory, key, raft_out, |log| Box::new(log))
    }

    /// With another log in front of the one in `directory`.
    fn start_on(
        config: Config,
        directory: &Path,
        key: &DataKey,
        raft_out: RaftOut,
        wrap: impl FnOnce(SegmentLog) -> Box<dyn LogStore>,
    ) -> Result<Self, EngineError> {
        let (log_path, state_path) = (directory.join("log"), directory.join("state"));
        let (store, checkpoint) = CheckpointStore::open(&state_path, key)
            .map_err(|source| EngineError::Checkpoint { path: state_path, source })?;
        let failed = |source| EngineError::Log { path: log_path.clone(), source };
        if checkpoint.is_some() && !SegmentLog::exists(&log_path).map_err(failed)? {
            return Err(EngineError::LogGone { path: log_path });
        }
        let (mut log, mut held) = SegmentLog::open(&log_path, key).map_err(failed)?;
        disk::finish_install(&mut log, &mut held, checkpoint.as_ref()).map_err(failed)?;
        let recovered = Recovered { checkpoint, hard_state: held.hard_state, entries: held.entries };

        let inbox = Inbox::default();
        let (publications, _) = broadcast::channel(PUBLICATIONS_KEPT);
        let (leads, leadership) = watch::channel(Leadership::Follower { leader: None });
        let (knows, members) = watch::channel(Vec::new());
        let (refuses, removed) = watch::channel(RemovedNodes::default());
        let (locks, autolock) = watch::channel(None);
        let (admits, operators) = watch::channel(Operators::default());
        let (tells, happened) = watch::channel(None);
        let (fails, failed) = watch::channel(false);
        let fails = Arc::new(fails);
        let (disk, mut threads) =
            Disk::start(wrap(log), store, inbox.clone(), Arc::clone(&fails)).map_err(EngineError::Thread)?;
        let sessions = Sessions::default();
        let clock = Clock::start();
        let mut effects = Vec::new();
        let core = ManagerCore::new(config, recovered, clock.now(), &mut effects)
            .map_err(|source| EngineError::Recover { path: directory.to_owned(), source })?;
        let outlet = Outlet {
            raft_out,
            disk,
            sessions: sessions.clone(),
            publications: publications.clone(),
            leads,
            knows,
            refuses,
            locks,
            admits,
            tells,
            fails,
        };
        let events = inbox.clone();
        let core_thread = std::thread::Builder::new()
            .name("manager-core".to_owned())
            .spawn(move || outlet.run(core, effects, &events, clock))
            .map_err(EngineError::Thread)?;
        threads.insert(0, core_thread);
        let room = Arc::new(Semaphore::new(MAX_WAITING));
        let threads = Mutex::new(threads);
        Ok(Self(Arc::new(Shared {
            inbox,
            room,
            sessions,
            publications,
            leadership,
            members,
            removed,
            autolock,
            operators,
            happened,
            failed,
            space: Space::new(directory),
            handed_over: tokio::sync::Mutex::default(),
            clock,
            threads,
        })))
    }

    /// Asks the core, on the system's own behalf. Cancelling the future does not undo the request.
    ///
    /// # Errors
    /// The core's refusal; unavailable where the engine has stopped.
    pub async fn request(&self, request: Request) -> Result<Response, ApiError> {
        self.request_by(None, request).await
    }

    /// Asks the core on somebody's behalf, who is noted with what it changes.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn request_by(&self, by: Option<Actor>, request: Request) -> Result<Response, ApiError> {
        // Any other manager passes it on to the one that leads.
        if self.leads()
            && let Err(refusal) = self.0.space.admit(&request)
        {
            return Err(self.hand_over_or(refusal).await);
        }
        let (reply, answer) = oneshot::channel();
        self.put(Item::Request(by, request, reply, self.permit().await))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn leads(&self) -> bool {
        matches!(*self.0.leadership.borrow(), Leadership::Leader { .. })
    }

    /// Another manager may have the space that this one lacks. Where all lack it, each hands over once, and then refuses.
    async fn hand_over_or(&self, refusal: ApiError) -> ApiError {
        let mut handed_over = self.0.handed_over.lock().await;
        if self.leads() && handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER_AGAIN) {
            *handed_over = Some(Instant::now());
            self.step_down().await;
        }
        if self.leads() { refusal } else { ApiError::NotLeader { leader: None } }
    }

    /// Opens an agent's session; it is closed when what is returned is dropped.
    ///
    /// # Errors
    /// Unavailable where the engine has stopped.
    pub async fn open_session(
        &self,
        node: NodeId,
        registration: Registration,
    ) -> Result<AgentSession, ApiError> {
        let session = self.0.sessions.open(node, self.clone());
        let event = Event::SessionOpened { session: session.id(), node, registration };
        self.event(event).await.map(|()| session)
    }

    /// Whether this manager's disk has space for something new, such as an image.
    ///
    /// # Errors
    /// It has not; the text is for the operator.
    pub fn check_space(&self) -> Result<(), ApiError> {
        self.0.space.check()
    }

    /// Sends to a node that has a session with this manager. False: it has none, or is too slow and was cut.
    pub fn message_node(&self, node: NodeId, message: ManagerMessage) -> bool {
        self.0.sessions.message_node(node, message)
    }

    /// Hands in a message of another manager: an encoded `eraftpb::Message`.
    ///
    /// # Errors
    /// Unavailable where the engine has stopped.
    pub async fn receive_raft(&self, message: Bytes) -> Result<(), ApiError> {
        self.event(Event::Raft { message }).await
    }

    /// Hands in a message that announces a state, and the state.
    ///
    /// # Errors
    /// Unavailable where the engine has stopped.
    pub async fn receive_snapshot(&self, message: Bytes, state: Bytes) -> Result<(), ApiError> {
        self.event(Event::RaftSnapshot { message, state }).await
    }

    /// The connection to another manager broke.
    pub fn peer_lost(&self, peer: u64) {
        let _ = self.put(Item::Event(Event::PeerLost { peer }, None));
    }

    /// Changes from now on.
    pub fn publications(&self) -> broadcast::Receiver<Arc<Publication>> {
        self.0.publications.subscribe()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// All managers, as far as this one knows.
    pub fn members(&self) -> watch::Receiver<Vec<Member>> {
        self.0.members.clone()
    }

    /// Nodes to refuse, whatever their certificates say.
    pub fn removed(&self) -> watch::Receiver<RemovedNodes> {
        self.0.removed.clone()
    }

    /// How this manager is to keep the key of its disk; `None`: it is not known yet.
    pub fn autolock(&self) -> watch::Receiver<Option<Autolock>> {
        self.0.autolock.clone()
    }

    /// The newest event of the audit trail.
    pub fn happened(&self) -> watch::Receiver<Option<EventId>> {
        self.0.happened.clone()
    }

    /// Who commands, and who no longer does.
    pub fn operators(&self) -> watch::Receiver<Operators> {
        self.0.operators.clone()
    }

    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    /// Resolves when the disk failed, or the core found that it must not go on; this manager can do nothing more.
    pub async fn failed(&self) {
        let mut failed = self.0.failed.clone();
        if failed.wait_for(|failed| *failed).await.is_err() {
            // Stopped without a failure: never.
            std::future::pending::<()>().await;
        }
    }

    /// Hands leadership over where there are other managers.
    pub async fn step_down(&self) {
        if self.0.members.borrow().len() > 1 {
            let _ = self.put(Item::Event(Event::StepDown, None));
            let mut leadership = self.0.leadership.clone();
            let follows = leadership.wait_for(|now| matches!(now, Leadership::Follower { .. }));
            let _ = tokio::time::timeout(STEP_DOWN, follows).await;
        }
    }

    /// Ends the sessions, makes everything durable.
    pub async fn stop(&self) {
        let _ = self.put(Item::Stop);
        let threads =
            self.0.threads.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
        self.0.sessions.clear();
    }

    async fn event(&self, event: Event) -> Result<(), ApiError> {
        let permit = self.permit().await;
        self.put(Item::Event(event, Some(permit)))
    }

    /// An event that must not wait: the end of something that is bounded elsewhere.
    fn event_now(&self, event: Event) {
        let _ = self.put(Item::Event(event, None));
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0.room).acquire_owned().await.expect("the semaphore is never closed")
    }

    fn put(&self, item: Item) -> Result<(), ApiError> {
        self.0.inbox.put(item).map_err(|_| stopped())
    }
}

fn stopped() -> ApiError {
    ApiError::Unavailable("this manager is stopping; try again, or another manager".to_owned())
}

#[cfg(test)]
mod power;
#[cfg(test)]
pub(crate) mod tests;
