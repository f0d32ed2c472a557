//! A node: a member of the cluster.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{NodeId, Resources, Timestamp};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeRole {
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Availability {
    Active,
    /// Keeps what it has, gets nothing new.
    Pause,
    /// Is emptied.
    Drain,
}

/// Whether the node's agent is there. Observed by the leader, never replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// Not heard of since this leader took over, and its grace period is not over.
    Unknown,
    Ready,
    Down,
}

/// What the operator sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub role: NodeRole,
    pub availability: Availability,
    pub labels: BTreeMap<String, String>,
}

/// Operating system and architecture, in Go's names (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub arch: String,
}

/// What the node says about itself when its session opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineDescription {
    pub hostname: String,
    pub platform: Platform,
    pub resources: Resources,
    /// Labels from the node's own configuration.
    pub labels: BTreeMap<String, String>,
    /// Underlay address of the data path.
    pub data_address: Ipv4Addr,
    /// Version of swarmd.
    pub version: String,
}

/// A node as the managers hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// Log index of the last change; an update must name it.
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub spec: NodeSpec,
    pub engine: EngineDescription,
    /// Number of its address block, 1 to 4095; unique among members.
    pub index: u16,
    /// Offset in its block where the search for the next task's address begins, so that addresses are reused late.
    pub next_address: u16,
    /// For managers: `host:port` where its API and Raft answer.
    pub manager_address: Option<String>,
    /// For managers: its number among the Raft members. A node that becomes a manager again gets another one.
    #[serde(default)]
    pub raft_id: Option<u64>,
}

/// Longest life of a node's certificate: Swarm's default.
pub const MAX_CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What is kept of a node that was removed, for as long as a certificate of it may be valid: so long it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    pub at: Timestamp,
    /// From here on, none of its certificates is valid.
    pub until: Timestamp,
}

impl RemovedNode {
    /// Clocks of managers may differ by so much.
    const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

    pub fn new(at: Timestamp) -> Self {
        Self { at, until: at + MAX_CERTIFICATE_LIFE + Self::MARGIN }
    }
}

impl Node {
    /// What the node acts as now: a demoted manager goes on until it was taken out of the Raft members.
    pub fn acting_role(&self) -> NodeRole {
        if self.raft_id.is_some() { NodeRole::Manager } else { self.spec.role }
    }
}

impl Platform {
    /// The one name used for an architecture: `amd64` for `x86_64`, `arm64` for `aarch64`, else lower case.
    pub fn canonical_arch(arch: &str) -> String {
        match arch.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        }
    }
}
