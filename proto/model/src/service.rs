//! A service: what the operator wants, and what the managers noted beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{PortSpec, ServiceId, TaskSpec, Timestamp, UpdatePolicy};

/// What the operator asked for. Never changed by the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub mode: ServiceMode,
    pub task: TaskSpec,
    pub ports: Vec<PortSpec>,
    pub update: UpdatePolicy,
    pub rollback: UpdatePolicy,
}

/// How many tasks, and where. Immutable but for the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    Replicated { replicas: u32 },
}

/// A service as the managers hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    /// Log index of the last change; an update must name it.
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub spec: Arc<ServiceSpec>,
    /// Number of the current revision: raised whenever the task part of the spec changes.
    pub revision: u64,
    /// Specs by revision, the current one included: the last [`Service::MAX_REVISIONS`], and any that a task still runs.
    pub revisions: BTreeMap<u64, Arc<ServiceSpec>>,
    /// The spec's ports with every published number filled in.
    pub ports: Vec<PortSpec>,
    pub update: Option<UpdateStatus>,
}

impl Service {
    /// Revisions kept for `rollback`.
    pub const MAX_REVISIONS: usize = 10;

    pub fn replicas(&self) -> u32 {
        match self.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
        }
    }

    /// The task spec of `revision`; `None` once it was forgotten.
    pub fn task_spec(&self, revision: u64) -> Option<&TaskSpec> {
        self.revisions.get(&revision).map(|spec| &spec.task)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

/// The last update or rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    pub state: UpdateState,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    /// For the operator: progress or the reason of a pause or rollback.
    pub message: String,
    /// Revision before, and the one that is rolled out.
    pub from_revision: u64,
    pub to_revision: u64,
}
