//! Nodes and their specs.

use swarm_model as model;

use super::{ConvertError, invalid, parse, required};
use crate::v1 as wire;

impl TryFrom<wire::NodeSpec> for model::NodeSpec {
    type Error = ConvertError;

    fn try_from(spec: wire::NodeSpec) -> Result<Self, ConvertError> {
        let role = wire::NodeRole::try_from(spec.role).map_err(|_| invalid("role", spec.role))?;
        let availability = wire::NodeAvailability::try_from(spec.availability)
            .map_err(|_| invalid("availability", spec.availability))?;
        Ok(Self { role: role.into(), availability: availability.into(), labels: spec.labels })
    }
}

impl From<&model::NodeSpec> for wire::NodeSpec {
    fn from(spec: &model::NodeSpec) -> Self {
        Self {
            role: wire::NodeRole::from(spec.role) as i32,
            availability: wire::NodeAvailability::from(spec.availability) as i32,
            labels: spec.labels.clone(),
        }
    }
}

impl From<wire::NodeRole> for model::NodeRole {
    fn from(role: wire::NodeRole) -> Self {
        match role {
            wire::NodeRole::Unspecified | wire::NodeRole::Worker => Self::Worker,
            wire::NodeRole::Manager => Self::Manager,
        }
    }
}

impl From<model::NodeRole> for wire::NodeRole {
    fn from(role: model::NodeRole) -> Self {
        match role {
            model::NodeRole::Worker => Self::Worker,
            model::NodeRole::Manager => Self::Manager,
        }
    }
}

impl From<wire::NodeAvailability> for model::Availability {
    fn from(availability: wire::NodeAvailability) -> Self {
        match availability {
            wire::NodeAvailability::Unspecified | wire::NodeAvailability::Active => Self::Active,
            wire::NodeAvailability::Pause => Self::Pause,
            wire::NodeAvailability::Drain => Self::Drain,
        }
    }
}

impl From<model::Availability> for wire::NodeAvailability {
    fn from(availability: model::Availability) -> Self {
        match availability {
            model::Availability::Active => Self::Active,
            model::Availability::Pause => Self::Pause,
            model::Availability::Drain => Self::Drain,
        }
    }
}

impl From<model::NodeState> for wire::NodeState {
    fn from(state: model::NodeState) -> Self {
        match state {
            model::NodeState::Unknown => Self::Unknown,
            model::NodeState::Ready => Self::Ready,
            model::NodeState::Down => Self::Down,
        }
    }
}

impl TryFrom<wire::EngineDescription> for model::EngineDescription {
    type Error = ConvertError;

    fn try_from(engine: wire::EngineDescription) -> Result<Self, ConvertError> {
        Ok(Self {
            hostname: engine.hostname,
            platform: required("platform", engine.platform)?.into(),
            resources: engine.resources.unwrap_or_default().into(),
            labels: engine.labels,
            data_address: parse("data address", &engine.data_address)?,
            version: engine.version,
        })
    }
}

impl From<&model::EngineDescription> for wire::EngineDescription {
    fn from(engine: &model::EngineDescription) -> Self {
        Self {
            hostname: engine.hostname.clone(),
            platform: Some((&engine.platform).into()),
            resources: Some(engine.resources.into()),
            labels: engine.labels.clone(),
            data_address: engine.data_address.to_string(),
            version: engine.version.clone(),
        }
    }
}

/// The replicated half; the caller adds what was observed (state, reservations, leader).
impl From<&model::Node> for wire::Node {
    fn from(node: &model::Node) -> Self {
        Self {
            id: node.id.to_string(),
            meta: Some(super::object::meta(node.version, node.created_at, node.updated_at)),
            spec: Some((&node.spec).into()),
            engine: Some((&node.engine).into()),
            index: node.index.into(),
            manager_address: node.manager_address.clone().unwrap_or_default(),
            ..Self::default()
        }
    }
}
