//! What an action is to people: told before it is applied, when the state that it changes is still there.

use std::collections::BTreeMap;

use swarm_model::{
    Actor, ChangeRecord, EngineDescription, Happening, NodeId, NodeSpec, ObjectKind, OperatorId, Outcome,
    PortSpec, Service, ServiceId, ServiceSpec, Task, TaskId, TaskRecord, TaskStep, UpdateState, UpdateStatus,
};

use crate::store::{Action, NewTask, ServiceUpdate, Store};

/// Of a difference, in bytes.
pub(super) const MAX_DIFFERENCE: usize = 512;
/// Of the reason of a task's end.
const MAX_REASON: usize = 256;

/// `None`: it is nobody's business, or cannot be applied.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each action")]
pub(in crate::store) fn describe(store: &Store, by: Option<&Actor>, action: &Action) -> Option<Happening> {
    let (kind, verb, id, name, difference) = match action {
        Action::CreateTask(new) => return Some(Happening::Task(created(store, new))),
        Action::PlaceTask { task, node, .. } => {
            return step(store, *task, Some(*node), TaskStep::Placed);
        }
        Action::FinishTask { task, outcome } => return step(store, *task, None, finished(outcome)),
        Action::SetDesired { .. }
        | Action::ForgetTask { .. }
        | Action::ForgetService { .. }
        | Action::DescribeNode { .. }
        | Action::RenewOperator { .. } => return None,
        Action::CreateCluster(cluster) => {
            (ObjectKind::Cluster, "create", cluster.id.to_string(), String::new(), String::new())
        }
        Action::SetJoinSecret { role, .. } => {
            return cluster(store, by, format!("{} join token rotated", format!("{role:?}").to_lowercase()));
        }
        Action::SetCertificateLife { life } => {
            return cluster(store, by, format!("certificate life {} s", life.as_secs()));
        }
        Action::BeginRootRotation { .. } => return cluster(store, by, "root rotation begun".to_owned()),
        Action::FinishRootRotation { .. } => return cluster(store, by, "root rotation finished".to_owned()),
        Action::SetAutolock { unlock_key } => {
            let what = if unlock_key.is_some() { "autolock with a new key" } else { "autolock off" };
            return cluster(store, by, what.to_owned());
        }
        Action::CreateNode(node) => {
            let role = format!("as {}", format!("{:?}", node.spec.role).to_lowercase());
            (ObjectKind::Node, "join", node.id.to_string(), node.engine.hostname.clone(), role)
        }
        Action::UpdateNode { node, spec, .. } => {
            let difference = of_node(&store.node(*node)?.spec, spec);
            (ObjectKind::Node, "update", node.to_string(), hostname(store, *node), difference)
        }
        Action::SeatManager { node, .. } => (
            ObjectKind::Node,
            "update",
            node.to_string(),
            hostname(store, *node),
            "is a manager now".to_owned(),
        ),
        Action::UnseatManager { node, .. } => {
            let difference = "is no manager any more".to_owned();
            (ObjectKind::Node, "update", node.to_string(), hostname(store, *node), difference)
        }
        Action::RemoveNode { node } => {
            (ObjectKind::Node, "remove", node.to_string(), hostname(store, *node), String::new())
        }
        Action::CreateService(service) => {
            let spec = &service.spec;
            let summary = format!("image {}, replicas {}", image(spec), service.replicas());
            (ObjectKind::Service, "create", service.id.to_string(), spec.name.clone(), summary)
        }
        Action::UpdateService(update) => {
            let service = store.service(update.service)?;
            let verb = if is_rollback(update) { "rollback" } else { "update" };
            let difference = of_service(service, update);
            (ObjectKind::Service, verb, service.id.to_string(), service.spec.name.clone(), difference)
        }
        Action::SetUpdateStatus { service, update, .. } => {
            let service = store.service(*service)?;
            if service.update.as_ref().is_some_and(|current| current.state == update.state) {
                return None;
            }
            (
                ObjectKind::Service,
                "progress",
                service.id.to_string(),
                service.spec.name.clone(),
                progress(update),
            )
        }
        Action::RemoveService { service } => {
            (ObjectKind::Service, "remove", service.to_string(), service_name(store, *service), String::new())
        }
        Action::InviteOperator(account) => {
            let role = format!("as {}", account.role);
            (ObjectKind::Operator, "invite", account.id.to_string(), account.name.clone(), role)
        }
        Action::EnrolOperator { operator, .. } => (
            ObjectKind::Operator,
            "enrol",
            operator.to_string(),
            operator_name(store, *operator),
            String::new(),
        ),
        Action::RemoveOperator { operator, .. } => (
            ObjectKind::Operator,
            "remove",
            operator.to_string(),
            operator_name(store, *operator),
            String::new(),
        ),
        Action::PutImage(image) => {
            let verb = if store.image(&image.name).is_some() { "update" } else { "create" };
            (ObjectKind::Image, verb, image.digest.clone(), image.name.clone(), String::new())
        }
        Action::RemoveImage { name } => {
            let digest = store.image(name).map_or_else(String::new, |image| image.digest.clone());
            (ObjectKind::Image, "remove", digest, name.clone(), String::new())
        }
    };
    Some(change(by, kind, verb, id, name, difference))
}

fn change(
    by: Option<&Actor>,
    kind: ObjectKind,
    verb: &str,
    id: String,
    name: String,
    mut difference: String,
) -> Happening {
    cut(&mut difference, MAX_DIFFERENCE);
    Happening::Change(Box::new(ChangeRecord {
        by: by.cloned(),
        kind,
        verb: verb.to_owned(),
        id,
        name,
        difference,
    }))
}

fn cluster(store: &Store, by: Option<&Actor>, difference: String) -> Option<Happening> {
    let id = store.cluster()?.id.to_string();
    Some(change(by, ObjectKind::Cluster, "update", id, String::new(), difference))
}

fn created(store: &Store, new: &NewTask) -> TaskRecord {
    TaskRecord {
        task: new.id,
        service: new.service,
        service_name: store.shared_name(new.service),
        slot: new.slot,
        node: new.place.map(|(node, _)| node),
        step: TaskStep::Created,
    }
}

fn step(store: &Store, task: TaskId, node: Option<NodeId>, step: TaskStep) -> Option<Happening> {
    let task: &Task = store.task(task)?;
    Some(Happening::Task(TaskRecord {
        task: task.id,
        service: task.service,
        service_name: store.shared_name(task.service),
        slot: task.slot,
        node: node.or(task.node),
        step,
    }))
}

fn finished(outcome: &Outcome) -> TaskStep {
    let mut reason = outcome.reason.clone();
    cut(&mut reason, MAX_REASON);
    let ran = outcome.ran_since.map(|since| outcome.at.since(since).as_secs());
    TaskStep::Finished {
        state: outcome.state,
        exit_code: outcome.exit_code,
        ran_seconds: ran.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        reason: reason.into(),
    }
}

fn hostname(store: &Store, node: NodeId) -> String {
    let engine = store.node(node).map(|node| &node.engine);
    engine.map_or_else(String::new, |EngineDescription { hostname, .. }| hostname.clone())
}

fn service_name(store: &Store, service: ServiceId) -> String {
    store.service(service).map_or_else(String::new, |service| service.spec.name.clone())
}

fn operator_name(store: &Store, operator: OperatorId) -> String {
    store.operators().account(operator).map_or_else(String::new, |account| account.name.clone())
}

/// Without what goes without saying.
fn image(spec: &ServiceSpec) -> &str {
    let name = spec.task.container.image.name.as_str();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn is_rollback(update: &ServiceUpdate) -> bool {
    update.update.as_ref().is_some_and(|status| status.state == UpdateState::RollbackStarted)
}

fn progress(update: &UpdateStatus) -> String {
    let word = match update.state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "update paused",
        UpdateState::Completed => "update completed",
        UpdateState::RollbackStarted => "rollback started",
        UpdateState::RollbackPaused => "rollback paused",
        UpdateState::RollbackCompleted => "rollback completed",
    };
    if update.message.is_empty() { word.to_owned() } else { format!("{word}: {}", update.message) }
}

fn of_node(old: &NodeSpec, new: &NodeSpec) -> String {
    fn word(value: &impl std::fmt::Debug) -> String {
        format!("{value:?}").to_lowercase()
    }
    let mut list = List::default();
    if old.role != new.role {
        list.changed("role", &word(&old.role), &word(&new.role));
    }
    if old.availability != new.availability {
        list.changed("availability", &word(&old.availability), &word(&new.availability));
    }
    list.map("label", &old.labels, &new.labels);
    list.0
}

/// Values of environment variables are not told: they may be secrets.
fn of_service(service: &Service, update: &ServiceUpdate) -> String {
    let (old, new) = (&*service.spec, &*update.spec);
    let (was, is) = (&old.task.container, &new.task.container);
    let mut list = List::default();
    list.changed("image", image(old), image(new));
    if image(old) == image(new) {
        let digest = |digest: &Option<String>| digest.as_deref().map_or("-", short_digest).to_owned();
        list.changed("digest", &digest(&was.image.digest), &digest(&is.image.digest));
    }
    let replicas = |spec: &ServiceSpec| match spec.mode {
        swarm_model::ServiceMode::Replicated { replicas } => replicas.to_string(),
    };
    list.changed("replicas", &replicas(old), &replicas(new));
    list.changed("args", &was.args.join(" "), &is.args.join(" "));
    list.map("env", &by_key(&was.env), &by_key(&is.env));
    list.map("label", &old.labels, &new.labels);
    list.changed("ports", &ports(&service.ports), &ports(&update.ports));
    let constraints = |spec: &ServiceSpec| {
        spec.task.placement.constraints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    list.changed("constraints", &constraints(old), &constraints(new));
    list.differs("limits", old.task.limits != new.task.limits);
    list.differs("reservations", old.task.reservations != new.task.reservations);
    list.differs("mounts", was.mounts != is.mounts);
    list.differs("restart policy", old.task.restart != new.task.restart);
    list.differs("update policy", old.update != new.update);
    list.differs("rollback policy", old.rollback != new.rollback);
    list.differs("forced", old.task.force_update != new.task.force_update);
    if list.0.is_empty() && old != new {
        list.differs("other settings", true);
    }
    list.0
}

fn short_digest(digest: &str) -> &str {
    digest.get(..digest.len().min("sha256:".len() + 12)).unwrap_or(digest)
}

fn by_key(env: &[String]) -> BTreeMap<String, String> {
    env.iter()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn ports(ports: &[PortSpec]) -> String {
    let one = |port: &PortSpec| match port.published {
        Some(published) => format!("{published}:{}", port.target),
        None => port.target.to_string(),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// `what old -> new`, one after the other.
#[derive(Default)]
struct List(String);

impl List {
    fn changed(&mut self, what: &str, old: &str, new: &str) {
        if old != new {
            let shown = |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
            self.add(&format!("{what} {} -> {}", shown(old), shown(new)));
        }
    }

    fn differs(&mut self, what: &str, differs: bool) {
        if differs {
            self.add(what);
        }
    }

    /// Keys that came, went, or have another value.
    fn map(&mut self, what: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        let come = new.iter().filter_map(|(key, value)| match old.get(key) {
            None => Some(('+', key)),
            Some(before) => (before != value).then_some(('~', key)),
        });
        let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| ('-', key));
        for (number, (sign, key)) in come.chain(gone).enumerate() {
            if number == 0 {
                self.add(what);
            }
            self.0.extend([' ', sign]);
            self.0.push_str(key);
        }
    }

    fn add(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        self.0.push_str(text);
    }
}

fn cut(text: &mut String, limit: usize) {
    const MARK: &str = " …";
    if text.len() > limit {
        let mut end = limit - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
}
