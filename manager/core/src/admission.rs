//! Admission: turns a write of the API into actions, or refuses it with everything left as it is.
//!
//! What needs no store was checked before (`ServiceSpec::validate`). What is checked here against the applied state is
//! checked again when the entry is applied, because other entries may come between; the answer is made only then.

mod cluster;
mod image;
mod node;
mod operator;
mod reservations;
mod service;
#[cfg(test)]
mod tests;

use swarm_model::{Actor, Id, NodeId, NodeState, OperatorId, ServiceId, Timestamp};

use crate::api::{ApiError, Kind, Request};
use crate::members::Council;
use crate::store::{Action, ApplyError, Store};

pub(crate) use cluster::no_cluster;
pub(crate) use image::image_not_found;
pub(crate) use reservations::{Reservations, Reserved};
pub(crate) use service::automatic_rollback;

/// Services of one cluster.
pub(crate) const MAX_SERVICES: usize = 100_000;
/// Tasks wanted in one cluster: at 1 to 2 KiB of a manager's memory each, 2 GiB.
pub(crate) const MAX_TASKS: u64 = 1_000_000;
/// Names in the image store.
pub(crate) const MAX_IMAGES: usize = 10_000;
/// A service's spec, encoded. Ten revisions of it are kept.
pub(crate) const MAX_SPEC_BYTES: u64 = 1 << 20;
/// Labels of a node, and the bytes of all of them.
pub(crate) const MAX_NODE_LABELS: usize = 256;
pub(crate) const MAX_NODE_LABEL_BYTES: u64 = 64 << 10;

/// What admission looks at.
pub(crate) struct Desk<'a> {
    pub store: &'a Store,
    pub now: Timestamp,
    /// On whose behalf.
    pub by: Option<&'a Actor>,
    /// The leader's view of a node.
    pub node_state: &'a dyn Fn(NodeId) -> NodeState,
    pub council: &'a Council,
    /// Held by writes that are under way.
    pub reservations: &'a Reservations,
    pub draw_id: &'a mut dyn FnMut() -> Id,
}

/// A write that may be proposed.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub actions: Vec<Action>,
    pub reserved: Reserved,
    pub answer: Answer,
}

/// What to answer once the entry is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Cluster,
    Secrets,
    Node(NodeId),
    Service(ServiceId),
    Image(String),
    Member(NodeId),
    Operator(OperatorId),
}

/// Decided at once.
#[derive(Debug)]
pub(crate) enum Verdict {
    Propose(Admitted),
    /// It was done before: the answer can be read from the store.
    AlreadyDone(Answer),
}

impl Admitted {
    fn one(action: Action, answer: Answer) -> Verdict {
        Verdict::Propose(Self { actions: vec![action], reserved: Reserved::default(), answer })
    }
}

impl Desk<'_> {
    pub fn admit(&mut self, request: Request) -> Result<Verdict, ApiError> {
        match request {
            Request::CreateCluster(create) => self.create_cluster(*create),
            Request::RotateJoinSecret { role, secret } => self.rotate_join_secret(role, secret),
            Request::SetCertificateLife { life } => self.set_certificate_life(life),
            Request::RotateRoot { base, rotation } => self.rotate_root(base, rotation),
            Request::SetAutolock { unlock_key } => self.set_autolock(unlock_key),
            Request::AdmitNode(node) => self.admit_node(node),
            Request::UpdateNode { node, version, spec } => self.update_node(&node, version, spec),
            Request::RemoveNode { node, force } => self.remove_node(&node, force),
            Request::SeatManager { node, address } => self.seat_manager(node, address),
            Request::CreateService { spec, request_id } => self.create_service(spec, request_id),
            Request::UpdateService { service, version, spec } => self.update_service(&service, version, spec),
            Request::RollbackService { service, version, to_revision } => {
                self.rollback_service(&service, version, to_revision)
            }
            Request::RemoveService { service } => self.remove_service(&service),
            Request::InviteOperator(invite) => self.invite_operator(invite),
            Request::EnrolOperator { secret, key } => self.enrol_operator(secret, key),
            Request::RenewOperator { operator } => self.renew_operator(operator),
            Request::RemoveOperator { operator } => self.remove_operator(&operator),
            Request::PutImage(image) => self.put_image(image),
            Request::RemoveImage { name, force } => self.remove_image(&name, force),
            Request::GetCluster
            | Request::GetClusterSecrets
            | Request::ListNodes
            | Request::GetNode { .. }
            | Request::ListServices
            | Request::GetService { .. }
            | Request::ListTasks { .. }
            | Request::GetTask { .. }
            | Request::ListImages
            | Request::GetImage { .. }
            | Request::GetMember { .. }
            | Request::GetImageRoots
            | Request::GetNodeImages { .. }
            | Request::Peek(_)
            | Request::Capture
            | Request::GetOwnState
            | Request::ListOperators
            | Request::ListEvents(_)
            | Request::Snapshot { .. } => unreachable!("reads are answered, never admitted"),
        }
    }
}

impl Request {
    /// Reads that need nothing that only the leader knows.
    pub(crate) fn is_replicated(&self) -> bool {
        matches!(
            self,
            Self::GetClusterSecrets
                | Self::ListImages
                | Self::GetMember { .. }
                | Self::GetImageRoots
                | Self::GetNodeImages { .. }
                | Self::ListOperators
                | Self::ListEvents(_)
        )
    }

    /// Whether it adds to what a manager has to store. What removes something must go on when the disk is nearly full.
    pub fn needs_space(&self) -> bool {
        let removes = matches!(
            self,
            Self::RemoveNode { .. }
                | Self::RemoveService { .. }
                | Self::RemoveImage { .. }
                | Self::RemoveOperator { .. }
        );
        !removes && !self.is_read()
    }

    pub fn is_read(&self) -> bool {
        match self {
            Self::GetCluster
            | Self::GetClusterSecrets
            | Self::ListNodes
            | Self::GetNode { .. }
            | Self::ListServices
            | Self::GetService { .. }
            | Self::ListTasks { .. }
            | Self::GetTask { .. }
            | Self::ListImages
            | Self::GetImage { .. }
            | Self::GetMember { .. }
            | Self::GetImageRoots
            | Self::GetNodeImages { .. }
            | Self::Peek(_)
            | Self::Capture
            | Self::GetOwnState
            | Self::ListOperators
            | Self::ListEvents(_)
            | Self::Snapshot { .. } => true,
            Self::CreateCluster(_)
            | Self::RotateJoinSecret { .. }
            | Self::RotateRoot { .. }
            | Self::SetCertificateLife { .. }
            | Self::SetAutolock { .. }
            | Self::AdmitNode(_)
            | Self::UpdateNode { .. }
            | Self::RemoveNode { .. }
            | Self::SeatManager { .. }
            | Self::CreateService { .. }
            | Self::UpdateService { .. }
            | Self::RollbackService { .. }
            | Self::RemoveService { .. }
            | Self::InviteOperator(_)
            | Self::EnrolOperator { .. }
            | Self::RenewOperator { .. }
            | Self::RemoveOperator { .. }
            | Self::PutImage(_)
            | Self::RemoveImage { .. } => false,
        }
    }
}

/// The operator's words for what came between admission and apply.
pub(crate) fn refusal(error: ApplyError, answer: &Answer) -> ApiError {
    let kind = match answer {
        Answer::Node(_) | Answer::Member(_) => Kind::Node,
        Answer::Service(_) => Kind::Service,
        Answer::Image(_) => Kind::Image,
        Answer::Operator(_) => Kind::Operator,
        Answer::Cluster | Answer::Secrets | Answer::Done => Kind::Cluster,
    };
    match error {
        ApplyError::OutOfSequence { given, current } => ApiError::OutOfSequence { kind, given, current },
        ApplyError::NameTaken(name) => name_taken(&name, "a service created at the same moment"),
        ApplyError::PortTaken(port) => ApiError::AlreadyExists {
            what: format!("published port {port}"),
            holder: "a service created at the same moment".to_owned(),
            advice: "publish another port",
        },
        ApplyError::Gone(what) => ApiError::FailedPrecondition(format!(
            "the {what} was removed at the same moment; nothing was changed"
        )),
        ApplyError::LastManager => ApiError::FailedPrecondition(
            "it is the last manager by now; without one there is no cluster".to_owned(),
        ),
        ApplyError::TokenSpent => operator::token_refused(),
        other @ (ApplyError::ClusterExists
        | ApplyError::NoCluster
        | ApplyError::IdTaken(_)
        | ApplyError::NodeIndexTaken(_)
        | ApplyError::HasTasks
        | ApplyError::OtherRevision
        | ApplyError::BadAddress
        | ApplyError::NotPlaceable
        | ApplyError::NotSeatable
        | ApplyError::WouldFall) => ApiError::FailedPrecondition(format!(
            "{other}: something else was changed at the same moment; repeat it"
        )),
    }
}

fn name_taken(name: &str, holder: &str) -> ApiError {
    ApiError::AlreadyExists {
        what: format!("the name {name:?}"),
        holder: holder.to_owned(),
        advice: "choose another name, or remove that service first",
    }
}
