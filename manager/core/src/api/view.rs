//! Objects as operators and watchers see them: the replicated half with what the leader observes beside it. Cheap to
//! clone: everything large is shared.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{
    Cluster, Event, Image, Node, NodeId, NodeState, Resources, Service, ServiceId, ServiceSpec, Task, TaskId,
    TaskStatus,
};

use crate::store::Capture;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    pub cluster: Arc<Cluster>,
    pub managers: u32,
    pub nodes: u32,
    pub services: u32,
    pub tasks: u32,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub applied: u64,
    /// While the root is replaced.
    pub rotation: Option<RotationView>,
}

/// How far the rotation of the root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationView {
    /// Nodes with a certificate of the new root.
    pub done: u32,
    pub nodes: u32,
    /// Some of the others.
    pub waiting: Vec<Waiting>,
}

/// A node that a rotation waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub node: NodeId,
    pub hostname: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub node: Arc<Node>,
    pub state: NodeState,
    /// Why it is in that state; empty if there is nothing to say.
    pub message: String,
    /// Reserved by its tasks.
    pub reserved: Resources,
    /// Tasks there that may run.
    pub tasks: u32,
    pub leader: bool,
    /// `None`: it is no manager.
    pub manager: Option<ManagerStatus>,
}

/// What a manager is among the managers, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagerStatus {
    /// Has not the whole log yet, so it does not vote.
    Joining,
    Reachable,
    Unreachable,
    Leader,
    /// Was demoted, and still has to be taken out.
    Leaving,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    pub service: Arc<Service>,
    /// Tasks that are wanted to run and were seen running.
    pub running: u32,
    pub desired: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    pub task: Arc<Task>,
    /// Newest observation; its outcome once it ended; else what it waits for, in the scheduler's words.
    pub status: TaskStatus,
    pub service_name: Arc<str>,
    /// Empty while it has no node.
    pub node_hostname: Arc<str>,
    /// The service's spec as the task's revision has it; `None` once that revision was forgotten.
    pub spec: Option<Arc<ServiceSpec>>,
}

/// What one manager knows by itself. Others may know better.
#[derive(Debug, Clone)]
pub struct OwnState {
    /// As far as it has applied its log.
    pub capture: Capture,
    /// Entries behind that, which are not known to be committed.
    pub uncommitted: u64,
    pub term: u64,
    /// Raft id of the leader, if it knows one.
    pub leader: Option<u64>,
    /// Members that vote, by Raft id.
    pub voters: BTreeSet<u64>,
    /// Members that it heard of within the last moments, itself included.
    pub reachable: BTreeSet<u64>,
}

/// What a watcher sees: the object as it is now, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Service(ServiceView),
    Task(TaskView),
    Node(NodeView),
    Image(Arc<Image>),
    ServiceRemoved(ServiceId),
    TaskRemoved { task: TaskId, service: ServiceId },
    NodeRemoved(NodeId),
    ImageRemoved(String),
}

/// An event, with the name of its node where the node is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventView {
    pub event: Event,
    /// Empty where the event has no node, or it is gone.
    pub node_hostname: String,
}
