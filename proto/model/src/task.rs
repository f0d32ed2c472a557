//! A task: one attempt to run one slot of a service on one node. Never moved, never restarted.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{DesiredState, NodeId, ServiceId, TaskId, TaskState, Timestamp};

/// The replicated half: what was decided, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub service: ServiceId,
    /// 1 to n.
    pub slot: u32,
    /// Revision of the service's spec that it runs; see [`crate::Service::task_spec`].
    pub revision: u64,
    /// Log index of the last change.
    pub version: u64,
    pub created_at: Timestamp,
    /// When `desired` last rose.
    pub desired_since: Timestamp,
    pub desired: DesiredState,
    /// `None` while it waits for a node that fits.
    pub node: Option<NodeId>,
    /// Address on the node's gateway block; there exactly when `node` is.
    pub address: Option<Ipv4Addr>,
    /// Restart delay: desired rises from Ready to Running at this time.
    pub not_before: Option<Timestamp>,
    /// How often this slot was restarted in a row, for the back-off; 0 for the first task.
    pub restarts: u32,
    /// Set once, when it ended.
    pub outcome: Option<Outcome>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// A final state.
    pub state: TaskState,
    pub exit_code: Option<i32>,
    /// Whether the kernel killed it at its memory limit.
    #[serde(default)]
    pub oom_killed: bool,
    /// For the operator, cause first; empty if all went well.
    pub reason: String,
    pub at: Timestamp,
    /// When it was first seen running; `None` if never.
    pub ran_since: Option<Timestamp>,
}

/// The observed half: the newest report of the task's agent. Held by the leader, never replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub state: TaskState,
    /// When the state was reached, by the agent's clock.
    pub at: Timestamp,
    /// What it is doing, as "pulling 63 %".
    pub message: String,
    /// Cause first; empty if there is none.
    pub error: String,
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    /// Process id of the container's init on its node.
    pub pid: Option<u32>,
}

impl Task {
    /// Whether it may still run or be made to run: not ended, and wanted.
    pub fn is_live(&self) -> bool {
        self.outcome.is_none() && self.desired <= DesiredState::Running
    }
}
