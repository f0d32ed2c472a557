//! The one door of the manager core: what goes in ([`Event`]) and what comes out ([`Effect`]).
//!
//! The shell drains its inbox, hands each event to `ManagerCore::handle`, ends the batch with one [`Event::Wakeup`], and
//! then does the effects in their order. Nothing here knows a socket, a file, a thread or a clock.

use std::time::Duration;

use bytes::Bytes;
use swarm_model::{Actor, AgentMessage, Autolock, EventId, ManagerMessage, NodeId, Registration, Timestamp};

use crate::api::{ApiError, Change, Request, Response};
use crate::store::Unsaved;
pub use crate::store::{Capture, ObjectKey, Operators, RemovedNodes, StoredObject};

/// What a core is told once, when it is made.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node that this manager runs on.
    pub node_id: NodeId,
    /// Its number among the Raft members; never 0, never used again by another member.
    pub raft_id: u64,
    /// Source of all randomness. Ids and join secrets come of it: from the operating system's generator in production.
    pub seed: [u8; 32],
    /// Length of a Raft tick.
    pub tick: Duration,
    pub log: LogKeeping,
    /// Everything is looked at again this often, whatever was or was not marked.
    pub sweep: Duration,
}

/// When the applied state is made durable, and how much of the log is kept behind it.
#[derive(Debug, Clone, Copy)]
pub struct LogKeeping {
    /// Entries between two checkpoints.
    pub checkpoint_every: u64,
    /// Entries that a checkpoint covers and that stay all the same: slow followers are served from them.
    pub kept: usize,
}

impl Default for LogKeeping {
    /// Replaying 1,000 entries at start takes some ten milliseconds; 500 bridge a follower's restart.
    fn default() -> Self {
        Self { checkpoint_every: 1_000, kept: 500 }
    }
}

impl Config {
    /// With the paces of production. Elections begin after 20 to 40 ticks without a word of the leader: 0.6 to 1.2 s.
    pub fn new(node_id: NodeId, raft_id: u64, seed: [u8; 32]) -> Self {
        let (tick, sweep) = (Duration::from_millis(30), Duration::from_secs(60));
        Self { node_id, raft_id, seed, tick, log: LogKeeping::default(), sweep }
    }
}

/// What the disk held when the manager started. All empty for a manager that never was part of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    pub checkpoint: Option<CheckpointState>,
    /// As last persisted.
    pub hard_state: Option<Bytes>,
    /// Ascending and without a gap. Entries that the checkpoint covers are welcome: slow followers are served from them.
    pub entries: Vec<LogEntry>,
}

/// The whole applied state at one log index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointState {
    pub index: u64,
    pub term: u64,
    /// `eraftpb::ConfState`, encoded.
    pub conf_state: Bytes,
    pub objects: Vec<StoredObject>,
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    /// `eraftpb::Entry`, encoded.
    pub data: Bytes,
}

/// The shell's number of a request; comes back in its [`Effect::Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The shell's number of an agent's stream; never used twice by one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

#[derive(Debug)]
pub enum Event {
    /// The inbox is drained or `next_wakeup` has come. Exactly one ends every batch: ticks, deadlines, decisions and
    /// everything that is done once per batch happen here.
    Wakeup,
    /// Already authorised by the shell. Answered by exactly one `Reply`, unless the process ends before.
    Request {
        id: RequestId,
        /// On whose behalf; `None`: the system's own.
        by: Option<Actor>,
        request: Request,
    },
    /// From a peer: `eraftpb::Message`, encoded. Not trusted.
    Raft {
        message: Bytes,
    },
    /// From a peer, as its [`Effect::SendSnapshot`]: the message, and all pieces of the state one behind the other.
    RaftSnapshot {
        message: Bytes,
        state: Bytes,
    },
    /// The connection to this Raft member broke, or messages to it were dropped.
    PeerLost {
        peer: u64,
    },
    /// The process is about to end: hand leadership to another member, if there is one.
    StepDown,
    /// The `Persist` with that number, and all before it, are durable.
    Persisted {
        ready: u64,
    },
    /// The disk failed. The core refuses everything from here on.
    PersistFailed,
    /// The `Checkpoint` at that index is durable.
    Checkpointed {
        index: u64,
    },
    /// An agent opened its stream; `node` is the identity of its certificate.
    SessionOpened {
        session: SessionId,
        node: NodeId,
        registration: Registration,
    },
    SessionMessage {
        session: SessionId,
        message: AgentMessage,
    },
    SessionClosed {
        session: SessionId,
    },
}

#[derive(Debug)]
pub enum Effect {
    /// Write to disk in this order: `checkpoint`, `hard_state` and `entries`; answer [`Event::Persisted`] with `ready`.
    Persist(Persist),
    /// Send to a Raft member. May be lost, must not be reordered per peer.
    SendRaft {
        to: u64,
        message: Bytes,
    },
    /// Send to a Raft member, beside the others: the message, then the [`Capture::pieces`] of the state, which are made
    /// while they are sent. If it is lost, answer [`Event::PeerLost`].
    SendSnapshot {
        to: u64,
        message: Bytes,
        state: Capture,
    },
    Reply {
        id: RequestId,
        result: Result<Response, ApiError>,
    },
    Session {
        session: SessionId,
        message: ManagerMessage,
    },
    CloseSession {
        session: SessionId,
        reason: CloseReason,
    },
    /// Write to the checkpoint store in one atomic batch, off the path of acknowledgements; answer
    /// [`Event::Checkpointed`]. At most one is under way.
    Checkpoint(Box<CheckpointCut>),
    /// Entries up to and including this index may go.
    TruncateLog {
        up_to: u64,
    },
    /// For watchers, in order.
    Publish(Publication),
    Leadership(Leadership),
    /// All managers that this one may speak to, itself included; replaces what was told before.
    Members(Vec<Member>),
    /// Nodes that are to be refused from now on, whatever their certificates say; replaces what was told before. Comes
    /// before the reply to whoever removed one.
    Removed(RemovedNodes),
    /// Whether this manager is to lock its disk; replaces what was told before, unless that was of a higher version.
    Autolock(Autolock),
    /// Who commands, and who no longer does; replaces what was told before. Comes before the reply to whoever removed one.
    Operators(Operators),
    /// The audit trail goes up to this event now.
    Happened(EventId),
    /// This manager must not go on; the reason is for the operator. The process ends itself.
    Stop {
        reason: String,
    },
}

/// One group commit.
#[derive(Debug, Clone)]
pub struct Persist {
    /// Rises by one or more from one to the next.
    pub ready: u64,
    /// A snapshot received from the leader: replaces the checkpoint store *and* the whole log. Durable, together with
    /// `hard_state`, before anything older is deleted.
    pub checkpoint: Option<CheckpointState>,
    /// Appended. A first index that is not above the last one stored replaces the suffix from there.
    pub entries: Vec<LogEntry>,
    pub hard_state: Option<Bytes>,
    /// False: nothing depends on it being durable; it may ride on the next sync, and is answered at once.
    pub must_sync: bool,
}

/// A checkpoint that is cut and not encoded yet: that takes as long as the objects are many, and need not be done by
/// whoever runs the core.
#[derive(Debug)]
pub struct CheckpointCut {
    pub index: u64,
    pub(crate) term: u64,
    pub(crate) conf_state: Bytes,
    pub(crate) unsaved: Unsaved,
}

impl CheckpointCut {
    pub fn encode(self) -> Checkpoint {
        let Self { index, term, conf_state, unsaved } = self;
        let (changed, removed) = unsaved.encode();
        Checkpoint { index, term, conf_state, changed, removed }
    }
}

/// What changed since the checkpoint before it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub index: u64,
    pub term: u64,
    pub conf_state: Bytes,
    pub changed: Vec<StoredObject>,
    pub removed: Vec<ObjectKey>,
}

/// Committed and observed changes of one batch.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Rises by one with each publication of this process. A watcher that took a `Request::Snapshot` with sequence n
    /// continues with publication n + 1.
    pub sequence: u64,
    /// Log index that is reflected.
    pub index: u64,
    pub changes: Vec<Change>,
}

/// A manager that is a Raft member, is about to be, or was a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub raft_id: u64,
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
}

/// Whether this manager decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// Leads, and has applied everything committed before its term.
    Leader { term: u64 },
    /// Does not lead; the Raft id of who does, if known.
    Follower { leader: Option<u64> },
}

/// Why a session was ended by the manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("this manager does not lead the cluster")]
    NotLeader { leader: Option<u64> },
    #[error("node {0} is not a member of this cluster")]
    UnknownNode(NodeId),
    #[error("node {node} was removed from the cluster")]
    Removed { node: NodeId, at: Timestamp },
    #[error("node {0} opened a newer session")]
    Superseded(NodeId),
    #[error("the role of node {0} changed: its certificate has to be renewed")]
    RoleChanged(NodeId),
    #[error("nothing was heard of node {0} for too long")]
    Silent(NodeId),
    #[error("this manager has stopped")]
    Stopped,
}
