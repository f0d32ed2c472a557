//! What a log entry holds: a list of actions, each complete in itself.
//!
//! The encoding is MessagePack with named fields behind a format byte, so that fields can be added (with
//! `#[serde(default)]`) without a new format, and an unknown format is recognised instead of misread.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_model::{
    Actor, Cluster, DesiredState, EngineDescription, Enrolment, Image, Node, NodeId, NodeRole, NodeSpec,
    OperatorAccount, OperatorId, Outcome, PortSpec, RootRotation, Secret, Service, ServiceId, ServiceSpec,
    TaskId, Timestamp, UpdateStatus,
};

/// First byte of every payload.
const FORMAT: u8 = 1;

/// One change of the store. Times and versions come from the entry that carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Action {
    /// Bootstrap; nothing where there is a cluster already.
    CreateCluster(Box<Cluster>),
    SetJoinSecret {
        role: NodeRole,
        secret: String,
    },
    SetCertificateLife {
        life: Duration,
    },
    /// Made from the cluster at version `base`; takes the place of one that is under way.
    BeginRootRotation {
        base: u64,
        rotation: Box<RootRotation>,
    },
    /// Nothing if another rotation began since.
    FinishRootRotation {
        root_digest: String,
    },
    /// `None`: managers are not locked any more.
    SetAutolock {
        unlock_key: Option<Secret>,
    },
    CreateNode(Box<Node>),
    UpdateNode {
        node: NodeId,
        base: u64,
        spec: NodeSpec,
    },
    DescribeNode {
        node: NodeId,
        engine: EngineDescription,
    },
    /// A node that was promoted has its manager's certificate: from here on it is to be a Raft member.
    SeatManager {
        node: NodeId,
        address: String,
        raft_id: u64,
    },
    /// A node that was demoted is no Raft member any more.
    UnseatManager {
        node: NodeId,
        raft_id: u64,
    },
    RemoveNode {
        node: NodeId,
    },
    CreateService(Box<Service>),
    /// `revision` is the current one, or the next if the task part of the spec changed.
    UpdateService(Box<ServiceUpdate>),
    /// Progress of an update, while the service still is at `revision`.
    SetUpdateStatus {
        service: ServiceId,
        revision: u64,
        update: UpdateStatus,
    },
    /// Frees its name and ports; its tasks are then stopped and forgotten.
    RemoveService {
        service: ServiceId,
    },
    /// Once its last task is gone.
    ForgetService {
        service: ServiceId,
    },
    CreateTask(NewTask),
    PlaceTask {
        task: TaskId,
        node: NodeId,
        address: Ipv4Addr,
    },
    SetDesired {
        task: TaskId,
        desired: DesiredState,
    },
    FinishTask {
        task: TaskId,
        outcome: Outcome,
    },
    ForgetTask {
        task: TaskId,
    },
    /// Takes the place of an account of the same name that has lapsed.
    InviteOperator(Box<OperatorAccount>),
    /// The token was used.
    EnrolOperator {
        operator: OperatorId,
        enrolment: Box<Enrolment>,
    },
    /// A new certificate was given out.
    RenewOperator {
        operator: OperatorId,
        valid_until: Timestamp,
    },
    RemoveOperator {
        operator: OperatorId,
        by: String,
    },
    PutImage(Image),
    RemoveImage {
        name: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceUpdate {
    pub service: ServiceId,
    /// Version of the service that it was made for.
    pub base: u64,
    pub spec: Arc<ServiceSpec>,
    pub revision: u64,
    pub ports: Vec<PortSpec>,
    pub update: Option<UpdateStatus>,
}

/// A task as it is created: placed in the same action where a node was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NewTask {
    pub id: TaskId,
    pub service: ServiceId,
    pub slot: u32,
    pub revision: u64,
    pub desired: DesiredState,
    pub place: Option<(NodeId, Ipv4Addr)>,
    pub not_before: Option<Timestamp>,
    pub restarts: u32,
}

/// What one log entry carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// The proposer's clock.
    pub at: Timestamp,
    /// Whose change it is; `None`: the system's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    pub actions: Vec<Action>,
}

/// A payload that this version cannot read. It is committed, so to go on without it would split the stores: fatal.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("log entry has format {0}, this version knows {FORMAT}: a newer manager wrote it")]
    Format(u8),
    #[error("log entry has no format byte")]
    Empty,
    #[error("log entry cannot be decoded")]
    Decode(#[source] rmp_serde::decode::Error),
}

impl Payload {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        rmp_serde::encode::write_named(&mut bytes, self).expect("plain data into memory always encodes");
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => rmp_serde::from_slice(rest).map_err(PayloadError::Decode),
            Some((&format, _)) => Err(PayloadError::Format(format)),
            None => Err(PayloadError::Empty),
        }
    }
}
