//! Objects as operators see them: what is replicated, with what the leader observes beside it.

use std::sync::Arc;

use swarm_model::{
    Event, Happening, Node, NodeId, NodeRole, PullSource, Service, Task, TaskState, TaskStatus, Timestamp,
};

use crate::admission::{image_not_found, no_cluster};
use crate::api::{
    ApiError, Change, ClusterView, EventQuery, EventView, Kind, NodeView, Request, Response, ServiceView,
    TaskView,
};
use crate::door::Config;
use crate::leader::Leader;
use crate::lookup;
use crate::members::Council;
use crate::store::{Gone, Store};
use crate::watch::Changed;

/// The store, and what the leader knows beside it.
pub(crate) struct Sight<'a> {
    pub store: &'a Store,
    pub leader: &'a Leader,
    pub council: &'a Council,
    /// The node of this manager, and its number among the members.
    pub node: NodeId,
    pub raft_id: u64,
}

impl<'a> Sight<'a> {
    pub fn of(store: &'a Store, leader: &'a Leader, council: &'a Council, config: &Config) -> Self {
        Self { store, leader, council, node: config.node_id, raft_id: config.raft_id }
    }

    /// What changed, each object as it is now.
    pub fn show(&self, changed: Changed) -> Vec<Change> {
        let Changed { services, tasks, nodes, images, removed: mut changes } = changed;
        let store = self.store;
        let nodes = nodes.into_iter().filter_map(|id| store.node(id));
        changes.extend(nodes.map(|node| Change::Node(self.node(node))));
        let services = services.into_iter().filter_map(|id| store.service(id));
        changes.extend(services.map(|service| Change::Service(self.service(service))));
        let tasks = tasks.into_iter().filter_map(|id| store.task(id));
        changes.extend(tasks.map(|task| Change::Task(self.task(task))));
        let images = images.iter().filter_map(|name| store.image(name));
        changes.extend(images.map(|image| Change::Image(Arc::clone(image))));
        changes
    }

    pub fn cluster(&self) -> Option<ClusterView> {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let managers = self.store.managers().filter(|node| node.spec.role == NodeRole::Manager).count();
        Some(ClusterView {
            cluster: self.store.cluster()?.clone(),
            managers: count(managers),
            nodes: count(self.store.nodes().len()),
            services: count(self.store.services().count()),
            tasks: count(self.store.task_count()),
            leader: Some(self.node),
            term: self.leader.term(),
            applied: self.store.applied(),
            rotation: self.leader.rotation(self.store),
        })
    }

    pub fn node(&self, node: &Arc<Node>) -> NodeView {
        let (reserved, tasks) = self.leader.reserved(node.id);
        NodeView {
            node: node.clone(),
            state: self.leader.fleet.state(node.id),
            message: self.leader.fleet.explain(node.id),
            reserved,
            tasks,
            leader: node.id == self.node,
            manager: self.council.status(node.raft_id, node.spec.role, self.raft_id),
        }
    }

    pub fn service(&self, service: &Arc<Service>) -> ServiceView {
        ServiceView {
            service: service.clone(),
            running: self.leader.running(service.id),
            desired: service.replicas(),
        }
    }

    pub fn task(&self, task: &Arc<Task>) -> TaskView {
        let record = self.store.service_record(task.service);
        let hostname =
            task.node.and_then(|node| self.store.node(node)).map_or("", |node| &node.engine.hostname);
        TaskView {
            status: self.status(task),
            service_name: record.map_or("", |record| &record.service.spec.name).into(),
            node_hostname: hostname.into(),
            spec: record.and_then(|record| record.service.revisions.get(&task.revision)).cloned(),
            task: task.clone(),
        }
    }

    fn status(&self, task: &Task) -> TaskStatus {
        if let Some(outcome) = &task.outcome {
            return TaskStatus {
                error: outcome.reason.clone(),
                exit_code: outcome.exit_code,
                oom_killed: outcome.oom_killed,
                ..status(outcome.state, outcome.at)
            };
        }
        if let Some(observed) = self.leader.observations.get(task.id) {
            return observed.status.clone();
        }
        if task.node.is_some() {
            return status(TaskState::Assigned, task.created_at);
        }
        let message = self.leader.refusal(task.service).unwrap_or_default().to_owned();
        TaskStatus { message, ..status(TaskState::Pending, task.created_at) }
    }
}

fn status(state: TaskState, at: Timestamp) -> TaskStatus {
    TaskStatus {
        state,
        at,
        message: String::new(),
        error: String::new(),
        exit_code: None,
        oom_killed: false,
        pid: None,
    }
}

/// Answers a read from the state as it is now.
pub(crate) fn read(sight: &Sight<'_>, request: Request, sequence: u64) -> Result<Response, ApiError> {
    let store = sight.store;
    Ok(match request {
        Request::GetCluster => Response::Cluster(sight.cluster().ok_or_else(no_cluster)?),
        Request::GetClusterSecrets => Response::Secrets(store.cluster().cloned().ok_or_else(no_cluster)?),
        Request::ListNodes => Response::Nodes(store.nodes().map(|node| sight.node(node)).collect()),
        Request::GetNode { node } => Response::Node(sight.node(lookup::node(store, &node)?)),
        Request::ListServices => Response::Services(store.services().map(|it| sight.service(it)).collect()),
        Request::GetService { service } => {
            Response::Service(sight.service(lookup::service(store, &service)?))
        }
        Request::ListTasks { service, node } => Response::Tasks(tasks(sight, service, node)?),
        Request::GetTask { task } => Response::Task(sight.task(lookup::task(store, &task)?)),
        Request::ListImages => Response::Images(store.images().cloned().collect()),
        Request::GetImage { name } => {
            Response::Image(store.image(&name).cloned().ok_or_else(|| image_not_found(store, &name))?)
        }
        Request::GetMember { node } => Response::Member(member(store, node)?),
        Request::GetImageRoots => Response::ImageRoots(image_roots(store)),
        Request::GetNodeImages { node } => Response::ImageRoots(node_images(store, node)?),
        Request::Capture => Response::Capture(store.capture(sight.leader.term())),
        Request::ListOperators => operators(store),
        Request::ListEvents(query) => events(store, &query)?,
        Request::Snapshot { service, tasks } => {
            Response::Snapshot { sequence, index: store.applied(), changes: snapshot(sight, service, tasks)? }
        }
        Request::Peek(_) => unreachable!("peeking waits for nobody"),
        Request::GetOwnState => unreachable!("answered before anything else"),
        Request::CreateCluster(_)
        | Request::RotateJoinSecret { .. }
        | Request::RotateRoot { .. }
        | Request::SetCertificateLife { .. }
        | Request::SetAutolock { .. }
        | Request::AdmitNode(_)
        | Request::UpdateNode { .. }
        | Request::RemoveNode { .. }
        | Request::SeatManager { .. }
        | Request::CreateService { .. }
        | Request::UpdateService { .. }
        | Request::RollbackService { .. }
        | Request::RemoveService { .. }
        | Request::InviteOperator(_)
        | Request::EnrolOperator { .. }
        | Request::RenewOperator { .. }
        | Request::RemoveOperator { .. }
        | Request::PutImage(_)
        | Request::RemoveImage { .. } => unreachable!("writes are admitted, never read"),
    })
}

/// Answers what needs nothing that only the leader knows; `None` for other reads.
pub(crate) fn read_replicated(store: &Store, request: &Request) -> Option<Result<Response, ApiError>> {
    Some(match request {
        Request::GetClusterSecrets => store.cluster().cloned().map(Response::Secrets).ok_or_else(no_cluster),
        Request::ListImages => Ok(Response::Images(store.images().cloned().collect())),
        Request::GetMember { node } => member(store, *node).map(Response::Member),
        Request::GetImageRoots => Ok(Response::ImageRoots(image_roots(store))),
        Request::GetNodeImages { node } => node_images(store, *node).map(Response::ImageRoots),
        Request::ListOperators => Ok(operators(store)),
        Request::ListEvents(query) => events(store, query),
        _ => return None,
    })
}

fn events(store: &Store, query: &EventQuery) -> Result<Response, ApiError> {
    let events = store
        .audit()
        .events(query)
        .map_err(|Gone { oldest }| ApiError::EventsGone { oldest: oldest.index })?;
    let hostname = |event: &Event| match &event.what {
        Happening::Task(task) => {
            task.node.and_then(|node| store.node(node)).map(|node| node.engine.hostname.clone())
        }
        Happening::Change(_) => None,
    };
    let view = |event| EventView { node_hostname: hostname(&event).unwrap_or_default(), event };
    Ok(Response::Events(events.into_iter().map(view).collect()))
}

fn operators(store: &Store) -> Response {
    Response::Operators(store.operators().accounts().cloned().collect())
}

fn member(store: &Store, node: NodeId) -> Result<Arc<Node>, ApiError> {
    let gone = || ApiError::NotFound { kind: Kind::Node, query: node.to_string(), candidates: Vec::new() };
    store.node(node).cloned().ok_or_else(gone)
}

/// Of tasks that were placed there and have not ended.
fn node_images(store: &Store, node: NodeId) -> Result<Vec<String>, ApiError> {
    member(store, node)?;
    let tasks = store.tasks_on_node(node).filter(|task| task.outcome.is_none());
    let specs = tasks.filter_map(|task| {
        store.service_record(task.service)?.service.revisions.get(&task.revision).cloned()
    });
    let ours = specs.filter(|spec| spec.task.container.image.source == PullSource::Cluster);
    let mut roots: Vec<String> = ours.filter_map(|spec| spec.task.container.image.digest.clone()).collect();
    roots.sort_unstable();
    roots.dedup();
    Ok(roots)
}

/// Of names, and of what services run or may roll back to.
fn image_roots(store: &Store) -> Vec<String> {
    let named = store.images().map(|image| image.digest.clone());
    let specs = store.services().flat_map(|service| service.revisions.values());
    let images = specs.map(|spec| &spec.task.container.image);
    let ours = images.filter(|image| image.source == PullSource::Cluster);
    let mut roots: Vec<String> = named.chain(ours.filter_map(|image| image.digest.clone())).collect();
    roots.sort_unstable();
    roots.dedup();
    roots
}

fn tasks(
    sight: &Sight<'_>,
    service: Option<String>,
    node: Option<String>,
) -> Result<Vec<TaskView>, ApiError> {
    let store = sight.store;
    let service = service.map(|query| lookup::service(store, &query)).transpose()?.map(|it| it.id);
    let node = node.map(|query| lookup::node(store, &query)).transpose()?.map(|node| node.id);
    let view = |task: &Arc<Task>| sight.task(task);
    Ok(match (service, node) {
        (Some(service), None) => store.tasks_of_service(service).map(view).collect(),
        (None, Some(node)) => store.tasks_on_node(node).map(view).collect(),
        (Some(service), Some(node)) => {
            store.tasks_of_service(service).filter(|task| task.node == Some(node)).map(view).collect()
        }
        (None, None) => store.tasks().map(view).collect(),
    })
}

fn snapshot(sight: &Sight<'_>, service: Option<String>, tasks: bool) -> Result<Vec<Change>, ApiError> {
    let store = sight.store;
    let nodes = store.nodes().map(|node| Change::Node(sight.node(node)));
    let change = |task: &Arc<Task>| Change::Task(sight.task(task));
    let Some(query) = service else {
        let services = store.services().map(|it| Change::Service(sight.service(it)));
        let images = store.images().map(|image| Change::Image(image.clone()));
        let tasks = store.tasks().filter(|_| tasks).map(change);
        return Ok(nodes.chain(services).chain(tasks).chain(images).collect());
    };
    let service = lookup::service(store, &query)?;
    let tasks = store.tasks_of_service(service.id).filter(|_| tasks).map(change);
    Ok(nodes.chain([Change::Service(sight.service(service))]).chain(tasks).collect())
}
