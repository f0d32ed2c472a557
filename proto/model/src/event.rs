//! What happened: who changed what, and what became of tasks. Made from the log's entries as they are applied.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Actor, NodeId, ServiceId, TaskId, TaskState, Timestamp};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at: EventId,
    pub time: Timestamp,
    pub what: Happening,
}

/// Where an event is in the order of all: the log entry that it is of, and its number among that entry's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    pub index: u64,
    pub position: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening {
    Change(Box<ChangeRecord>),
    Task(TaskRecord),
}

/// Something was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// `None`: the system itself.
    pub by: Option<Actor>,
    pub kind: ObjectKind,
    /// As `create`, `update`, `remove`.
    pub verb: String,
    pub id: String,
    pub name: String,
    /// For people, as `image nginx:1 -> nginx:2, replicas 3 -> 5`.
    pub difference: String,
}

/// Something became of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    pub task: TaskId,
    pub service: ServiceId,
    /// Shared by the events beside it.
    pub service_name: Arc<str>,
    pub slot: u32,
    pub node: Option<NodeId>,
    pub step: TaskStep,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskStep {
    /// Placed at once where there is a node.
    Created,
    Placed,
    Finished {
        state: TaskState,
        exit_code: Option<i32>,
        /// Seconds that it ran; `None`: it never did.
        ran_seconds: Option<u32>,
        /// Cause first; empty if all went well.
        reason: Box<str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    Cluster,
    Operator,
    Node,
    Service,
    Image,
    Task,
}

impl ObjectKind {
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Operator, Self::Node, Self::Service, Self::Image, Self::Task];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Operator => "operator",
            Self::Node => "node",
            Self::Service => "service",
            Self::Image => "image",
            Self::Task => "task",
        }
    }
}

impl EventId {
    /// Before all.
    pub const START: Self = Self { index: 0, position: 0 };

    /// Behind all events of an entry.
    pub fn end_of(index: u64) -> Self {
        Self { index, position: u32::MAX }
    }
}

impl Event {
    pub fn kind(&self) -> ObjectKind {
        match &self.what {
            Happening::Change(change) => change.kind,
            Happening::Task(_) => ObjectKind::Task,
        }
    }
}
