//! The Raft node: raft-rs under our clock, our randomness and our disk protocol.
//!
//! Readies are handled asynchronously: what must be durable leaves as `Effect::Persist`, the leader's messages leave at
//! once, a follower's only after its `Persisted`. The state machine is the caller's: it takes [`Round`]s until there is
//! none. Membership changes are applied here; who may propose them is not decided here.

mod disk;
mod election;
mod log;
mod members;
mod message;
mod proposals;
mod snapshot;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost011::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeV2, ConfState, Entry, EntryType, HardState, Message, MessageType,
};
use raft::{RawNode, SnapshotStatus, StateRole};
use rand::Rng;
use swarm_model::Timestamp;

use crate::door::{CheckpointState, Config, Effect, LogEntry, Recovered};
use crate::randomness::{self, Purpose};
use crate::store::Capture;
use disk::InFlight;
use election::Election;
use log::Log;
use message::Received;

pub(crate) use log::RecoverError;
pub(crate) use message::MessageError;
pub(crate) use proposals::ProposeError;

/// Heartbeats leave every second tick (60 ms); elections start after 20 to 40 ticks (0.6 to 1.2 s). Who was killed is noticed
/// by its closed connection, long before; who is only short of processors for a moment keeps its leadership.
const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 20;
/// One append message to a follower: large enough to stream, small enough not to hold up heartbeats.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Append messages under way to one follower.
const MAX_IN_FLIGHT: usize = 1_024;
/// Proposed and not yet committed; above it proposals are refused. 64 MiB is some 100,000 task creations.
const MAX_UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Entries handed out for application in one round.
const MAX_ROUND_BYTES: u64 = 16 << 20;
/// A process that was stopped for long must not run out its election timeout at once: its inbox may hold the heartbeat.
const MAX_TICKS_AT_ONCE: u32 = 2;

/// What one ready asks of the state machine, in this order.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Replaces the whole state.
    pub install: Option<CheckpointState>,
    pub committed: Vec<Committed>,
    /// Read rounds that are confirmed: (context, index that must be applied first).
    pub reads: Vec<(u64, u64)>,
}

/// A committed entry. Raft's own entries have no data.
#[derive(Debug)]
pub(crate) struct Committed {
    pub index: u64,
    pub data: Vec<u8>,
    /// Set if this process proposed it.
    pub proposal: Option<u64>,
}

pub(crate) struct Consensus {
    raw: RawNode<Log>,
    election: Election,
    tick: Duration,
    next_tick: Timestamp,
    in_flight: VecDeque<InFlight>,
    /// Distinguishes this process's proposals from those of an earlier one with the same Raft id.
    incarnation: u64,
    proposals: u64,
    reads: u64,
    /// When each peer was last heard of; without those whose connection broke since.
    heard: BTreeMap<u64, Timestamp>,
    /// Entries were proposed that no follower was sent.
    unsent: bool,
    /// What was committed when the followers were last told; `None`: they are told at once.
    held_commit: Option<u64>,
    /// The state of the leader's snapshot that raft-rs is about to hand out.
    received: Option<Received>,
}

impl Consensus {
    /// Starts from what the disk held. With nothing, the node waits to be bootstrapped or to be added by a leader.
    pub fn recover(config: &Config, recovered: Recovered, now: Timestamp) -> Result<Self, RecoverError> {
        let log = Log::recover(recovered)?;
        let applied = log.checkpoint_index();
        let raw = RawNode::new(&raft_config(config.raft_id, applied), log, &silent())
            .map_err(RecoverError::Raft)?;
        let mut consensus = Self {
            raw,
            election: Election::new(config.seed),
            tick: config.tick,
            next_tick: now + config.tick,
            in_flight: VecDeque::new(),
            incarnation: randomness::child(config.seed, Purpose::Incarnation).next_u64(),
            proposals: 0,
            reads: 0,
            heard: BTreeMap::new(),
            unsent: false,
            held_commit: None,
            received: None,
        };
        consensus.election.settle(&mut consensus.raw);
        Ok(consensus)
    }

    /// The log of a new cluster whose only member is `raft_id`: one committed membership entry, to be persisted first.
    pub fn bootstrap_log(raft_id: u64) -> Recovered {
        let change = ConfChange { node_id: raft_id, ..ConfChange::default() };
        let entry = Entry {
            entry_type: EntryType::EntryConfChange as i32,
            term: 1,
            index: 1,
            data: change.encode_to_vec(),
            ..Entry::default()
        };
        let hard_state = HardState { term: 1, vote: 0, commit: 1 };
        Recovered {
            checkpoint: None,
            hard_state: Some(encode(&hard_state)),
            entries: vec![LogEntry { index: 1, term: 1, data: encode(&entry) }],
        }
    }

    /// Whether it knows of any member, itself included.
    pub fn is_initialised(&self) -> bool {
        !self.raw.store().conf_state().voters.is_empty() || self.raw.raft.raft_log.last_index() > 0
    }

    /// A cluster of one need not wait for an election timeout.
    pub fn campaign_if_alone(&mut self) {
        if self.is_alone() && self.raw.raft.state != StateRole::Leader {
            self.campaign();
        }
    }

    /// A received snapshot is on its way to the disk, and what it replaces is gone already. raft-rs panics when it is to ask for
    /// votes then: it looks for entries that it has not applied.
    fn is_installing(&self) -> bool {
        self.raw.raft.raft_log.applied < self.raw.store().truncated_index()
    }

    fn campaign(&mut self) {
        if self.is_installing() {
            return;
        }
        // Who has no vote, because it learns or was removed, may not ask for any.
        if !self.raw.raft.promotable() {
            return;
        }
        // Fails only where this node may not campaign, and then it must not.
        let _ = self.raw.campaign();
        self.election.settle(&mut self.raw);
    }

    fn is_alone(&self) -> bool {
        let conf = self.raw.store().conf_state();
        conf.voters == [self.raw.raft.id] && conf.voters_outgoing.is_empty()
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Of the last entry in the log.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Raft id of the leader, if known.
    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != 0)
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Leads, and everything committed before its term is applied: it may decide.
    pub fn may_decide(&self) -> bool {
        self.is_leader() && self.raw.raft.apply_to_current_term()
    }

    pub fn conf_state(&self) -> &ConfState {
        self.raw.store().conf_state()
    }

    /// When [`Consensus::advance_clock`] is due. `None`: there is no other member, so no clock is needed.
    pub fn next_tick(&self) -> Option<Timestamp> {
        let idle = self.is_alone() && self.conf_state().learners.is_empty() && self.is_leader();
        (!idle && self.is_initialised()).then_some(self.next_tick)
    }

    pub fn advance_clock(&mut self, now: Timestamp) {
        for _ in 0..MAX_TICKS_AT_ONCE {
            if self.next_tick > now {
                return;
            }
            self.next_tick = self.next_tick + self.tick;
            if !self.is_installing() {
                self.raw.tick();
            }
            self.election.settle(&mut self.raw);
            self.advance_succession();
        }
        self.next_tick = self.next_tick.max(now + self.tick);
    }

    /// Takes a peer's message; `state` is that of a snapshot whose state is not in the message. The bytes are checked
    /// before raft-rs sees them: it panics on numbers that it does not know.
    pub fn step(&mut self, bytes: &[u8], state: Bytes, now: Timestamp) -> Result<(), MessageError> {
        let (message, received) = message::decode(bytes, state, self.raw.raft.id)?;
        self.hear(message.from, now);
        if message.msg_type() == MessageType::MsgTimeoutNow && self.is_installing() {
            return Ok(());
        }
        if self.is_of_the_lost(&message) {
            return Ok(());
        }
        self.overtake(&message);
        let beat =
            (message.msg_type() == MessageType::MsgHeartbeat).then_some((message.from, message.commit));
        self.raw.step(message).map_err(MessageError::Refused)?;
        if let Some(received) = received {
            self.keep_if_pending(received);
        }
        if let Some((leader, known)) = beat {
            self.acknowledge_again(leader, known);
        }
        self.election.settle(&mut self.raw);
        Ok(())
    }

    /// raft-rs takes a snapshot, or knows better.
    fn keep_if_pending(&mut self, received: Received) {
        let pending = self.raw.raft.raft_log.unstable.snapshot.as_ref();
        let index = pending.and_then(|snapshot| snapshot.metadata.as_ref()).map(|metadata| metadata.index);
        if index == Some(received.index) {
            self.received = Some(received);
        }
    }

    /// The leader believes that this member has less than it has: an answer was lost. It would ask again, but not while it
    /// believes that a snapshot is on its way.
    fn acknowledge_again(&mut self, leader: u64, known: u64) {
        let raft = &mut self.raw.raft;
        let has = raft.raft_log.persisted.min(raft.raft_log.committed);
        if raft.leader_id == leader && known < has {
            let mut answer =
                Message { from: raft.id, to: leader, term: raft.term, index: has, ..Message::default() };
            answer.set_msg_type(MessageType::MsgAppendResponse);
            answer.commit = raft.raft_log.committed;
            raft.msgs.push(answer);
        }
    }

    /// The connection to a member broke. If it led, find out at once whether a new leader is needed.
    pub fn peer_lost(&mut self, peer: u64) {
        self.heard.remove(&peer);
        self.raw.report_unreachable(peer);
        self.raw.report_snapshot(peer, SnapshotStatus::Failure);
        if self.leader() == Some(peer) && !self.is_leader() {
            self.succeed(peer);
        }
    }

    /// Hands leadership to the member that has most of the log.
    pub fn step_down(&mut self) {
        let id = self.raw.raft.id;
        let voters = &self.conf_state().voters;
        let best = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(peer, progress)| **peer != id && voters.contains(peer) && progress.recent_active)
            .map(|(peer, progress)| (progress.matched, *peer))
            .max();
        if let (true, Some((_, peer))) = (self.is_leader(), best) {
            self.raw.transfer_leader(peer);
        }
    }

    /// Asks the members to confirm leadership; the context comes back with [`Round::reads`].
    pub fn start_read(&mut self) -> u64 {
        self.reads += 1;
        self.raw.read_index([self.incarnation.to_be_bytes(), self.reads.to_be_bytes()].concat());
        self.reads
    }

    /// The next work for the state machine; `None` when all is quiet until the next event.
    pub fn next_round(&mut self, effects: &mut Vec<Effect>) -> Option<Round> {
        self.send_proposals();
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let mut round = Round::default();
        self.send_all(ready.take_messages(), effects);
        let persist = self.persist(&mut ready, &mut round);
        let in_flight = InFlight {
            number: ready.number(),
            needs_disk: persist.is_some(),
            messages: without_snapshots(ready.take_persisted_messages()),
            snapshot: round.install.as_ref().map(|state| state.index),
        };
        round.reads = (ready.take_read_states().into_iter())
            .filter_map(|read| Some((self.own_number(&read.request_ctx)?, read.index)))
            .collect();
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        effects.extend(persist.map(Effect::Persist));
        self.in_flight.push_back(in_flight);
        self.settle_disk(0, effects);
        round.committed = committed.into_iter().map(|entry| self.commit(entry)).collect();
        if let Some(last) = round.committed.last() {
            self.raw.advance_apply_to(last.index);
        }
        Some(round)
    }

    fn send_all(&mut self, messages: Vec<Message>, effects: &mut Vec<Effect>) {
        for message in messages {
            let to = message.to;
            if message.msg_type != MessageType::MsgSnapshot as i32 {
                effects.push(Effect::SendRaft { to, message: encode(&message) });
                continue;
            }
            let snapshot = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
            let state = snapshot.and_then(|it| self.raw.mut_store().take_offered(it.index));
            match state {
                Some(state) => {
                    effects.push(Effect::SendSnapshot { to, message: encode(&message), state });
                }
                None => self.raw.report_snapshot(to, SnapshotStatus::Failure),
            }
        }
    }

    /// Applies a membership change; everything else is the state machine's.
    fn commit(&mut self, entry: Entry) -> Committed {
        let data = match EntryType::from_i32(entry.entry_type) {
            Some(EntryType::EntryNormal) | None => entry.data,
            Some(EntryType::EntryConfChange) => {
                self.change_membership(ConfChange::decode(&*entry.data).map(as_v2).ok());
                Vec::new()
            }
            Some(EntryType::EntryConfChangeV2) => {
                self.change_membership(ConfChangeV2::decode(&*entry.data).ok());
                Vec::new()
            }
        };
        Committed { index: entry.index, data, proposal: self.own_number(&entry.context) }
    }

    fn change_membership(&mut self, change: Option<ConfChangeV2>) {
        // A change that does not decode or does not fit was refused by every member alike.
        if let Some(Ok(conf_state)) = change.map(|change| self.raw.apply_conf_change(&change)) {
            self.raw.mut_store().set_conf_state(conf_state);
            self.membership_changed();
        }
    }

    /// Whether a follower waits for a snapshot.
    pub fn wants_snapshot(&self) -> bool {
        self.raw.store().wants_snapshot()
    }

    pub fn offer_snapshot(&mut self, state: Capture) {
        self.raw.mut_store().offer_snapshot(state);
    }

    pub fn withdraw_snapshot(&mut self) {
        self.raw.mut_store().withdraw_snapshot();
    }

    /// Term of an entry that was applied.
    pub fn term_at(&self, index: u64) -> u64 {
        self.raw.store().term_at(index).unwrap_or_default()
    }

    /// Drops entries that a durable checkpoint covers, but for a tail that serves slow followers.
    pub fn compact(&mut self, checkpoint: u64, keep: usize) -> Option<u64> {
        self.raw.mut_store().compact(checkpoint, keep)
    }
}

fn raft_config(id: u64, applied: u64) -> raft::Config {
    raft::Config {
        id,
        applied,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        max_size_per_msg: MAX_MESSAGE_BYTES as u64,
        max_inflight_msgs: MAX_IN_FLIGHT,
        check_quorum: true,
        pre_vote: true,
        max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
        max_committed_size_per_ready: MAX_ROUND_BYTES,
        ..raft::Config::default()
    }
}

fn as_v2(change: ConfChange) -> ConfChangeV2 {
    let single = ConfChangeSingle { change_type: change.change_type, node_id: change.node_id };
    ConfChangeV2 { changes: vec![single], context: change.context, ..ConfChangeV2::default() }
}

/// raft-rs wants a logger of its own kind; what matters of it is logged by the core.
fn silent() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn encode(message: &impl prost011::Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Of one who leads no more: whoever does sends its own.
fn without_snapshots(mut messages: Vec<Message>) -> Vec<Message> {
    messages.retain(|message| message.msg_type != MessageType::MsgSnapshot as i32);
    messages
}

fn send(messages: Vec<Message>, effects: &mut Vec<Effect>) {
    effects
        .extend(messages.iter().map(|message| Effect::SendRaft { to: message.to, message: encode(message) }));
}
