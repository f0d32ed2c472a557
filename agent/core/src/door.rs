//! The one door of the agent core: what goes in ([`Event`]) and what comes out ([`Effect`]).
//!
//! Each [`Operation`] but [`Operation::Stop`], [`Operation::Kill`], [`Operation::SetPorts`] and
//! [`Operation::CollectGarbage`] is answered by exactly one event of its own; whoever does operations never retries one,
//! because when to try again is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use swarm_model::{
    AgentMessage, Assignment, ClusterId, EngineDescription, ImageRef, ManagerMessage, NodeId, Registration,
    TaskId, TaskStatus, Timestamp,
};

use crate::Mesh;

/// What a core is told once, when it is made.
#[derive(Debug, Clone)]
pub struct Config {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub engine: EngineDescription,
    /// `host:port` of managers, used until a manager has told its own list.
    pub managers: Vec<String>,
    /// Source of the jitter between attempts to connect; another one on every node.
    pub seed: u64,
    pub parallelism: Parallelism,
}

/// How many operations of a kind run at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Parallelism {
    pub prepare: usize,
    pub start: usize,
    pub remove: usize,
}

impl Parallelism {
    /// Preparing mostly waits (for a registry, or for another task's pull of the same image); starting and removing are
    /// work for CPUs and kernel locks, where more at once only makes each slower.
    pub fn for_cpus(cpus: usize) -> Self {
        let both = cpus.saturating_mul(2).clamp(2, 16);
        Self { prepare: 32, start: both, remove: both }
    }
}

impl Default for Parallelism {
    /// For a machine whose CPUs have not been counted.
    fn default() -> Self {
        Self::for_cpus(2)
    }
}

/// What the disk and the runtime held when the agent started. All empty for a node that has just joined.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    pub node: NodeRecord,
    pub tasks: Vec<TaskRecord>,
    /// Every container of the runtime, with or without a record.
    pub containers: BTreeMap<TaskId, Found>,
    /// Tasks whose record is of an earlier boot of this machine.
    pub before_reboot: BTreeSet<TaskId>,
}

/// What the agent keeps on disk about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Highest epoch heard of.
    pub epoch: u64,
    pub managers: Vec<String>,
    pub place: Option<Place>,
}

/// The node's part of the address plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub index: u16,
    pub gateway_pool: Ipv4Net,
}

/// What the agent keeps on disk about a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    pub assignment: Arc<Assignment>,
    /// Once it ended.
    pub ended: Option<TaskStatus>,
}

/// How a container of an earlier process of this agent does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// `since`: when it started.
    Running {
        pid: u32,
        since: Timestamp,
    },
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Code {
        /// As a shell shows it: 128 plus the number of the signal that ended the first process.
        code: i32,
        /// Name of that signal.
        signal: Option<String>,
        /// The kernel killed a process of the container at its memory limit.
        oom: bool,
    },
    /// Nobody saw how.
    Lost { reason: String },
}

/// The driver's number of an attempt to reach a manager; never used twice by one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

#[derive(Debug)]
pub enum Event {
    /// The inbox is drained, or `next_wakeup` has come. Exactly one ends every batch: everything that is done once per
    /// batch happens here.
    Wakeup,

    /// The connection of [`Effect::Connect`] is there; the core answers with the registration.
    SessionOpened {
        session: SessionId,
    },
    SessionMessage {
        session: SessionId,
        message: ManagerMessage,
    },
    SessionClosed {
        session: SessionId,
        reason: Closed,
    },

    /// The operator names managers, or one that renewed the certificate did: all that the node knew may be gone.
    ManagersNamed {
        managers: Vec<String>,
    },

    /// Answers [`Operation::OpenNetwork`]; the error is a text for the operator, cause first, as all of these.
    NetworkOpened {
        result: Result<(), String>,
    },
    /// Answers [`Operation::ProgramMesh`].
    MeshProgrammed {
        result: Result<(), String>,
    },
    /// Answers [`Operation::Prepare`], also after [`Operation::CancelPrepare`].
    Prepared {
        task: TaskId,
        result: Result<(), PrepareFailure>,
    },
    /// Answers [`Operation::Start`] with the process id of the container's first process.
    Started {
        task: TaskId,
        result: Result<u32, String>,
    },
    /// A started or recovered container ended.
    Exited {
        task: TaskId,
        exit: Exit,
    },
    /// Answers [`Operation::Remove`].
    Removed {
        task: TaskId,
        result: Result<(), String>,
    },
    /// What a preparation is doing, as "pulling 63 %". May be dropped.
    Progress {
        task: TaskId,
        message: String,
    },
}

/// Why a task could not be prepared; for the operator, cause first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareFailure {
    /// Trying again soon may help: a registry or manager did not answer.
    Transient(String),
    /// It will fail again.
    Final(String),
}

/// Why a session ended, or did not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// That manager does not lead.
    NotLeader { leader: Option<String> },
    /// The node is no member of the cluster any more.
    Removed,
    /// Connection refused or lost, certificate refused, protocol broken … For the operator.
    Failed(String),
}

#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Write down. Comes before the operations and messages of its batch.
    Persist(Vec<Change>),
    Operate(Operation),
    /// Reach this manager; answered by `SessionOpened` or `SessionClosed`.
    Connect {
        session: SessionId,
        manager: String,
    },
    /// The first message of a session.
    Register {
        session: SessionId,
        registration: Registration,
    },
    Send {
        session: SessionId,
        message: AgentMessage,
    },
    /// Hang up. No event of this session is wanted any more.
    Disconnect {
        session: SessionId,
    },
}

/// A change of what is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Node(NodeRecord),
    Task(TaskRecord),
    Forget(TaskId),
}

/// Something to be done on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Open the data path, or move it to another place of the address plan.
    OpenNetwork(Place),
    /// Make the kernel's routing mesh equal to this. The next one comes only after the answer.
    ProgramMesh(Arc<Mesh>),
    /// Have the image here, verified and unpacked.
    Prepare(Arc<Assignment>),
    /// Nobody needs that preparation any more.
    CancelPrepare(TaskId),
    /// Make and start the prepared task's container. Its exit is an event of its own.
    Start(Arc<Assignment>),
    /// The ports that lead to a running task changed.
    SetPorts(Arc<Assignment>),
    /// Send the stop signal: the spec's, else the image's, else SIGTERM.
    Stop(Arc<Assignment>),
    Kill(TaskId),
    /// Remove everything of the task from the node, its container first if it still runs.
    Remove(TaskId),
    /// Forget images that are not named here and were not used lately.
    CollectGarbage {
        images: BTreeSet<ImageRefKey>,
    },
}

/// An image in an ordered set: its name and digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRefKey {
    pub name: String,
    pub digest: Option<String>,
}

impl From<&ImageRef> for ImageRefKey {
    fn from(image: &ImageRef) -> Self {
        Self { name: image.name.clone(), digest: image.digest.clone() }
    }
}
