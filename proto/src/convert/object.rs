//! Services, tasks, images: towards operators only, but for statuses, which agents send.

use swarm_model as model;
use swarm_model::Timestamp;

use super::{ConvertError, address_text, invalid, time_or_zero};
use crate::v1 as wire;

pub(super) fn meta(version: u64, created_at: Timestamp, updated_at: Timestamp) -> wire::Meta {
    wire::Meta { version, created_at: created_at.as_micros(), updated_at: updated_at.as_micros() }
}

/// The replicated half; the caller adds the counts of tasks.
impl From<&model::Service> for wire::Service {
    fn from(service: &model::Service) -> Self {
        Self {
            id: service.id.to_string(),
            meta: Some(meta(service.version, service.created_at, service.updated_at)),
            spec: Some(service.spec.as_ref().into()),
            revision: service.revision,
            ports: service.ports.iter().map(Into::into).collect(),
            update: service.update.as_ref().map(Into::into),
            running_tasks: 0,
            desired_tasks: service.replicas(),
            revisions: service.revisions.keys().copied().collect(),
        }
    }
}

impl From<&model::UpdateStatus> for wire::UpdateStatus {
    fn from(status: &model::UpdateStatus) -> Self {
        use wire::update_status::State;
        let state = match status.state {
            model::UpdateState::Updating => State::Updating,
            model::UpdateState::Paused => State::Paused,
            model::UpdateState::Completed => State::Completed,
            model::UpdateState::RollbackStarted => State::RollbackStarted,
            model::UpdateState::RollbackPaused => State::RollbackPaused,
            model::UpdateState::RollbackCompleted => State::RollbackCompleted,
        };
        Self {
            state: state as i32,
            started_at: status.started_at.as_micros(),
            completed_at: time_or_zero(status.completed_at),
            message: status.message.clone(),
            from_revision: status.from_revision,
            to_revision: status.to_revision,
        }
    }
}

/// The replicated half; the caller adds names, status, image and spec.
impl From<&model::Task> for wire::Task {
    fn from(task: &model::Task) -> Self {
        Self {
            id: task.id.to_string(),
            meta: Some(meta(task.version, task.created_at, task.desired_since)),
            service_id: task.service.to_string(),
            slot: task.slot,
            revision: task.revision,
            node_id: task.node.map(|node| node.to_string()).unwrap_or_default(),
            address: address_text(task.address),
            desired: wire_desired(task.desired),
            desired_since: task.desired_since.as_micros(),
            not_before: time_or_zero(task.not_before),
            restarts: task.restarts,
            ..Self::default()
        }
    }
}

pub(super) fn wire_desired(desired: model::DesiredState) -> i32 {
    i32::from(desired as i16)
}

pub(super) fn desired(number: i32) -> Result<model::DesiredState, ConvertError> {
    u32::try_from(number)
        .ok()
        .and_then(model::DesiredState::from_number)
        .ok_or_else(|| invalid("desired state", number))
}

/// The model's state for a number of the wire.
///
/// # Errors
/// A number that no state has.
pub fn task_state_from_wire(number: i32) -> Result<model::TaskState, ConvertError> {
    u32::try_from(number)
        .ok()
        .and_then(model::TaskState::from_number)
        .ok_or_else(|| invalid("task state", number))
}

impl TryFrom<wire::TaskStatus> for model::TaskStatus {
    type Error = ConvertError;

    fn try_from(status: wire::TaskStatus) -> Result<Self, ConvertError> {
        Ok(Self {
            state: task_state_from_wire(status.state)?,
            at: Timestamp::from_micros(status.at),
            message: bounded(status.message),
            error: bounded(status.error),
            exit_code: status.exit_code,
            oom_killed: status.oom_killed,
            pid: Some(status.pid).filter(|pid| *pid != 0),
        })
    }
}

impl From<&model::TaskStatus> for wire::TaskStatus {
    fn from(status: &model::TaskStatus) -> Self {
        Self {
            state: i32::from(status.state as i16),
            at: status.at.as_micros(),
            message: status.message.clone(),
            error: status.error.clone(),
            exit_code: status.exit_code,
            oom_killed: status.oom_killed,
            pid: status.pid.unwrap_or(0),
        }
    }
}

/// How a task ended, in the form of its last status.
impl From<&model::Outcome> for wire::TaskStatus {
    fn from(outcome: &model::Outcome) -> Self {
        Self {
            state: i32::from(outcome.state as i16),
            at: outcome.at.as_micros(),
            message: String::new(),
            error: outcome.reason.clone(),
            exit_code: outcome.exit_code,
            oom_killed: outcome.oom_killed,
            pid: 0,
        }
    }
}

impl From<&model::Image> for wire::Image {
    fn from(image: &model::Image) -> Self {
        Self {
            name: image.name.clone(),
            meta: Some(meta(image.version, image.created_at, image.created_at)),
            digest: image.digest.clone(),
            total_bytes: image.total_bytes,
            platform: Some((&image.platform).into()),
        }
    }
}

/// Agents are not trusted with the leader's memory: texts of a status are cut.
fn bounded(mut text: String) -> String {
    const MAX_BYTES: usize = 2_048;
    if text.len() > MAX_BYTES {
        text.truncate((0..=MAX_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0));
    }
    text
}
