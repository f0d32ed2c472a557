//! The core's thread: takes what waits, lets the core think, and does its effects.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::ManagerCore;
use swarm_manager_core::api::{ApiError, Response};
use swarm_manager_core::door::{
    Effect, Event, Leadership, Member, Operators, Publication, RemovedNodes, RequestId,
};
use swarm_model::{Autolock, EventId};
use tokio::sync::{broadcast, oneshot, watch};
use tracing::{debug, error, warn};

use super::clock::Clock;
use super::disk::Disk;
use super::inbox::{Inbox, Item, Wake};
use super::sessions::Sessions;
use super::{Outgoing, RaftOut};

/// Events that the core takes in one batch; bounds how long an acknowledgement waits for those behind it.
const MAX_BATCH: usize = 4_096;
/// And how long it may take them in. Some events are a hundred times others.
const MAX_TAKING_IN: Duration = Duration::from_millis(20);
/// A batch that took longer is logged: heartbeats to the other managers wait behind it, and elections come after 600 ms.
const SLOW_BATCH: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(60);

/// The other side of the core's effects.
pub struct Outlet {
    pub raft_out: RaftOut,
    pub disk: Disk,
    pub sessions: Sessions,
    pub publications: broadcast::Sender<Arc<Publication>>,
    pub leads: watch::Sender<Leadership>,
    pub knows: watch::Sender<Vec<Member>>,
    pub refuses: watch::Sender<RemovedNodes>,
    pub locks: watch::Sender<Option<Autolock>>,
    pub admits: watch::Sender<Operators>,
    pub tells: watch::Sender<Option<EventId>>,
    pub fails: Arc<watch::Sender<bool>>,
}

/// Requests that the core has not answered yet, by number.
#[derive(Default)]
struct Waiting {
    next: u64,
    replies: HashMap<RequestId, oneshot::Sender<Result<Response, ApiError>>>,
}

/// Puts the calling thread before the node's containers and the manager's own connections: while it waits for a processor
/// no heartbeat leaves, and the others elect another leader. Not being allowed to is no reason to fail.
pub fn go_first() {
    /// Some nine times the share of a container's thread.
    const NICE: i32 = -10;
    // On Linux that is the thread, not the process.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        debug!(%error, "the manager's thread has no priority over others");
    }
}

impl Waiting {
    /// The item as an event; `None` is the end.
    fn admit(&mut self, item: Item) -> Option<Event> {
        match item {
            Item::Event(event, permit) => {
                drop(permit);
                Some(event)
            }
            Item::Request(by, request, reply, permit) => {
                drop(permit);
                self.next += 1;
                let id = RequestId(self.next);
                self.replies.insert(id, reply);
                Some(Event::Request { id, by, request })
            }
            Item::Stop => None,
        }
    }
}

/// Whoever waits for an answer when the thread ends learns that there is none.
struct Closing<'a>(&'a Inbox);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Outlet {
    /// The core's thread, until [`Item::Stop`].
    pub fn run(mut self, mut core: ManagerCore, mut effects: Vec<Effect>, inbox: &Inbox, clock: Clock) {
        let _closing = Closing(inbox);
        go_first();
        let mut waiting = Waiting::default();
        let mut items = VecDeque::new();
        loop {
            for effect in effects.drain(..) {
                self.perform(effect, &mut waiting);
            }
            if items.is_empty() {
                let wait = core.next_wakeup().map_or(IDLE, |at| at.since(clock.now()));
                let wake = if core.gathers_writes() { Wake::AnythingButWrites } else { Wake::Anything };
                items = inbox.take(MAX_BATCH, wake, wait);
            }
            let now = clock.now();
            let before = items.len();
            while let Some(item) = items.pop_front() {
                let Some(event) = waiting.admit(item) else { return };
                core.handle(now, event, &mut effects);
                if clock.now().since(now) >= MAX_TAKING_IN {
                    break;
                }
            }
            core.handle(now, Event::Wakeup, &mut effects);
            let took = clock.now().since(now);
            if took >= SLOW_BATCH {
                let events = before - items.len();
                warn!(
                    took.ms = took.as_millis(),
                    events,
                    effects = effects.len(),
                    "a batch of the core was slow"
                );
            }
        }
    }

    fn perform(&mut self, effect: Effect, waiting: &mut Waiting) {
        match effect {
            Effect::Persist(persist) => self.disk.persist(persist),
            Effect::Checkpoint(checkpoint) => self.disk.checkpoint(checkpoint),
            Effect::TruncateLog { up_to } => self.disk.truncate(up_to),
            Effect::SendRaft { to, message } => (self.raft_out)(to, Outgoing::Message(message)),
            Effect::SendSnapshot { to, message, state } => {
                (self.raft_out)(to, Outgoing::Snapshot(message, state));
            }
            Effect::Reply { id, result } => {
                if let Some(reply) = waiting.replies.remove(&id) {
                    // The caller may have gone.
                    let _ = reply.send(result);
                }
            }
            Effect::Session { session, message } => self.sessions.message(session, message),
            Effect::CloseSession { session, reason } => self.sessions.close(session, reason),
            // Nobody may be watching.
            Effect::Publish(publication) => drop(self.publications.send(Arc::new(publication))),
            Effect::Leadership(leadership) => drop(self.leads.send(leadership)),
            Effect::Members(members) => drop(self.knows.send(members)),
            Effect::Removed(removed) => drop(self.refuses.send(removed)),
            Effect::Autolock(autolock) => drop(self.locks.send(Some(autolock))),
            Effect::Operators(operators) => drop(self.admits.send(operators)),
            Effect::Happened(event) => drop(self.tells.send(Some(event))),
            Effect::Stop { reason } => {
                error!(reason, "the manager stops: it must not go on");
                let _ = self.fails.send(true);
            }
        }
    }
}
