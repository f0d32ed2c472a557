//! The manager core: routes events, runs the end of a batch, owns the parts.
//!
//! Order of a batch: events are taken in, then on `Wakeup` clocks and deadlines run, committed entries are applied,
//! requests are admitted, the leader decides over what is dirty, and agents and watchers are told. It decides nothing
//! itself.

mod bootstrap;
mod checkpoints;
mod members;
mod reads;
mod replica;
mod requests;
mod rounds;
mod sessions;
mod writes;

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use prost011::Message as _;
use swarm_model::{Actor, Autolock, EventId, Timestamp};

use crate::api::Request;
use crate::consensus::{Consensus, RecoverError};
use crate::door::{Config, Effect, Event, Leadership, Recovered, RequestId};
use crate::leader::Leader;
use crate::members::Council;
use crate::randomness::Ids;
use crate::store::{DecodeError, Operators, RemovedNodes, Store};
use crate::views::Sight;
use crate::watch::Watch;
use checkpoints::Checkpoints;
use reads::Reads;
pub use replica::Replica;
use writes::Writes;

/// A manager. See [`crate::door`].
pub struct ManagerCore {
    config: Config,
    consensus: Consensus,
    store: Store,
    ids: Ids,
    /// Requests of this batch, and those that wait until a new leader knows all that was committed.
    inbox: Vec<Asked>,
    writes: Writes,
    reads: Reads,
    /// There while this manager decides.
    leader: Option<Leader>,
    announced: Option<Leadership>,
    /// Term and leader when last looked at.
    reign: (u64, Option<u64>),
    council: Council,
    /// As last told to the shell.
    told_removed: RemovedNodes,
    told_autolock: Option<Autolock>,
    told_operators: Operators,
    told_event: Option<EventId>,
    watch: Watch,
    checkpoints: Checkpoints,
    /// Set for good when the disk failed or the log cannot be understood.
    stopped: bool,
    /// Newest time that was told; a clock that steps back does not step back here.
    now: Timestamp,
}

/// Writes that are proposed without waiting for those before: what a group costs is nothing beside them.
pub const FULL_GROUP: usize = 128;

/// A request that waits.
struct Asked {
    id: RequestId,
    by: Option<Actor>,
    request: Request,
}

/// The manager cannot start on what the disk holds.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the raft log cannot be used")]
    Log(#[from] RecoverError),
    #[error("the checkpoint cannot be used")]
    Checkpoint(#[from] DecodeError),
}

impl ManagerCore {
    /// Starts from what the disk held. A cluster of one manager leads before this returns, but for its first write.
    ///
    /// # Errors
    /// What is wrong with the recovered state. Nothing was changed then.
    pub fn new(
        config: Config,
        recovered: Recovered,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<Self, StartError> {
        let store = match &recovered.checkpoint {
            Some(checkpoint) => Store::restore(checkpoint.index, &checkpoint.objects)?,
            None => Store::default(),
        };
        let checkpoints = Checkpoints::new(store.applied());
        let consensus = Consensus::recover(&config, recovered, now)?;
        let mut core = Self {
            ids: Ids::new(config.seed),
            config,
            consensus,
            store,
            inbox: Vec::new(),
            writes: Writes::default(),
            reads: Reads::default(),
            leader: None,
            announced: None,
            reign: (0, None),
            council: Council::default(),
            told_removed: RemovedNodes::default(),
            told_autolock: None,
            told_operators: Operators::default(),
            told_event: None,
            watch: Watch::default(),
            checkpoints,
            stopped: false,
            now,
        };
        core.run_rounds(effects);
        core.consensus.campaign_if_alone();
        core.run_rounds(effects);
        core.announce(effects);
        core.tell_members(effects);
        core.tell_removed(effects);
        core.tell_autolock(effects);
        Ok(core)
    }

    /// Takes one event in. The shell hands in a whole batch, then [`Event::Wakeup`].
    pub fn handle(&mut self, now: Timestamp, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        if self.stopped {
            return self.refuse(event, effects);
        }
        match event {
            Event::Wakeup => self.end_batch(effects),
            Event::Request { id, request: Request::Peek(read), .. } => {
                effects.push(Effect::Reply { id, result: self.peek(&read) });
            }
            Event::Request { id, by, request } => self.inbox.push(Asked { id, by, request }),
            Event::Raft { message } => self.step(&message, Bytes::new()),
            Event::RaftSnapshot { message, state } => self.step(&message, state),
            Event::PeerLost { peer } => self.consensus.peer_lost(peer),
            Event::StepDown => self.consensus.step_down(),
            Event::Persisted { ready } => self.consensus.persisted(ready, effects),
            Event::PersistFailed => self.stop("the manager's disk cannot be written", effects),
            Event::Checkpointed { index } => self.checkpointed(index, effects),
            Event::SessionOpened { session, node, registration } => {
                self.session_opened(session, node, registration, effects);
            }
            Event::SessionMessage { session, message } => self.session_message(session, message, effects),
            Event::SessionClosed { session } => self.session_closed(session),
        }
    }

    /// When the next [`Event::Wakeup`] is due at the latest; `None`: when the next event comes.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let leader = self.leader.as_ref().and_then(Leader::next_wakeup);
        self.consensus.next_tick().into_iter().chain(leader).min().filter(|_| !self.stopped)
    }

    /// Whether writes that come now wait for those before: they are taken in together once these are committed, or once
    /// they are [`FULL_GROUP`].
    pub fn gathers_writes(&self) -> bool {
        let gathers = self.consensus.is_committing() && self.inbox.len() < FULL_GROUP;
        self.leader.is_some() && gathers && !self.stopped
    }

    /// Index of the applied state and a digest of it: equal on all managers that applied the same index. For checkers.
    pub fn fingerprint(&self) -> (u64, u64) {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        for object in self.store.export() {
            hasher.write(&object.key.0);
            hasher.write(&object.value);
        }
        (self.store.applied(), hasher.finish())
    }

    fn end_batch(&mut self, effects: &mut Vec<Effect>) {
        self.consensus.advance_clock(self.now);
        self.run_rounds(effects);
        if let Some(leader) = &mut self.leader {
            leader.run_timers(&self.store, self.now, &mut self.watch, effects);
        }
        self.look_around();
        self.ask_again();
        self.serve_inbox(effects);
        self.steer_members();
        self.steer_rotation();
        self.propose_plan();
        if !self.gathers_writes() {
            self.consensus.announce_commits();
        }
        self.run_rounds(effects);
        if self.gathers_writes() {
            self.consensus.hold_commits();
        }
        self.look_around();
        self.answer_reads(effects);
        if let Some(leader) = &mut self.leader {
            leader.flush(&self.store, self.now, effects);
        }
        self.publish(effects);
        self.tell_events(effects);
        self.tell_members(effects);
        self.tell_autolock(effects);
        self.cut_checkpoint(effects);
    }

    fn step(&mut self, message: &[u8], state: Bytes) {
        if let Err(error) = self.consensus.step(message, state, self.now) {
            tracing::warn!(%error, "a raft message was dropped");
        }
    }

    /// Tells watchers what changed in this batch.
    fn publish(&mut self, effects: &mut Vec<Effect>) {
        let changed = self.watch.take();
        if let Some(leader) = &self.leader {
            let changes = Sight::of(&self.store, leader, &self.council, &self.config).show(changed);
            effects.extend(self.watch.publication(changes, self.store.applied()).map(Effect::Publish));
        }
    }

    fn tell_events(&mut self, effects: &mut Vec<Effect>) {
        let last = self.store.audit().last();
        if self.told_event != last {
            self.told_event = last;
            effects.extend(last.map(Effect::Happened));
        }
    }

    fn conf_state(&self) -> Bytes {
        Bytes::from(self.consensus.conf_state().encode_to_vec())
    }
}
