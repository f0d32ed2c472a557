//! One operator's subscription, from the first question to the last entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{ApiError, Change, Request, Response, ServiceView, TaskView};
use swarm_manager_core::door::Publication;
use swarm_model::{LogSubscription, ManagerMessage, NodeId, RestartCondition, ServiceId, TaskId};
use swarm_proto::v1;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::tracked::{Question, Tracked};
use super::{FromNode, Logs, MAX_BATCHES, Target, Wanted};

/// For an agent to open its call after it was asked.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// For the next entry of something that has an end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Who follows is given what a lost node has as soon as it is back; it is looked for this often.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

pub struct Subscription {
    logs: Logs,
    wanted: Wanted,
    subject: Subject,
    tracked: Tracked,
    /// Questions that are not answered to the end.
    routes: BTreeMap<u64, Asked>,
    outgoing: mpsc::Sender<v1::LogEntry>,
    to_self: mpsc::Sender<FromNode>,
    from_nodes: mpsc::Receiver<FromNode>,
    publications: broadcast::Receiver<Arc<Publication>>,
    last_entry: Instant,
    /// When lost nodes are looked for.
    retry_at: Option<Instant>,
    /// Nodes whose loss was told and that did not answer since.
    told: BTreeSet<NodeId>,
}

/// What it is about, and whether more may come.
enum Subject {
    Task { id: TaskId },
    Service { id: ServiceId, replicas: usize, restarts: bool, removed: bool },
}

struct Asked {
    node: NodeId,
    /// Until when it must have been answered; `None` once it was.
    open_by: Option<Instant>,
}

/// The subscriber went away.
struct Gone;

impl Subscription {
    pub async fn begin(
        logs: Logs,
        wanted: Wanted,
        outgoing: mpsc::Sender<v1::LogEntry>,
    ) -> Result<Self, ApiError> {
        // First the changes, then what is there: so nothing falls between.
        let publications = logs.0.engine.publications();
        let (to_self, from_nodes) = mpsc::channel(MAX_BATCHES);
        let (subject, tasks) = look_up(&logs, &wanted.target).await?;
        let mut tracked = Tracked::default();
        tasks.iter().for_each(|task| tracked.observe(task));
        let (routes, last_entry) = (BTreeMap::new(), Instant::now());
        Ok(Self {
            logs,
            wanted,
            subject,
            tracked,
            routes,
            outgoing,
            to_self,
            from_nodes,
            publications,
            last_entry,
            retry_at: None,
            told: BTreeSet::new(),
        })
    }

    pub async fn run(mut self) {
        // Both ways it ends: everything was sent, or nobody reads.
        let _ = self.relay().await;
        for (id, asked) in &self.routes {
            self.logs.close_route(*id);
            self.logs.0.engine.message_node(asked.node, ManagerMessage::CancelLogs(*id));
        }
    }

    async fn relay(&mut self) -> Result<(), Gone> {
        loop {
            self.ask().await?;
            if self.is_over() {
                return Ok(());
            }
            let deadline = self.deadline();
            tokio::select! {
                event = self.from_nodes.recv() => {
                    self.take(event.expect("this subscription holds a sender")).await?;
                }
                publication = self.publications.recv(), if self.wanted.follow => {
                    self.learn(publication).await;
                }
                () = tokio::time::sleep_until(deadline) => self.give_up_waiting().await?,
                () = self.outgoing.closed() => return Err(Gone),
            }
        }
    }

    fn is_over(&self) -> bool {
        if self.tracked.is_busy() {
            return false;
        }
        if !self.wanted.follow {
            return true;
        }
        match self.subject {
            Subject::Task { .. } => self.tracked.all_ended(1),
            Subject::Service { removed: true, .. } => true,
            Subject::Service { replicas, restarts, .. } => {
                !restarts && replicas > 0 && self.tracked.all_ended(replicas)
            }
        }
    }

    /// Asks every node that has something due. One that cannot be asked is named at once.
    async fn ask(&mut self) -> Result<(), Gone> {
        for question in self.tracked.questions() {
            let id = self.logs.open_route(question.node, question.tasks.clone(), self.to_self.clone());
            let message = ManagerMessage::SubscribeLogs(self.subscription(id, &question));
            if self.logs.0.engine.message_node(question.node, message) {
                self.tracked.asked(&question.tasks, id);
                let asked = Asked { node: question.node, open_by: Some(Instant::now() + OPEN_TIMEOUT) };
                self.routes.insert(id, asked);
            } else {
                self.logs.close_route(id);
                self.lose(question.node, &question.tasks, "is not connected").await?;
            }
        }
        Ok(())
    }

    fn subscription(&self, id: u64, question: &Question) -> LogSubscription {
        let again = question.read_up_to != 0;
        LogSubscription {
            id,
            tasks: question.tasks.iter().copied().collect(),
            follow: self.wanted.follow,
            tail: if again { None } else { self.wanted.tail },
            since_micros: if again { Some(question.read_up_to) } else { self.wanted.since_micros },
        }
    }

    /// These tasks cannot be read now.
    async fn lose(&mut self, node: NodeId, tasks: &BTreeSet<TaskId>, why: &str) -> Result<(), Gone> {
        if tasks.is_empty() {
            return Ok(());
        }
        self.tracked.unreachable(tasks);
        self.retry_at = self.wanted.follow.then(|| Instant::now() + RETRY_INTERVAL);
        if !self.told.insert(node) {
            return Ok(());
        }
        let (hostname, names) = self.tracked.names(tasks);
        let notice = format!("{hostname} {why}: the logs of {names} there are missing");
        self.send(v1::LogEntry { node_hostname: hostname, notice, ..v1::LogEntry::default() }).await
    }

    async fn take(&mut self, event: FromNode) -> Result<(), Gone> {
        match event {
            FromNode::Opened(id) => {
                if let Some(asked) = self.routes.get_mut(&id) {
                    asked.open_by = None;
                    self.told.remove(&asked.node);
                }
                self.last_entry = Instant::now();
            }
            FromNode::Entries(entries) => {
                for (task, entry) in entries {
                    self.relay_entry(task, entry).await?;
                }
                self.last_entry = Instant::now();
            }
            FromNode::Finished(id) => {
                self.routes.remove(&id);
                let tasks = self.tracked.ended(id);
                self.ask_again_of_live(&tasks);
            }
            FromNode::Broken(id) => {
                let Some(asked) = self.routes.remove(&id) else { return Ok(()) };
                let tasks = self.tracked.ended(id);
                self.lose(asked.node, &tasks, "broke off").await?;
            }
        }
        Ok(())
    }

    /// An agent that is followed ends its call when the tasks have ended. A call that ended before was cancelled, which
    /// gRPC does not let us tell from its end: so the agent is asked for what comes after.
    fn ask_again_of_live(&mut self, tasks: &BTreeSet<TaskId>) {
        let live = self.tracked.still_live(tasks);
        if self.wanted.follow && !live.is_empty() {
            self.tracked.unreachable(&live);
            self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        }
    }

    /// What an agent says of a task's names is replaced by what the managers know.
    async fn relay_entry(&mut self, task: TaskId, entry: v1::LogEntry) -> Result<(), Gone> {
        let Some(known) = self.tracked.task_mut(task) else { return Ok(()) };
        known.read_up_to = known.read_up_to.max(entry.at);
        let entry = v1::LogEntry {
            service_name: known.service_name.clone(),
            slot: known.slot,
            node_hostname: known.hostname.clone(),
            ..entry
        };
        self.send(entry).await
    }

    async fn send(&self, entry: v1::LogEntry) -> Result<(), Gone> {
        self.outgoing.send(entry).await.map_err(|_| Gone)
    }

    fn deadline(&self) -> Instant {
        let opening = self.routes.values().filter_map(|asked| asked.open_by).min();
        let idle = (!self.wanted.follow).then(|| self.last_entry + IDLE_TIMEOUT);
        // Without either there is nothing to wait for in vain; the loop comes by all the same.
        [opening, idle, self.retry_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + IDLE_TIMEOUT)
    }

    async fn give_up_waiting(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.tracked.retry();
        }
        let idle = !self.wanted.follow && self.last_entry + IDLE_TIMEOUT <= now;
        let overdue = |asked: &Asked| idle || asked.open_by.is_some_and(|open_by| open_by <= now);
        let late: Vec<u64> =
            self.routes.iter().filter(|(_, asked)| overdue(asked)).map(|(id, _)| *id).collect();
        for id in late {
            let Some(asked) = self.routes.remove(&id) else { continue };
            self.logs.close_route(id);
            self.logs.0.engine.message_node(asked.node, ManagerMessage::CancelLogs(id));
            let tasks = self.tracked.ended(id);
            self.lose(asked.node, &tasks, "does not answer").await?;
        }
        Ok(())
    }

    async fn learn(&mut self, publication: Result<Arc<Publication>, broadcast::error::RecvError>) {
        match publication {
            Ok(publication) => publication.changes.iter().for_each(|change| self.learn_change(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => match look_up(&self.logs, &self.target()).await {
                Ok((_, tasks)) => tasks.iter().for_each(|task| self.tracked.observe(task)),
                Err(_) => self.set_removed(),
            },
            Err(broadcast::error::RecvError::Closed) => self.set_removed(),
        }
    }

    fn learn_change(&mut self, change: &Change) {
        match change {
            Change::Task(view) if self.is_about(view.task.service, view.task.id) => {
                self.tracked.observe(view);
            }
            Change::TaskRemoved { task, service } if self.is_about(*service, *task) => {
                self.tracked.forget(*task);
            }
            Change::Service(view) => self.learn_service(view),
            Change::ServiceRemoved(gone) => {
                if matches!(self.subject, Subject::Service { id, .. } if id == *gone) {
                    self.set_removed();
                }
            }
            Change::Task(_)
            | Change::TaskRemoved { .. }
            | Change::Node(_)
            | Change::NodeRemoved(_)
            | Change::Image(_)
            | Change::ImageRemoved(_) => {}
        }
    }

    fn is_about(&self, of_service: ServiceId, task: TaskId) -> bool {
        match self.subject {
            Subject::Task { id } => id == task,
            Subject::Service { id, .. } => id == of_service,
        }
    }

    fn learn_service(&mut self, view: &ServiceView) {
        if matches!(self.subject, Subject::Service { id, .. } if id == view.service.id) {
            self.subject = service_subject(view);
        }
    }

    fn set_removed(&mut self) {
        match &mut self.subject {
            Subject::Service { removed, .. } => *removed = true,
            Subject::Task { id } => self.tracked.forget(*id),
        }
    }

    fn target(&self) -> Target {
        match self.subject {
            Subject::Task { id } => Target::Task(id.to_string()),
            Subject::Service { id, .. } => Target::Service(id.to_string()),
        }
    }
}

fn service_subject(view: &ServiceView) -> Subject {
    let restart = &view.service.spec.task.restart;
    Subject::Service {
        id: view.service.id,
        replicas: usize::try_from(view.service.replicas()).unwrap_or(usize::MAX),
        restarts: restart.condition != RestartCondition::None,
        removed: false,
    }
}

async fn look_up(logs: &Logs, target: &Target) -> Result<(Subject, Vec<TaskView>), ApiError> {
    let engine = &logs.0.engine;
    match target {
        Target::Task(task) => match engine.request(Request::GetTask { task: task.clone() }).await? {
            Response::Task(view) => Ok((Subject::Task { id: view.task.id }, vec![view])),
            other => unreachable!("GetTask is answered by a task, not by {other:?}"),
        },
        Target::Service(service) => {
            let subject = match engine.request(Request::GetService { service: service.clone() }).await? {
                Response::Service(view) => view,
                other => unreachable!("GetService is answered by a service, not by {other:?}"),
            };
            let list = Request::ListTasks { service: Some(subject.service.id.to_string()), node: None };
            match engine.request(list).await? {
                Response::Tasks(tasks) => Ok((service_subject(&subject), tasks)),
                other => unreachable!("ListTasks is answered by tasks, not by {other:?}"),
            }
        }
    }
}
