//! From what is dirty to one log entry: reconcile each service, place what is created or waits, address what is placed.
//!
//! One plan is under way at a time. What the scheduler placed for it is reserved at once and released again if the
//! entry is lost or an action of it came too late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_model::{
    Availability, HostPort, Node, NodeId, NodeState, PortMode, Resources, Service, ServiceId, Task, TaskId,
    TaskState, Timestamp,
};

use super::Leader;
use super::timers::Timer;
use crate::addresses::AddressBook;
use crate::admission;
use crate::dispatcher::Fleet;
use crate::orchestrator::{self, NodeCondition, ServicePlan, ServiceView, TaskAction, TaskView};
use crate::randomness::Ids;
use crate::scheduler::{PlacedTask, PlacementRequest, Refusal, Scheduler};
use crate::store::{Action, ApplyError, NewTask, ServiceRecord, ServiceUpdate, Store};
use crate::watch::Watch;

/// One entry of the log. What is left goes into the next one: an entry is applied in one go, and for so long no heartbeat
/// leaves. This many are some ten milliseconds' work, fifty where tasks are created.
const MAX_ACTIONS: usize = 4_096;
/// Waiting tasks of one service that one plan places.
const MAX_PLACED: usize = 1_024;
/// Services whose waiting tasks are tried again with one plan.
const MAX_RETRIES: usize = 256;

/// The scheduler, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Planner {
    scheduler: Scheduler,
    /// Tasks that the plan under way places; `None`: no plan is under way.
    under_way: Option<Vec<TaskId>>,
    /// Tasks without a node that may still get one.
    waiting: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    refusals: BTreeMap<ServiceId, String>,
    /// Services to decide about again when a task of theirs comes up.
    awaiting: BTreeSet<ServiceId>,
    /// Services with waiting tasks to be tried again.
    retry: BTreeSet<ServiceId>,
    /// What of a service's plan did not fit into an entry. It holds while nothing makes the service dirty.
    rest: BTreeMap<ServiceId, Vec<TaskAction>>,
    /// Capacity generation at which all of `waiting` was put up for a retry.
    tried: u64,
}

/// The entry in the making.
#[derive(Default)]
struct Draft {
    actions: Vec<Action>,
    placed: Vec<TaskId>,
    addresses: AddressBook,
    /// Services that one plan was too small for.
    unfinished: Vec<ServiceId>,
    /// And those of which more waiting tasks may find nodes.
    still_waiting: Vec<ServiceId>,
}

impl Planner {
    pub fn upsert_node(&mut self, node: &Arc<Node>, fleet: &Fleet) {
        let state = match fleet.state(node.id) {
            NodeState::Ready if !fleet.is_reachable(node.id) => NodeState::Unknown,
            state @ (NodeState::Ready | NodeState::Unknown | NodeState::Down) => state,
        };
        self.scheduler.upsert_node(node, state);
    }

    pub fn remove_node(&mut self, node: NodeId) {
        self.scheduler.remove_node(node);
    }

    pub fn reserved(&self, node: NodeId) -> (Resources, u32) {
        self.scheduler.reserved(node)
    }

    pub fn refusal(&self, service: ServiceId) -> Option<&str> {
        self.refusals.get(&service).map(String::as_str)
    }

    /// A task is new, or new to this leader.
    pub fn add_task(&mut self, task: &Task, store: &Store) {
        if task.outcome.is_some() {
            return self.note_failure(task);
        }
        match task.node {
            Some(node) => self.hold(task, node, store),
            None if task.is_live() => {
                self.waiting.entry(task.service).or_default().insert(task.id);
            }
            None => {}
        }
    }

    fn hold(&mut self, task: &Task, node: NodeId, store: &Store) {
        let Some(record) = store.service_record(task.service) else { return };
        let reservations =
            record.service.task_spec(task.revision).map(|spec| spec.reservations).unwrap_or_default();
        let host_ports = host_ports(&record.service, task.revision);
        self.scheduler.add_task(&PlacedTask {
            id: task.id,
            service: task.service,
            revision: task.revision,
            node,
            reservations,
            host_ports: &host_ports,
        });
    }

    /// A task that has not ended changed.
    pub fn update_task(&mut self, before: &Task, task: &Task, store: &Store) {
        if let (None, Some(node)) = (before.node, task.node) {
            self.hold(task, node, store);
        }
        if task.node.is_some() || !task.is_live() {
            self.stop_waiting(task);
        }
    }

    fn stop_waiting(&mut self, task: &Task) {
        if let Some(tasks) = self.waiting.get_mut(&task.service) {
            tasks.remove(&task.id);
            if tasks.is_empty() {
                self.waiting.remove(&task.service);
                self.refusals.remove(&task.service);
            }
        }
    }

    /// A task ended or is forgotten: it holds nothing any more.
    pub fn end_task(&mut self, task: &Task) {
        self.scheduler.remove_task(task.id);
        self.stop_waiting(task);
        self.note_failure(task);
    }

    fn note_failure(&mut self, task: &Task) {
        if let (Some(outcome), Some(node)) = (&task.outcome, task.node)
            && matches!(outcome.state, TaskState::Failed | TaskState::Rejected)
        {
            self.scheduler.record_failure(task.service, task.revision, node, outcome.at);
        }
    }

    pub fn forget_service(&mut self, service: ServiceId) {
        self.waiting.remove(&service);
        self.refusals.remove(&service);
        self.awaiting.remove(&service);
        self.rest.remove(&service);
    }

    pub fn awaits_start(&self, service: ServiceId) -> bool {
        self.awaiting.contains(&service)
    }

    fn set_awaits_start(&mut self, service: ServiceId, awaits: bool) {
        if awaits {
            self.awaiting.insert(service);
        } else {
            self.awaiting.remove(&service);
        }
    }

    pub fn retry_all(&mut self) {
        self.retry.extend(self.waiting.keys());
    }

    fn retry_if_capacity_changed(&mut self) {
        let generation = self.scheduler.capacity_generation();
        if self.tried != generation {
            self.tried = generation;
            self.retry_all();
        }
    }

    /// Lets go of what a plan reserved and did not get.
    fn settle(&mut self, store: &Store) {
        for task in self.under_way.take().unwrap_or_default() {
            if store.task(task).is_none_or(|task| task.node.is_none() || task.outcome.is_some()) {
                self.scheduler.remove_task(task);
            }
        }
    }
}

impl Leader {
    /// The plan's entry is applied.
    pub fn plan_settled(&mut self, errors: &[(usize, ApplyError)], store: &Store) {
        self.planner.settle(store);
        if !errors.is_empty() {
            // Something came between. What it was is not worth telling apart: all is looked at again.
            tracing::debug!(errors = errors.len(), first = %errors[0].1, "actions of a plan came too late");
            self.dirty.extend(store.service_ids());
            self.planner.retry_all();
        }
    }

    /// The plan's entry was not taken.
    pub fn plan_lost(&mut self, store: &Store) {
        self.planner.settle(store);
        self.dirty.extend(store.service_ids());
        self.planner.retry_all();
    }

    /// Decides over everything that is dirty. Empty: nothing to do, or a plan is under way.
    pub fn decide(&mut self, store: &Store, now: Timestamp, ids: &mut Ids, watch: &mut Watch) -> Vec<Action> {
        if self.planner.under_way.is_some() {
            return Vec::new();
        }
        let mut draft = Draft::default();
        while draft.actions.len() < MAX_ACTIONS
            && let Some(service) = self.dirty.pop_first()
        {
            self.reconcile(service, store, now, ids, &mut draft);
        }
        self.go_on(store, now, &mut draft);
        self.planner.retry_if_capacity_changed();
        for _ in 0..MAX_RETRIES {
            if draft.actions.len() >= MAX_ACTIONS {
                break;
            }
            let Some(service) = self.planner.retry.pop_first() else { break };
            self.place_waiting(service, store, now, &mut draft, watch);
        }
        self.dirty.extend(draft.unfinished);
        self.planner.retry.extend(draft.still_waiting);
        if !draft.actions.is_empty() {
            self.planner.under_way = Some(draft.placed);
        }
        draft.actions
    }

    fn reconcile(&mut self, id: ServiceId, store: &Store, now: Timestamp, ids: &mut Ids, draft: &mut Draft) {
        let Some(record) = store.service_record(id) else { return };
        let nothing = BTreeSet::new();
        let known = self
            .unrest
            .of(id)
            .filter(|known| orchestrator::may_leave_out(&record.service, record.removed, known.count()));
        let tasks: Vec<&Arc<Task>> = match known {
            None => store.tasks_of_service(id).collect(),
            Some(known) => known.restless.iter().flat_map(|slot| store.tasks_of_slot(id, *slot)).collect(),
        };
        let view = ServiceView {
            service: &record.service,
            removed: record.removed,
            tasks: tasks.iter().map(|task| self.task_view(task, record, store)).collect(),
            calm: known.map_or(&nothing, |known| &known.calm),
        };
        debug_assert!(self.is_calm(&view, store), "of {id} a slot was left out that is not calm");
        let slots = tasks.iter().map(|task| task.slot).collect();
        let whole = known.is_none();
        let mut plan = orchestrator::reconcile(&view, now, &mut || ids.task());
        self.unrest.looked(id, whole, slots, std::mem::take(&mut plan.calm));
        let rest = cut(&mut plan);
        self.planner.rest.remove(&id);
        self.timers.set(Timer::Service(id), plan.next_wakeup);
        self.planner.set_awaits_start(id, plan.awaits_start);
        if plan.continues {
            draft.unfinished.push(id);
        }
        let forgotten =
            plan.actions.iter().filter(|action| matches!(action, TaskAction::Forget { .. })).count();
        self.draft_service(record, plan, store, now, draft);
        if record.removed && forgotten == tasks.len() {
            draft.actions.push(Action::ForgetService { service: id });
        }
        if !rest.is_empty() {
            self.planner.rest.insert(id, rest);
        }
    }

    /// Whether all that the view leaves out is as it should be.
    fn is_calm(&self, view: &ServiceView<'_>, store: &Store) -> bool {
        let Some(record) = store.service_record(view.service.id) else { return false };
        view.calm.iter().all(|slot| {
            let tasks = store.tasks_of_slot(view.service.id, *slot);
            let tasks: Vec<_> = tasks.map(|task| self.task_view(task, record, store)).collect();
            orchestrator::is_calm(tasks.iter(), view.service)
        })
    }

    /// Goes on with plans that did not fit into the entry before.
    fn go_on(&mut self, store: &Store, now: Timestamp, draft: &mut Draft) {
        let left = std::mem::take(&mut self.planner.rest);
        for (id, actions) in left {
            let Some(record) = store.service_record(id).filter(|_| !self.dirty.contains(&id)) else {
                continue;
            };
            if !draft.actions.is_empty() {
                self.planner.rest.insert(id, actions);
                continue;
            }
            let mut plan = ServicePlan { actions, ..ServicePlan::default() };
            let rest = cut(&mut plan);
            self.draft_service(record, plan, store, now, draft);
            if rest.is_empty() {
                draft.unfinished.push(id);
            } else {
                self.planner.rest.insert(id, rest);
            }
        }
    }

    fn task_view<'a>(&'a self, task: &'a Task, record: &ServiceRecord, store: &Store) -> TaskView<'a> {
        let observed = self.observations.get(task.id).map(|observed| orchestrator::Observed {
            status: &observed.status,
            since: observed.since,
            ran_since: observed.running_since,
        });
        TaskView { task, observed, node: self.node_condition(task, &record.service, store) }
    }

    pub(super) fn node_condition(&self, task: &Task, service: &Service, store: &Store) -> NodeCondition {
        let Some(id) = task.node else { return NodeCondition::Unplaced };
        let Some(node) = store.node(id) else { return NodeCondition::Gone };
        match self.fleet.state(id) {
            NodeState::Unknown => NodeCondition::Unknown,
            NodeState::Down => NodeCondition::Down { since: self.fleet.since(id) },
            NodeState::Ready if node.spec.availability == Availability::Drain => NodeCondition::Draining,
            NodeState::Ready => {
                let placement = service.task_spec(task.revision).map(|spec| &spec.placement);
                let fits = placement.is_none_or(|it| self.planner.scheduler.still_fits(id, it));
                if fits { NodeCondition::Usable } else { NodeCondition::Mismatch }
            }
        }
    }

    /// Turns one service's plan into actions; what it creates is placed.
    fn draft_service(
        &mut self,
        record: &ServiceRecord,
        plan: ServicePlan,
        store: &Store,
        now: Timestamp,
        draft: &mut Draft,
    ) {
        // A rollback comes first: what is created in the same plan is of the revision that it makes.
        let rollback = plan.rollback_to.zip(plan.update.clone());
        let rollback = rollback
            .and_then(|(to, status)| admission::automatic_rollback(store, &record.service, to, status));
        let restored = rollback.as_ref().map(|update| restored(&record.service, update));
        let service = restored.as_ref().unwrap_or(&record.service);
        draft.actions.extend(rollback.map(|update| Action::UpdateService(Box::new(update))));
        let mut created: BTreeMap<u64, Vec<TaskId>> = BTreeMap::new();
        for action in &plan.actions {
            if let TaskAction::Create { id, revision, .. } = action {
                created.entry(*revision).or_default().push(*id);
            }
        }
        let mut places = BTreeMap::new();
        for (revision, tasks) in created {
            self.place(service, revision, &tasks, store, now, draft, &mut places);
        }
        for action in plan.actions {
            draft.actions.push(match action {
                TaskAction::Create { id, slot, desired, not_before, restarts, revision } => {
                    let place = places.get(&id).copied();
                    let service = service.id;
                    Action::CreateTask(NewTask {
                        id,
                        service,
                        slot,
                        revision,
                        desired,
                        place,
                        not_before,
                        restarts,
                    })
                }
                TaskAction::SetDesired { id, desired } => Action::SetDesired { task: id, desired },
                TaskAction::Finish { id, outcome } => Action::FinishTask { task: id, outcome },
                TaskAction::Forget { id } => Action::ForgetTask { task: id },
            });
        }
        if let (None, Some(update)) = (plan.rollback_to, plan.update) {
            let (service, revision) = (service.id, service.revision);
            draft.actions.push(Action::SetUpdateStatus { service, revision, update });
        }
    }

    fn place_waiting(
        &mut self,
        id: ServiceId,
        store: &Store,
        now: Timestamp,
        draft: &mut Draft,
        watch: &mut Watch,
    ) {
        let (Some(waiting), Some(service)) = (self.planner.waiting.get(&id), store.service(id)) else {
            return;
        };
        let mut by_revision: BTreeMap<u64, Vec<TaskId>> = BTreeMap::new();
        let (turn, all) = (waiting.len().min(MAX_PLACED), waiting.len());
        for task in waiting.iter().take(turn).filter_map(|task| store.task(*task)) {
            by_revision.entry(task.revision).or_default().push(task.id);
            watch.task(task.id);
        }
        let mut places = BTreeMap::new();
        for (revision, tasks) in by_revision {
            self.place(service, revision, &tasks, store, now, draft, &mut places);
        }
        if turn < all && places.len() == turn {
            draft.still_waiting.push(id);
        }
        let placed = places.into_iter();
        draft.actions.extend(placed.map(|(task, (node, address))| Action::PlaceTask { task, node, address }));
    }

    /// Asks the scheduler for nodes, and gives each placed task an address there.
    #[expect(clippy::too_many_arguments, reason = "one step of the plan, shared by new and waiting tasks")]
    fn place(
        &mut self,
        service: &Service,
        revision: u64,
        tasks: &[TaskId],
        store: &Store,
        now: Timestamp,
        draft: &mut Draft,
        places: &mut BTreeMap<TaskId, (NodeId, std::net::Ipv4Addr)>,
    ) {
        let Some(spec) = service.task_spec(revision) else { return };
        let plan = self.planner.scheduler.plan(
            now,
            &PlacementRequest {
                service: service.id,
                revision,
                placement: &spec.placement,
                reservations: spec.reservations,
                host_ports: &host_ports(service, revision),
                tasks,
            },
        );
        let mut refusal = plan.refusal.map(|refusal| with_way_out(&refusal));
        for (task, node) in plan.placed {
            match draft.addresses.take(node, store) {
                Some(address) => {
                    places.insert(task, (node, address));
                    draft.placed.push(task);
                }
                None => {
                    self.planner.scheduler.remove_task(task);
                    refusal = Some(format!("node {node} has no free address for a task"));
                }
            }
        }
        match refusal {
            Some(refusal) => self.planner.refusals.insert(service.id, refusal),
            None => self.planner.refusals.remove(&service.id),
        };
    }
}

/// Leaves in the plan what fits into an entry. With an update's status goes all that it speaks of.
fn cut(plan: &mut ServicePlan) -> Vec<TaskAction> {
    let whole = plan.update.is_some() || plan.rollback_to.is_some() || plan.actions.len() <= MAX_ACTIONS;
    if whole { Vec::new() } else { plan.actions.split_off(MAX_ACTIONS) }
}

/// What an operator reads of it: why, and the least that would help.
fn with_way_out(refusal: &Refusal) -> String {
    match refusal.fixes.first() {
        Some(fix) => format!("{refusal}; to make it fit: {fix}"),
        None => refusal.to_string(),
    }
}

/// The service as a rollback leaves it, for placing what is created with it.
fn restored(service: &Service, update: &ServiceUpdate) -> Service {
    let mut restored = service.clone();
    restored.revision = update.revision;
    restored.revisions.insert(update.revision, update.spec.clone());
    restored.spec = update.spec.clone();
    restored
}

/// The node's ports that a task of that revision holds.
fn host_ports(service: &Service, revision: u64) -> Vec<HostPort> {
    let ports = service.revisions.get(&revision).map_or(&[][..], |spec| &spec.ports);
    let host = ports.iter().filter(|port| port.mode == PortMode::Host);
    host.filter_map(|port| Some(HostPort { protocol: port.protocol, published: port.published? })).collect()
}
