//! Decides which node runs a task, and says why when none does.
//!
//! The scheduler is an index over the nodes and what the tasks hold on them, kept by the leader and rebuilt by the
//! next one. It trusts its caller to tell it each change, reads no clock, and places nothing twice: what a plan places
//! is reserved at once, so the next plan sees it, committed or not.
//!
//! A node passes these filters, in this order: ready and active, reservations, constraints, platform, host ports,
//! replicas per node. Of the nodes that pass, a task goes to the one with the smallest score:
//! 1. not failing: fewer than 5 failures of this service revision there within 5 minutes;
//! 2. per spread preference, outermost first, the group of nodes with the fewest tasks of the revision; among equal
//!    groups the one whose best node has the better rank;
//! 3. rank: fewest tasks of the revision, fewest tasks, smallest node id.
//!
//! Tasks of the service's other revisions do not count for spreading: an update is about to replace them, and where its
//! own tasks end up is what stays.
//!
//! Nodes are never scanned to place a task. One [`ladder`] keeps all open nodes by load; requirements that are equal
//! share a [`class`], the set of nodes that satisfy them; each revision remembers the nodes that run it already
//! ([`service`]). A plan is a [`contest`] over the three. What is derived follows the nodes that changed ([`changes`]).
//! Only an explanation ([`explain`]) looks at every node.

mod changes;
mod class;
mod contest;
mod explain;
mod failures;
mod fix;
mod ladder;
mod lookup;
mod nodes;
mod order;
mod refusal;
mod rung;
mod service;

use std::sync::Arc;

use swarm_model::{HostPort, Node, NodeId, NodeState, Placement, Resources, ServiceId, TaskId, Timestamp};

use class::{ClassKey, Classes};
use contest::{Contest, Terms};
use failures::Failures;
use lookup::Lookup;
use nodes::{Footprint, Nodes, Slot};
use service::{Others, Revisions};

pub use fix::{Change, Fix};
pub use refusal::{Cause, Closest, Exclusion, NearMiss, Refusal};

/// The index; see the module.
#[derive(Debug, Default)]
pub struct Scheduler {
    nodes: Nodes,
    tasks: Lookup<TaskId, Holding>,
    services: Lookup<ServiceId, Revisions>,
    classes: Classes,
    failures: Failures,
    capacity_generation: u64,
}

/// Where a task is and what it takes there.
#[derive(Debug)]
struct Holding {
    slot: Slot,
    footprint: Arc<Footprint>,
}

/// A task that has a node and holds resources there, running or not.
#[derive(Debug, Clone, Copy)]
pub struct PlacedTask<'a> {
    pub id: TaskId,
    pub service: ServiceId,
    pub revision: u64,
    pub node: NodeId,
    pub reservations: Resources,
    pub host_ports: &'a [HostPort],
}

/// Tasks of one service revision that need a node each.
#[derive(Debug, Clone, Copy)]
pub struct PlacementRequest<'a> {
    pub service: ServiceId,
    pub revision: u64,
    pub placement: &'a Placement,
    /// Of one task.
    pub reservations: Resources,
    /// Of each task: at most one of them fits on a node if there are any.
    pub host_ports: &'a [HostPort],
    pub tasks: &'a [TaskId],
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementPlan {
    /// In the order of the request, which is served from its beginning.
    pub placed: Vec<(TaskId, NodeId)>,
    /// Why the rest was not placed; `None` if there is no rest.
    pub refusal: Option<Refusal>,
}

impl Scheduler {
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a node as it is now. Costs next to nothing if nothing changed.
    pub fn upsert_node(&mut self, node: &Arc<Node>, state: NodeState) {
        if self.nodes.upsert(node, state) {
            self.capacity_generation += 1;
        }
    }

    /// The node is no member any more. Tasks recorded there stay until [`Self::remove_task`].
    pub fn remove_node(&mut self, node: NodeId) {
        self.nodes.remove(node);
    }

    /// Records a task that was placed, by this scheduler or before it was made; its node need not be known yet. The
    /// same task may be told again; if its node or needs differ, the last word counts.
    pub fn add_task(&mut self, task: &PlacedTask<'_>) {
        let slot = self.nodes.slot_of(task.node);
        if let Some(known) = self.tasks.get(&task.id) {
            let line = (task.service, task.revision);
            if known.slot == slot && known.footprint.is(line, task.reservations, task.host_ports) {
                return;
            }
            self.remove_task(task.id);
        }
        // Removing it may have vacated a slot.
        let slot = self.nodes.slot_of(task.node);
        let line = (task.service, task.revision);
        let places = self.services.get_or_default(task.service).of_mut(task.revision);
        let footprint = places.footprint(line, task.reservations, task.host_ports);
        places.add(slot);
        self.nodes.occupy(slot, &footprint);
        self.tasks.insert(task.id, Holding { slot, footprint });
    }

    /// The task holds nothing any more: it ended, or will never be placed. An unknown one is ignored.
    pub fn remove_task(&mut self, task: TaskId) {
        let Some(Holding { slot, footprint }) = self.tasks.remove(&task) else { return };
        let revisions = self.services.get_mut(&footprint.service).expect("a service with tasks is known");
        revisions.of_mut(footprint.revision).subtract(slot, self.nodes.at(slot).id);
        self.forget_if_empty(footprint.service, footprint.revision);
        self.nodes.release(slot, &footprint);
        self.capacity_generation += 1;
    }

    /// A task of that revision failed on `node` at `at`, by the leader's clock. Bounded: the oldest are forgotten.
    pub fn record_failure(&mut self, service: ServiceId, revision: u64, node: NodeId, at: Timestamp) {
        self.failures.record(service, revision, node, at);
    }

    /// Rises whenever something may fit that did not before. A request that was refused is refused again while this
    /// is the same.
    pub fn capacity_generation(&self) -> u64 {
        self.capacity_generation
    }

    /// Places as many of the tasks as fit, and reserves what they need. A task that is placed already keeps its node.
    pub fn plan(&mut self, now: Timestamp, request: &PlacementRequest<'_>) -> PlacementPlan {
        self.failures.expire(now);
        self.tasks.reserve(request.tasks.len());
        let mut placed = Vec::with_capacity(request.tasks.len());
        self.nodes.settle();
        let Self { nodes, tasks, services, .. } = self;
        let (places, others) = services.get_or_default(request.service).split(request.revision);
        let line = (request.service, request.revision);
        let footprint = places.footprint(line, request.reservations, request.host_ports);
        let terms = Terms::of(request, &footprint, others, &self.failures, nodes);
        let class = self.classes.current(&ClassKey::new(request.placement), nodes);
        places.sync(class, nodes, &footprint, terms.max_replicas);
        let mut contest = Contest::open(class, nodes, places, terms);
        for task in request.tasks {
            let node = match tasks.get(task) {
                Some(holding) => contest.node(holding.slot),
                None => {
                    let Some((slot, node)) = contest.place() else { break };
                    tasks.insert(*task, Holding { slot, footprint: Arc::clone(&footprint) });
                    node
                }
            };
            placed.push((*task, node));
        }
        contest.close();
        let unplaced = request.tasks.len() - placed.len();
        let revisions = services.get_or_default(request.service);
        let refusal = (unplaced > 0).then(|| explain::explain(nodes, revisions, request, unplaced));
        self.forget_if_empty(request.service, request.revision);
        PlacementPlan { placed, refusal }
    }

    /// Whether a task of the request would find a node. Far cheaper than a plan that is refused, which explains.
    pub fn can_place(&mut self, now: Timestamp, request: &PlacementRequest<'_>) -> bool {
        self.failures.expire(now);
        self.nodes.settle();
        let Self { nodes, services, .. } = self;
        let (places, others) = services.get_or_default(request.service).split(request.revision);
        let line = (request.service, request.revision);
        let footprint = places.footprint(line, request.reservations, request.host_ports);
        let terms = Terms::of(request, &footprint, others, &self.failures, nodes);
        let class = self.classes.current(&ClassKey::new(request.placement), nodes);
        places.sync(class, nodes, &footprint, terms.max_replicas);
        let mut contest = Contest::open(class, nodes, places, terms);
        let open = contest.is_open();
        contest.close();
        self.forget_if_empty(request.service, request.revision);
        open
    }

    /// Why tasks of the request do or would not find a node: what a plan would say if it placed none of them. Looks at
    /// every node. Nodes that would fit are in no count, see [`Refusal::nodes`].
    pub fn explain(&self, request: &PlacementRequest<'_>) -> Refusal {
        let none = Revisions::default();
        let revisions = self.services.get(&request.service).unwrap_or(&none);
        explain::explain(&self.nodes, revisions, request, request.tasks.len())
    }

    /// Whether a task that is on `node` may stay: the node is a member, is not drained, and satisfies constraints and
    /// platform. Whether the node answers, and what is reserved on it, does not matter here.
    pub fn still_fits(&self, node: NodeId, placement: &Placement) -> bool {
        self.misfit(node, placement).is_none()
    }

    /// Why a task on `node` may not stay there; `None` if it may. See [`Self::still_fits`].
    pub fn misfit(&self, node: NodeId, placement: &Placement) -> Option<Cause> {
        self.nodes.find(node).map_or(Some(Cause::Removed), |host| explain::misfit(host, placement))
    }

    /// What the tasks on a node reserve together, and how many they are.
    pub fn reserved(&self, node: NodeId) -> (Resources, u32) {
        self.nodes.find(node).map_or_else(Default::default, |host| (host.reserved, host.tasks))
    }

    /// Number of tasks that are recorded.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    fn forget_if_empty(&mut self, service: ServiceId, revision: u64) {
        if self.services.get_mut(&service).is_some_and(|revisions| revisions.forget_if_empty(revision)) {
            self.services.remove(&service);
        }
    }
}

impl<'a> Terms<'a> {
    fn of(
        request: &PlacementRequest<'_>,
        footprint: &'a Footprint,
        others: Others<'a>,
        failures: &Failures,
        nodes: &Nodes,
    ) -> Self {
        let mut failing: Vec<Slot> = failures
            .failing(request.service, request.revision)
            .filter_map(|node| nodes.known_slot(node))
            .collect();
        failing.sort_unstable();
        let max_replicas = request.placement.max_replicas_per_node.unwrap_or(u32::MAX);
        Self { footprint, max_replicas, others, failing }
    }
}
