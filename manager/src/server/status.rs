//! Refusals as gRPC statuses. The message is the operator's text; a status of a manager that does not lead names the
//! leader's address in the trailer `swarm-leader`.

use http::HeaderMap;
use swarm_manager_core::api::ApiError;
use swarm_model::{NodeId, Timestamp};
use swarm_proto::convert::ConvertError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::images::ImageError;
use crate::text::chain;

const LEADER_TRAILER: &str = "swarm-leader";
/// When the calling node was removed, microseconds since 1970.
const REMOVED_TRAILER: &str = "swarm-removed";

/// For calls of operators.
pub fn from_api(error: &ApiError) -> Status {
    let code = match error {
        ApiError::NotFound { .. } => Code::NotFound,
        ApiError::AlreadyExists { .. } => Code::AlreadyExists,
        ApiError::Ambiguous { .. } | ApiError::Invalid(_) | ApiError::TooLarge { .. } => {
            Code::InvalidArgument
        }
        ApiError::OutOfSequence { .. } => Code::Aborted,
        ApiError::FailedPrecondition(_) => Code::FailedPrecondition,
        ApiError::EventsGone { .. } => Code::OutOfRange,
        ApiError::Denied(_) => Code::PermissionDenied,
        ApiError::NotLeader { .. } | ApiError::Unavailable(_) => Code::Unavailable,
    };
    let mut status = Status::new(code, chain(error));
    if let ApiError::NotLeader { .. } = error {
        status.metadata_mut().insert(LEADER_TRAILER, MetadataValue::from_static(""));
    }
    status
}

/// Whether a manager answered that it does not lead, and so has done nothing.
pub fn is_not_leader(headers: &HeaderMap) -> bool {
    headers.contains_key(LEADER_TRAILER)
}

pub fn from_convert(error: &ConvertError) -> Status {
    Status::invalid_argument(chain(error))
}

pub fn from_image(error: &ImageError) -> Status {
    let code = match error {
        ImageError::Api(error) => return from_api(error),
        ImageError::Name { .. } | ImageError::Import(_) | ImageError::Nameless => Code::InvalidArgument,
        ImageError::Unknown { .. } => Code::NotFound,
        ImageError::Unreachable { .. } | ImageError::NotGiven { .. } | ImageError::Refused { .. } => {
            Code::FailedPrecondition
        }
        ImageError::Busy => Code::ResourceExhausted,
        ImageError::Store(_) | ImageError::Interrupted => Code::Internal,
    };
    Status::new(code, chain(error))
}

/// For a node that was removed: it is to stop what it runs, and to ask no more.
pub fn refuse_removed(node: NodeId, at: Timestamp) -> Status {
    let mut status = Status::permission_denied(format!("node {node} was removed from the cluster"));
    status.metadata_mut().insert(REMOVED_TRAILER, at.as_micros().into());
    status
}

/// For nodes, which go to the leader that the trailer names; empty where it is not known.
pub fn not_leader(message: String, leader: Option<&str>) -> Status {
    let mut status = Status::failed_precondition(message);
    if let Ok(address) = leader.unwrap_or_default().parse() {
        status.metadata_mut().insert(LEADER_TRAILER, address);
    }
    status
}
