//! What managers and agents say to each other on a node's session stream.
//!
//! Every difference names the version it starts from and the one it reaches. A receiver whose own version is another
//! one applies nothing and asks for everything; a version of an older epoch than one already seen is dropped, so an
//! instruction of a deposed leader is never obeyed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, DesiredState, EngineDescription, NodeId, NodeRole, PortMode, PortSpec, Protocol, ServiceId,
    TaskId, TaskSpec, TaskStatus,
};

/// Version of a table that a leader sends: its term, then a number that rises within the term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableVersion {
    pub epoch: u64,
    pub number: u64,
}

/// First message of an agent on a new session: a full report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub engine: EngineDescription,
    /// Every task that the agent holds anything of.
    pub statuses: Vec<(TaskId, TaskStatus)>,
}

/// From agent to manager, after the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentMessage {
    Heartbeat,
    /// Newest status per task; only tasks whose status changed.
    Statuses(Vec<(TaskId, TaskStatus)>),
    /// The mesh table of this version is programmed in the kernel.
    MeshApplied(TableVersion),
    /// A difference did not start from what the agent has: send both tables in full.
    NeedFull,
    /// The root that issued the node's certificate, by its digest as in join tokens. After the welcome, and when it
    /// changes.
    Certified(String),
}

/// From manager to agent.
#[derive(Debug, Clone, PartialEq)]
pub enum ManagerMessage {
    Welcome(Welcome),
    Assignments(AssignmentsDelta),
    Mesh(MeshDelta),
    /// Open a log stream call for this subscription.
    SubscribeLogs(LogSubscription),
    CancelLogs(u64),
    /// Answers the agent's, so that it leaves a manager that cannot be heard any more. Says when the next one is due: the
    /// interval grows and shrinks with the fleet.
    Heartbeat {
        heartbeat_ms: u32,
    },
    /// Root certificates to believe, PEM; the last one issues. After the welcome, and when they change.
    Trust(Arc<str>),
    /// `host:port` of every manager, when they have changed.
    Managers(Vec<String>),
}

/// First message of a manager on a new session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The node's number in the address plan.
    pub index: u16,
    pub gateway_pool: Ipv4Net,
    pub heartbeat_ms: u32,
    /// What the node is to be. A node whose certificate says otherwise has it renewed.
    pub role: NodeRole,
    /// `host:port` of every manager, to be kept for reconnecting.
    pub managers: Vec<String>,
}

/// Change of what this node is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignmentsDelta {
    /// `None`: this is everything; what is not named is to be removed.
    pub base: Option<TableVersion>,
    pub version: TableVersion,
    pub upsert: Vec<Assignment>,
    /// Tasks to stop and forget.
    pub remove: Vec<TaskId>,
}

/// One task, with all that its agent needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub task: TaskId,
    pub service: ServiceId,
    pub service_name: String,
    pub service_labels: BTreeMap<String, String>,
    pub slot: u32,
    pub desired: DesiredState,
    pub address: Ipv4Addr,
    pub spec: Arc<TaskSpec>,
    /// With every published number filled in.
    pub ports: Vec<PortSpec>,
}

impl Assignment {
    /// Whether both cannot run on one node at a time: they have the same address, or a port of the node.
    pub fn excludes(&self, other: &Self) -> bool {
        let ports = |ports: &[PortSpec]| -> Vec<_> {
            let host = ports.iter().filter(|port| port.mode == PortMode::Host);
            host.map(|port| (port.protocol, port.published)).collect()
        };
        let own = ports(&self.ports);
        self.address == other.address
            || !own.is_empty() && ports(&other.ports).iter().any(|port| own.contains(port))
    }
}

/// Change of the routing mesh: which nodes there are, and which task addresses stand behind each published port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshDelta {
    /// `None`: this is everything.
    pub base: Option<TableVersion>,
    pub version: TableVersion,
    /// Node number to its underlay address; `None` removes it.
    pub nodes: BTreeMap<u16, Option<Ipv4Addr>>,
    /// Ingress port to all its backends (an empty list: published, but nothing runs); `None` removes it.
    pub ports: BTreeMap<(Protocol, u16), Option<Vec<SocketAddrV4>>>,
}

/// Which logs an agent is to send, by a separate call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSubscription {
    pub id: u64,
    /// Tasks of this node.
    pub tasks: Vec<TaskId>,
    pub follow: bool,
    /// Last lines per task; `None`: all that is kept.
    pub tail: Option<u64>,
    /// Only lines after this time, microseconds since the Unix epoch.
    pub since_micros: Option<u64>,
}
