//! The typed operations of the API: one service layer, to which gRPC is one door.
//!
//! Every [`Request`] is answered by the [`Response`] variant that its documentation names, after the change is committed
//! and applied, or by an [`ApiError`] whose text is written for the operator. Fields called `node`, `service`, `task`
//! take an id, a unique prefix of one, or a name.

mod error;
mod view;

use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use swarm_model::{
    ClusterId, EngineDescription, Id, Image, JoinSecrets, NodeId, NodeRole, NodeSpec, OperatorAccount,
    OperatorId, OperatorRole, RootRotation, Secret, ServiceSpec,
};

pub use crate::store::{After, Capture, EventQuery};
pub use error::{ApiError, Kind};
pub use view::{
    Change, ClusterView, EventView, ManagerStatus, NodeView, OwnState, RotationView, ServiceView, TaskView,
    Waiting,
};

/// An operation.
#[derive(Debug, Clone)]
pub enum Request {
    /// Bootstrap: makes this manager the only Raft member and writes the cluster object and its first node. Repeating it
    /// with the same cluster id answers the same. -> `Cluster`
    CreateCluster(Box<CreateCluster>),
    /// -> `Cluster`
    GetCluster,
    /// Root key and join secrets; for the shell's certificate authority only. -> `Secrets`
    GetClusterSecrets,
    /// Replaces one join secret; the old one is refused from then on. -> `Secrets`
    RotateJoinSecret { role: NodeRole, secret: String },
    /// Of certificates from now on. -> `Cluster`
    SetCertificateLife { life: Duration },
    /// A root that the shell made to replace that of the cluster at version `base`; one that is under way is begun anew.
    /// -> `Cluster`
    RotateRoot { base: u64, rotation: Box<RootRotation> },
    /// Whether managers lock their disks: with that key from now on, or not. -> `Secrets`
    SetAutolock { unlock_key: Option<Secret> },
    /// After the shell verified a join token. Repeating it answers the same node. -> `Node`
    AdmitNode(NewNode),
    /// -> `Nodes`
    ListNodes,
    /// -> `Node`
    GetNode { node: String },
    /// -> `Node`
    UpdateNode { node: String, version: u64, spec: NodeSpec },
    /// Unless forced, only a node that is down and no manager. -> `Done`
    RemoveNode { node: String, force: bool },
    /// A node that was promoted has its manager's certificate and answers at `address`. -> `Member`
    SeatManager { node: NodeId, address: String },
    /// A member as it is stored. Answered by followers too. -> `Member`
    GetMember { node: NodeId },
    /// The spec is valid by itself; `request_id` becomes the service's id, so that a repeated request answers the same
    /// service instead of making a second one. -> `Service`
    CreateService { spec: Arc<ServiceSpec>, request_id: Option<Id> },
    /// -> `Service`
    UpdateService { service: String, version: u64, spec: Arc<ServiceSpec> },
    /// `None`: the revision before. -> `Service`
    RollbackService { service: String, version: u64, to_revision: Option<u64> },
    /// Answered once it is decided, not done. -> `Done`
    RemoveService { service: String },
    /// -> `Services`
    ListServices,
    /// -> `Service`
    GetService { service: String },
    /// -> `Tasks`
    ListTasks { service: Option<String>, node: Option<String> },
    /// Also by `service.slot`: the newest task of the slot. -> `Task`
    GetTask { task: String },
    /// Makes an account whose token may be used once. -> `Operator`
    InviteOperator(InviteOperator),
    /// After the shell checked the signing request; digests of the token's secret and of the key. Repeating it with the
    /// same key answers the same. -> `Operator`
    EnrolOperator { secret: [u8; 32], key: [u8; 32] },
    /// Notes that a new certificate is given out. -> `Operator`
    RenewOperator { operator: OperatorId },
    /// By name or id. Their certificates are refused from then on. -> `Done`
    RemoveOperator { operator: String },
    /// Answered by followers too. -> `Operators`
    ListOperators,
    /// What happened, in order. Answered by followers too. -> `Events`
    ListEvents(EventQuery),
    /// Makes or moves a name of the cluster's image store; its blobs are on disk already. -> `Image`
    PutImage(Image),
    /// Unless forced, only an image that no service uses. -> `Done`
    RemoveImage { name: String, force: bool },
    /// -> `Images`
    ListImages,
    /// -> `Image`
    GetImage { name: String },
    /// What must stay in the image stores: what names, and services with their earlier revisions, stand for. Answered by
    /// followers too. -> `ImageRoots`
    GetImageRoots,
    /// The whole state, for a backup. -> `Capture`
    Capture,
    /// What the tasks of a member are of, in the cluster's own store. Answered by followers too. -> `ImageRoots`
    GetNodeImages { node: NodeId },
    /// A read of what is replicated, answered from what this manager has applied, without asking the others whether that is
    /// all. -> as the read that it holds
    Peek(Box<Request>),
    /// What this manager knows by itself: answered at once, with a leader or without. Not linearizable. -> `OwnState`
    GetOwnState,
    /// All that a watcher starts from, as changes; tasks only where they are wanted, they may be many. -> `Snapshot`
    Snapshot { service: Option<String>, tasks: bool },
}

#[derive(Debug, Clone)]
pub struct CreateCluster {
    pub id: ClusterId,
    /// PEM.
    pub root_certificate: String,
    /// PKCS#8 PEM.
    pub root_key: String,
    pub join: JoinSecrets,
    pub gateway_pool: Ipv4Net,
    /// Heartbeat interval for a small fleet, milliseconds; it grows with the fleet.
    pub heartbeat_ms: u32,
    /// This manager's own node.
    pub node: NewNode,
}

/// An operator about to be invited.
#[derive(Debug, Clone)]
pub struct InviteOperator {
    /// Empty: one is made up.
    pub name: String,
    pub role: OperatorRole,
    /// SHA-256 of the token's secret.
    pub secret: [u8; 32],
    /// How long the token may be used.
    pub token_life: Duration,
}

/// A node about to become a member.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Made from the node's public key with [`NewNode::id_of_key`], so that a repeated join finds its own record.
    pub id: NodeId,
    pub role: NodeRole,
    pub engine: EngineDescription,
    /// `host:port`, for managers.
    pub manager_address: Option<String>,
}

impl NewNode {
    /// The node id that belongs to a public key: the first 128 bits of its SHA-256 digest.
    pub fn id_of_key(sha256: &[u8; 32]) -> NodeId {
        let (head, _) = sha256.split_first_chunk::<16>().expect("32 bytes hold 16");
        NodeId::from_u128(u128::from_be_bytes(*head))
    }
}

/// The answer to a [`Request`].
#[derive(Debug, Clone)]
pub enum Response {
    Done,
    Cluster(ClusterView),
    Secrets(Arc<swarm_model::Cluster>),
    Node(NodeView),
    Nodes(Vec<NodeView>),
    Service(ServiceView),
    Services(Vec<ServiceView>),
    Task(TaskView),
    Tasks(Vec<TaskView>),
    Image(Arc<Image>),
    Images(Vec<Arc<Image>>),
    Member(Arc<swarm_model::Node>),
    Capture(Capture),
    OwnState(OwnState),
    Operator(Arc<OperatorAccount>),
    Operators(Vec<Arc<OperatorAccount>>),
    Events(Vec<EventView>),
    /// Digests.
    ImageRoots(Vec<String>),
    /// `sequence` is that of the last publication that `changes` include.
    Snapshot {
        sequence: u64,
        index: u64,
        changes: Vec<Change>,
    },
}
