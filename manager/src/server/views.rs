//! The service layer's views on the wire.

use std::sync::Arc;

use swarm_manager_core::api::{Change, ClusterView, ManagerStatus, NodeView, ServiceView, TaskView, Waiting};
use swarm_model::Image;
use swarm_proto::v1;
use swarm_proto::v1::watch_event::Event;

pub fn cluster(view: &ClusterView) -> v1::Cluster {
    let cluster = &view.cluster;
    v1::Cluster {
        id: cluster.id.to_string(),
        meta: Some(v1::Meta {
            version: cluster.version,
            created_at: cluster.created_at.as_micros(),
            updated_at: cluster.updated_at.as_micros(),
        }),
        root_certificate: cluster.root_certificate.clone(),
        gateway_pool: cluster.gateway_pool.to_string(),
        heartbeat_ms: cluster.heartbeat_ms,
        managers: view.managers,
        nodes: view.nodes,
        services: view.services,
        tasks: view.tasks,
        leader_id: view.leader.map(|leader| leader.to_string()).unwrap_or_default(),
        raft_term: view.term,
        raft_applied: view.applied,
        autolock: cluster.autolock.unlock_key.is_some(),
        certificate_life: u64::try_from(cluster.certificate_life.as_micros()).unwrap_or(u64::MAX),
        rotation: cluster.rotation.as_ref().zip(view.rotation.as_ref()).map(|(rotation, progress)| {
            v1::RootRotation {
                started_at: rotation.started_at.as_micros(),
                root_certificate: rotation.root_certificate.clone(),
                done: progress.done,
                nodes: progress.nodes,
                waiting: progress.waiting.iter().map(waiting).collect(),
            }
        }),
    }
}

fn waiting(waiting: &Waiting) -> v1::root_rotation::Waiting {
    v1::root_rotation::Waiting {
        node_id: waiting.node.to_string(),
        hostname: waiting.hostname.clone(),
        reason: waiting.reason.clone(),
    }
}

pub fn service(view: &ServiceView) -> v1::Service {
    v1::Service { running_tasks: view.running, desired_tasks: view.desired, ..view.service.as_ref().into() }
}

pub fn node(view: &NodeView) -> v1::Node {
    v1::Node {
        state: v1::NodeState::from(view.state) as i32,
        state_message: view.message.clone(),
        leader: view.leader,
        manager_status: manager_status(view.manager) as i32,
        reserved: Some(view.reserved.into()),
        tasks: view.tasks,
        ..view.node.as_ref().into()
    }
}

fn manager_status(status: Option<ManagerStatus>) -> v1::ManagerStatus {
    match status {
        None => v1::ManagerStatus::Unspecified,
        Some(ManagerStatus::Joining) => v1::ManagerStatus::Joining,
        Some(ManagerStatus::Reachable) => v1::ManagerStatus::Reachable,
        Some(ManagerStatus::Unreachable) => v1::ManagerStatus::Unreachable,
        Some(ManagerStatus::Leader) => v1::ManagerStatus::Leader,
        Some(ManagerStatus::Leaving) => v1::ManagerStatus::Leaving,
    }
}

/// As lists and watches show it: without its spec.
pub fn task(view: &TaskView) -> v1::Task {
    let spec = view.spec.as_deref();
    v1::Task {
        service_name: view.service_name.to_string(),
        node_hostname: view.node_hostname.to_string(),
        status: Some((&view.status).into()),
        image: spec.map(|spec| spec.task.container.image.name.clone()).unwrap_or_default(),
        ports: spec.map(|spec| spec.ports.iter().map(Into::into).collect()).unwrap_or_default(),
        ..view.task.as_ref().into()
    }
}

pub fn task_with_spec(view: &TaskView) -> v1::Task {
    v1::Task { spec: view.spec.as_deref().map(|spec| (&spec.task).into()), ..task(view) }
}

pub fn images(images: &[Arc<Image>]) -> Vec<v1::Image> {
    images.iter().map(|image| image.as_ref().into()).collect()
}

/// `None`: a change of images, which are not watched.
pub fn change(change: &Change) -> Option<Event> {
    Some(match change {
        Change::Service(view) => Event::Service(service(view)),
        Change::Task(view) => Event::Task(task(view)),
        Change::Node(view) => Event::Node(node(view)),
        Change::ServiceRemoved(id) => Event::RemovedServiceId(id.to_string()),
        Change::TaskRemoved { task, .. } => Event::RemovedTaskId(task.to_string()),
        Change::NodeRemoved(id) => Event::RemovedNodeId(id.to_string()),
        Change::Image(_) | Change::ImageRemoved(_) => return None,
    })
}
