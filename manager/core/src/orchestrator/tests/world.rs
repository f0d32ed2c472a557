//! A world of one service: its records, some nodes with agents, a scheduler that takes the emptiest node, and a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    DesiredState, NodeId, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, TaskStatus, Timestamp,
    UpdateState, UpdateStatus,
};

use super::super::{NodeCondition, Observed, ServicePlan, ServiceView, TaskAction, TaskView, reconcile};
use super::{checks, script};

/// Plans that a failed walk shows.
const REMEMBERED: usize = 12;
pub const START: Timestamp = Timestamp::from_micros(1_000_000_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeIs {
    Ready,
    Draining,
    Mismatch,
    Down(Timestamp),
    Gone,
    /// The leader is new and has not heard of it.
    Unknown,
}

/// What the leader noted of a report.
#[derive(Debug, Clone)]
pub struct Seen {
    pub status: TaskStatus,
    pub since: Timestamp,
    pub ran_since: Option<Timestamp>,
}

#[derive(Debug)]
pub struct World {
    pub now: Timestamp,
    /// Of the last log entry; entries carry strictly rising times.
    written: Timestamp,
    pub service: Service,
    pub removed: bool,
    pub tasks: BTreeMap<TaskId, Task>,
    pub labels: BTreeMap<TaskId, String>,
    /// What is true on the nodes.
    pub actual: BTreeMap<TaskId, TaskStatus>,
    pub seen: BTreeMap<TaskId, Seen>,
    pub nodes: BTreeMap<NodeId, NodeIs>,
    /// Whether the scheduler finds nodes at all.
    pub room: bool,
    /// Images whose containers fail at once, with their exit code.
    pub broken: BTreeMap<String, i32>,
    /// Images that no node can pull.
    pub missing: BTreeSet<String>,
    drawn: u128,
    created: BTreeMap<u32, usize>,
    pub next_wakeup: Option<Timestamp>,
    pub checks: checks::Memory,
    /// The last plans in words.
    pub last: VecDeque<String>,
}

impl World {
    pub fn new(spec: ServiceSpec, nodes: u128) -> Self {
        let spec = Arc::new(spec);
        let service = Service {
            id: ServiceId::from_u128(1),
            version: 1,
            created_at: START,
            updated_at: START,
            revision: 1,
            revisions: [(1, spec.clone())].into(),
            ports: spec.ports.clone(),
            spec,
            update: None,
        };
        Self {
            now: START,
            written: START,
            service,
            removed: false,
            tasks: BTreeMap::new(),
            labels: BTreeMap::new(),
            actual: BTreeMap::new(),
            seen: BTreeMap::new(),
            nodes: (1..=nodes).map(|node| (NodeId::from_u128(node), NodeIs::Ready)).collect(),
            room: true,
            broken: BTreeMap::new(),
            missing: BTreeSet::new(),
            drawn: 0,
            created: BTreeMap::new(),
            next_wakeup: None,
            checks: checks::Memory::default(),
            last: VecDeque::new(),
        }
    }

    /// Takes over a new spec as the API would.
    pub fn change_spec(&mut self, spec: ServiceSpec) {
        let task_changed = spec.task != self.service.spec.task || spec.ports != self.service.spec.ports;
        self.service.spec = Arc::new(spec);
        self.service.revision += u64::from(task_changed);
        let resumed = match self.service.update.as_ref().map(|update| update.state) {
            Some(UpdateState::Paused) if !task_changed => Some(UpdateState::Updating),
            Some(UpdateState::RollbackPaused) if !task_changed => Some(UpdateState::RollbackStarted),
            _ => None,
        };
        if let (Some(state), Some(update)) = (resumed, &mut self.service.update) {
            *update = UpdateStatus { state, started_at: self.now, ..update.clone() };
        }
        self.service.revisions.insert(self.service.revision, self.service.spec.clone());
    }

    /// The operator's `service rollback`.
    pub fn roll_back_by_hand(&mut self, to: u64) {
        let status = UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: self.now,
            completed_at: None,
            message: format!("rolling back to revision {to}, as asked"),
            from_revision: self.service.revision,
            to_revision: self.service.revision + 1,
        };
        self.restore(to);
        self.service.update = Some(status);
    }

    fn restore(&mut self, to: u64) {
        let old = &self.service.revisions[&to];
        let spec = Arc::new(ServiceSpec { mode: self.service.spec.mode, ..(**old).clone() });
        self.service.revision += 1;
        self.service.revisions.insert(self.service.revision, spec.clone());
        self.service.spec = spec;
    }

    /// One decision, applied. A second one must have nothing to add.
    pub fn decide(&mut self) -> ServicePlan {
        let plan = self.plan();
        let before = self.tasks.clone();
        self.apply(&plan);
        self.remember(&plan);
        checks::check(&before, &plan, self);
        let again = self.plan();
        if !again.is_empty() {
            self.apply(&again);
            panic!("planned on its own result: {:#?}", script::told(self, &again));
        }
        self.next_wakeup = again.next_wakeup;
        plan
    }

    /// Keeps what happened last, for the message of a failed walk.
    fn remember(&mut self, plan: &ServicePlan) {
        if plan.is_empty() {
            return;
        }
        let mut lines = vec![format!("at {}:", script::moment(self.now))];
        lines.extend(script::told(self, plan));
        self.last.push_back(lines.join("\n  "));
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }

    fn plan(&mut self) -> ServicePlan {
        let tasks = self.tasks.values().map(|task| TaskView {
            task,
            observed: self.seen.get(&task.id).map(|seen| Observed {
                status: &seen.status,
                since: seen.since,
                ran_since: seen.ran_since,
            }),
            node: condition(&self.nodes, task),
        });
        let (service, removed) = (&self.service, self.removed);
        let view = ServiceView { service, removed, tasks: tasks.collect(), calm: &BTreeSet::new() };
        // Ids in no order, as from a random generator.
        let id =
            |drawn: u128| TaskId::from_u128(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let decide = |view: &ServiceView<'_>| {
            let mut drawn = self.drawn;
            let plan = reconcile(view, self.now, &mut || {
                drawn += 1;
                id(drawn)
            });
            (plan, drawn)
        };
        let (plan, drawn) = decide(&view);
        let calm: BTreeSet<u32> = plan.calm.iter().copied().collect();
        let (left_out, tasks) =
            view.tasks.iter().partition::<Vec<_>, _>(|task| calm.contains(&task.task.slot));
        if !left_out.is_empty() {
            let (partial, _) = decide(&ServiceView { service, removed, tasks, calm: &calm });
            assert_eq!(partial, ServicePlan { calm: Vec::new(), ..plan.clone() }, "without its calm slots");
        }
        self.drawn = drawn;
        plan
    }

    fn apply(&mut self, plan: &ServicePlan) {
        if plan.is_empty() {
            return;
        }
        self.written = self.now.max(self.written + Duration::from_micros(1));
        if let Some(to) = plan.rollback_to {
            self.restore(to);
        }
        if let Some(update) = &plan.update {
            assert_eq!(update.to_revision, self.service.revision);
            self.service.update = Some(update.clone());
        }
        for action in &plan.actions {
            self.act(action);
        }
        self.place();
    }

    fn act(&mut self, action: &TaskAction) {
        match action {
            TaskAction::Create { id, slot, desired, not_before, restarts, revision } => {
                assert!(self.service.revisions.contains_key(revision));
                let task = Task {
                    id: *id,
                    service: self.service.id,
                    slot: *slot,
                    revision: *revision,
                    version: 0,
                    created_at: self.written,
                    desired_since: self.written,
                    desired: *desired,
                    node: None,
                    address: None,
                    not_before: *not_before,
                    restarts: *restarts,
                    outcome: None,
                };
                assert!(self.tasks.insert(*id, task).is_none(), "an id was drawn twice");
                let number = self.created.entry(*slot).or_default();
                let letter = char::from(b'a' + u8::try_from(*number % 26).unwrap());
                let round = if *number < 26 { String::new() } else { (*number / 26).to_string() };
                *number += 1;
                self.labels.insert(*id, format!("{}.{slot}{letter}{round}", self.service.spec.name));
            }
            TaskAction::SetDesired { id, desired } => {
                let task = self.tasks.get_mut(id).expect("it exists");
                assert!(*desired > task.desired, "desired states only rise");
                task.desired = *desired;
                task.desired_since = self.written;
            }
            TaskAction::Finish { id, outcome } => {
                let task = self.tasks.get_mut(id).expect("it exists");
                assert!(task.outcome.is_none() && outcome.state.is_final(), "a task ends once");
                task.outcome = Some(outcome.clone());
            }
            TaskAction::Forget { id } => {
                assert!(self.tasks.remove(id).is_some(), "it exists");
                self.seen.remove(id);
            }
        }
    }

    /// The scheduler: the emptiest node, then the first.
    pub fn place(&mut self) {
        let waiting: Vec<TaskId> =
            self.tasks.values().filter(|task| task.node.is_none() && task.is_live()).map(|t| t.id).collect();
        let mut waiting: Vec<_> = waiting.into_iter().map(|id| (self.tasks[&id].slot, id)).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            let load = |node: NodeId| {
                self.tasks.values().filter(|task| task.node == Some(node) && task.is_live()).count()
            };
            let fits = self.nodes.iter().filter(|(_, is)| self.room && **is == NodeIs::Ready);
            let Some(node) = fits.map(|(node, _)| *node).min_by_key(|node| (load(*node), *node)) else {
                return;
            };
            self.tasks.get_mut(&id).expect("it waits").node = Some(node);
        }
    }

    /// A report reaches the leader, if its node does.
    pub fn report(&mut self, id: TaskId, status: TaskStatus) {
        let known = self.actual.insert(id, status);
        if let Some(before) = known {
            let after = &self.actual[&id];
            assert!(after.state >= before.state, "the world's agents break the order of states");
        }
        if self.tasks.get(&id).and_then(|task| task.node).is_some_and(|node| self.is_heard(node)) {
            self.see(id);
        }
    }

    fn is_heard(&self, node: NodeId) -> bool {
        match self.nodes[&node] {
            NodeIs::Ready | NodeIs::Draining | NodeIs::Mismatch => true,
            NodeIs::Down(_) | NodeIs::Gone | NodeIs::Unknown => false,
        }
    }

    fn see(&mut self, id: TaskId) {
        let Some(status) = self.actual.get(&id).cloned() else { return };
        if !self.tasks.contains_key(&id) {
            return;
        }
        let before = self.seen.get(&id);
        let since = before.filter(|seen| seen.status.state == status.state).map_or(self.now, |b| b.since);
        let running = (status.state == TaskState::Running).then_some(since);
        let ran_since = before.and_then(|seen| seen.ran_since).or(running);
        self.seen.insert(id, Seen { status, since, ran_since });
    }

    /// A node changes; when it is heard of again, it reports everything.
    pub fn set_node(&mut self, node: NodeId, is: NodeIs) {
        self.nodes.insert(node, is);
        let there: Vec<TaskId> =
            self.tasks.values().filter(|task| task.node == Some(node)).map(|task| task.id).collect();
        for id in there {
            if is == NodeIs::Unknown {
                self.seen.remove(&id);
            } else if self.is_heard(node) {
                self.see(id);
            }
        }
    }

    /// Another manager leads: it has seen nothing yet.
    pub fn change_leader(&mut self) {
        for node in self.nodes.clone().into_keys() {
            match self.nodes[&node] {
                NodeIs::Gone => {}
                NodeIs::Ready | NodeIs::Draining | NodeIs::Mismatch | NodeIs::Down(_) | NodeIs::Unknown => {
                    self.set_node(node, NodeIs::Unknown)
                }
            }
        }
    }

    /// Agents that are heard do what they are told; what came of it, in the order of slots.
    pub fn agents_obey(&mut self) -> Vec<(TaskId, TaskState)> {
        let mut tasks: Vec<Task> = self.tasks.values().cloned().collect();
        tasks.sort_by_key(|task| (task.slot, task.created_at));
        let mut changed = Vec::new();
        for task in tasks {
            let state = self.actual.get(&task.id).map_or(TaskState::Assigned, |status| status.state);
            let heard = task.node.is_some_and(|node| self.is_heard(node));
            if !heard || state.is_final() || task.outcome.is_some() {
                continue;
            }
            let image = &self.service.revisions[&task.revision].task.container.image.name;
            let next = match task.desired {
                DesiredState::Ready | DesiredState::Running if self.missing.contains(image) => {
                    status(TaskState::Rejected, None, &format!("image {image} was not found"))
                }
                DesiredState::Ready => status(TaskState::Ready, None, ""),
                DesiredState::Running => match self.broken.get(image) {
                    Some(code) => status(TaskState::Failed, Some(*code), ""),
                    None => status(TaskState::Running, None, ""),
                },
                DesiredState::Shutdown | DesiredState::Remove => status(TaskState::Shutdown, None, ""),
            };
            if next.state > state {
                changed.push((task.id, next.state));
                self.report(task.id, next);
            }
        }
        changed
    }
}

pub fn status(state: TaskState, exit_code: Option<i32>, error: &str) -> TaskStatus {
    TaskStatus {
        state,
        at: Timestamp::ZERO,
        message: String::new(),
        error: error.to_owned(),
        exit_code,
        oom_killed: false,
        pid: None,
    }
}

fn condition(nodes: &BTreeMap<NodeId, NodeIs>, task: &Task) -> NodeCondition {
    match task.node.map(|node| nodes[&node]) {
        None => NodeCondition::Unplaced,
        Some(NodeIs::Ready) => NodeCondition::Usable,
        Some(NodeIs::Draining) => NodeCondition::Draining,
        Some(NodeIs::Mismatch) => NodeCondition::Mismatch,
        Some(NodeIs::Down(since)) => NodeCondition::Down { since },
        Some(NodeIs::Gone) => NodeCondition::Gone,
        Some(NodeIs::Unknown) => NodeCondition::Unknown,
    }
}
