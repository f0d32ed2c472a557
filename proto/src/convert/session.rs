//! The messages of a node's session.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model as model;

use super::object::{desired, wire_desired};
use super::spec::{protocol, shared, wire_protocol};
use super::{ConvertError, invalid, nonempty, nonzero, parse, port, required};
use crate::v1 as wire;

/// Of a root certificate's digest, in base36.
const MAX_DIGEST_BYTES: usize = 64;

/// What an agent may send as its first message, and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    Registration(model::Registration),
    Message(model::AgentMessage),
}

impl TryFrom<wire::AgentMessage> for FromAgent {
    type Error = ConvertError;

    fn try_from(message: wire::AgentMessage) -> Result<Self, ConvertError> {
        use wire::agent_message::Message;
        Ok(match required("agent message", message.message)? {
            Message::Registration(registration) => Self::Registration(model::Registration {
                engine: required("engine", registration.engine)?.try_into()?,
                statuses: statuses(registration.statuses)?,
            }),
            Message::Heartbeat(_) => Self::Message(model::AgentMessage::Heartbeat),
            Message::Statuses(list) => Self::Message(model::AgentMessage::Statuses(statuses(list.statuses)?)),
            Message::MeshApplied(version) => Self::Message(model::AgentMessage::MeshApplied(version.into())),
            Message::NeedFull(_) => Self::Message(model::AgentMessage::NeedFull),
            Message::Certified(certified) => {
                if certified.root_digest.len() > MAX_DIGEST_BYTES {
                    return Err(invalid("root digest", certified.root_digest.len()));
                }
                Self::Message(model::AgentMessage::Certified(certified.root_digest))
            }
        })
    }
}

impl From<&model::Registration> for wire::AgentMessage {
    fn from(registration: &model::Registration) -> Self {
        let registration = wire::Registration {
            engine: Some((&registration.engine).into()),
            statuses: wire_statuses(&registration.statuses),
        };
        Self { message: Some(wire::agent_message::Message::Registration(registration)) }
    }
}

impl From<&model::AgentMessage> for wire::AgentMessage {
    fn from(message: &model::AgentMessage) -> Self {
        use wire::agent_message::{Certified, Heartbeat, Message, NeedFull, Statuses};
        let message = match message {
            model::AgentMessage::Heartbeat => Message::Heartbeat(Heartbeat {}),
            model::AgentMessage::Statuses(list) => {
                Message::Statuses(Statuses { statuses: wire_statuses(list) })
            }
            model::AgentMessage::MeshApplied(version) => Message::MeshApplied((*version).into()),
            model::AgentMessage::NeedFull => Message::NeedFull(NeedFull {}),
            model::AgentMessage::Certified(root) => {
                Message::Certified(Certified { root_digest: root.clone() })
            }
        };
        Self { message: Some(message) }
    }
}

fn statuses(
    list: Vec<wire::ReportedStatus>,
) -> Result<Vec<(model::TaskId, model::TaskStatus)>, ConvertError> {
    list.into_iter()
        .map(|reported| {
            Ok((parse("task id", &reported.task_id)?, required("status", reported.status)?.try_into()?))
        })
        .collect()
}

fn wire_statuses(list: &[(model::TaskId, model::TaskStatus)]) -> Vec<wire::ReportedStatus> {
    list.iter()
        .map(|(task, status)| wire::ReportedStatus { task_id: task.to_string(), status: Some(status.into()) })
        .collect()
}

impl From<wire::TableVersion> for model::TableVersion {
    fn from(version: wire::TableVersion) -> Self {
        Self { epoch: version.epoch, number: version.number }
    }
}

impl From<model::TableVersion> for wire::TableVersion {
    fn from(version: model::TableVersion) -> Self {
        Self { epoch: version.epoch, number: version.number }
    }
}

impl TryFrom<wire::ManagerMessage> for model::ManagerMessage {
    type Error = ConvertError;

    fn try_from(message: wire::ManagerMessage) -> Result<Self, ConvertError> {
        use wire::manager_message::Message;
        Ok(match required("manager message", message.message)? {
            Message::Welcome(welcome) => Self::Welcome(model::Welcome {
                cluster: parse("cluster id", &welcome.cluster_id)?,
                node: parse("node id", &welcome.node_id)?,
                index: port("node index", welcome.index)?,
                gateway_pool: parse("gateway pool", &welcome.gateway_pool)?,
                heartbeat_ms: welcome.heartbeat_ms,
                role: wire::NodeRole::try_from(welcome.role)
                    .map_err(|_| invalid("role", welcome.role))?
                    .into(),
                managers: welcome.managers,
            }),
            Message::Assignments(delta) => Self::Assignments(delta.try_into()?),
            Message::Mesh(delta) => Self::Mesh(delta.try_into()?),
            Message::SubscribeLogs(logs) => Self::SubscribeLogs(model::LogSubscription {
                id: logs.id,
                tasks: logs.task_ids.iter().map(|id| parse("task id", id)).collect::<Result<_, _>>()?,
                follow: logs.follow,
                tail: logs.tail,
                since_micros: nonzero(logs.since),
            }),
            Message::CancelLogs(id) => Self::CancelLogs(id),
            Message::Heartbeat(beat) => Self::Heartbeat { heartbeat_ms: beat.heartbeat_ms },
            Message::Trust(trust) => Self::Trust(trust.root_certificates.into()),
            Message::Managers(managers) => Self::Managers(managers.addresses),
        })
    }
}

impl From<&model::ManagerMessage> for wire::ManagerMessage {
    fn from(message: &model::ManagerMessage) -> Self {
        use wire::manager_message::Message;
        let message = match message {
            model::ManagerMessage::Welcome(welcome) => Message::Welcome(wire::Welcome {
                cluster_id: welcome.cluster.to_string(),
                node_id: welcome.node.to_string(),
                index: welcome.index.into(),
                gateway_pool: welcome.gateway_pool.to_string(),
                heartbeat_ms: welcome.heartbeat_ms,
                role: wire::NodeRole::from(welcome.role) as i32,
                managers: welcome.managers.clone(),
            }),
            model::ManagerMessage::Assignments(delta) => Message::Assignments(delta.into()),
            model::ManagerMessage::Mesh(delta) => Message::Mesh(delta.into()),
            model::ManagerMessage::SubscribeLogs(logs) => Message::SubscribeLogs(wire::LogSubscription {
                id: logs.id,
                task_ids: logs.tasks.iter().map(ToString::to_string).collect(),
                follow: logs.follow,
                tail: logs.tail,
                since: logs.since_micros.unwrap_or(0),
            }),
            model::ManagerMessage::CancelLogs(id) => Message::CancelLogs(*id),
            model::ManagerMessage::Heartbeat { heartbeat_ms } => {
                Message::Heartbeat(wire::Heartbeat { heartbeat_ms: *heartbeat_ms })
            }
            model::ManagerMessage::Managers(addresses) => {
                Message::Managers(wire::Managers { addresses: addresses.clone() })
            }
            model::ManagerMessage::Trust(roots) => {
                Message::Trust(wire::Trust { root_certificates: roots.to_string() })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<wire::AssignmentsDelta> for model::AssignmentsDelta {
    type Error = ConvertError;

    fn try_from(delta: wire::AssignmentsDelta) -> Result<Self, ConvertError> {
        let specs = delta.specs.into_iter().map(shared).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            base: delta.base.map(Into::into),
            version: required("version", delta.version)?.into(),
            upsert: delta
                .upsert
                .into_iter()
                .map(|wire| assignment(wire, &specs))
                .collect::<Result<_, _>>()?,
            remove: delta.remove.iter().map(|id| parse("task id", id)).collect::<Result<_, _>>()?,
        })
    }
}

fn assignment(
    assignment: wire::Assignment,
    specs: &[Arc<model::TaskSpec>],
) -> Result<model::Assignment, ConvertError> {
    let spec = usize::try_from(assignment.spec).ok().and_then(|index| specs.get(index));
    Ok(model::Assignment {
        task: parse("task id", &assignment.task_id)?,
        service: parse("service id", &assignment.service_id)?,
        service_name: assignment.service_name,
        service_labels: assignment.service_labels,
        slot: assignment.slot,
        desired: desired(assignment.desired)?,
        address: parse("address", &assignment.address)?,
        spec: Arc::clone(spec.ok_or_else(|| invalid("spec index", assignment.spec))?),
        ports: assignment.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
    })
}

impl From<&model::AssignmentsDelta> for wire::AssignmentsDelta {
    fn from(delta: &model::AssignmentsDelta) -> Self {
        let mut specs = Vec::new();
        // Tasks of one revision share their spec's allocation, so its address tells whether it was sent already.
        let mut sent: BTreeMap<*const model::TaskSpec, u32> = BTreeMap::new();
        let upsert = delta
            .upsert
            .iter()
            .map(|assignment| wire::Assignment {
                task_id: assignment.task.to_string(),
                service_id: assignment.service.to_string(),
                service_name: assignment.service_name.clone(),
                service_labels: assignment.service_labels.clone(),
                slot: assignment.slot,
                desired: wire_desired(assignment.desired),
                address: assignment.address.to_string(),
                spec: *sent.entry(Arc::as_ptr(&assignment.spec)).or_insert_with(|| {
                    specs.push(assignment.spec.as_ref().into());
                    u32::try_from(specs.len() - 1).expect("fewer specs than assignments in a bounded message")
                }),
                ports: assignment.ports.iter().map(Into::into).collect(),
            })
            .collect();
        Self {
            base: delta.base.map(Into::into),
            version: Some(delta.version.into()),
            upsert,
            remove: delta.remove.iter().map(ToString::to_string).collect(),
            specs,
        }
    }
}

impl TryFrom<wire::MeshDelta> for model::MeshDelta {
    type Error = ConvertError;

    fn try_from(delta: wire::MeshDelta) -> Result<Self, ConvertError> {
        let node = |node: wire::MeshNode| {
            let address = nonempty(node.data_address).map(|text| parse("data address", &text)).transpose()?;
            Ok::<_, ConvertError>((port("node index", node.index)?, address))
        };
        let mesh_port = |wire: wire::MeshPort| {
            let key = (protocol(wire.protocol)?, port("published port", wire.published)?);
            let backends =
                wire.backends.iter().map(|text| parse("backend", text)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, ConvertError>((key, (!wire.removed).then_some(backends)))
        };
        Ok(Self {
            base: delta.base.map(Into::into),
            version: required("version", delta.version)?.into(),
            nodes: delta.nodes.into_iter().map(node).collect::<Result<_, _>>()?,
            ports: delta.ports.into_iter().map(mesh_port).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&model::MeshDelta> for wire::MeshDelta {
    fn from(delta: &model::MeshDelta) -> Self {
        let nodes = delta.nodes.iter().map(|(index, address)| wire::MeshNode {
            index: (*index).into(),
            data_address: super::address_text(*address),
        });
        let ports = delta.ports.iter().map(|((protocol, published), backends)| wire::MeshPort {
            protocol: wire_protocol(*protocol),
            published: (*published).into(),
            removed: backends.is_none(),
            backends: backends.iter().flatten().map(ToString::to_string).collect(),
        });
        Self {
            base: delta.base.map(Into::into),
            version: Some(delta.version.into()),
            nodes: nodes.collect(),
            ports: ports.collect(),
        }
    }
}
