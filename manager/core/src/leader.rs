//! The leader: what exists only while this manager decides. It keeps what agents report, marks services dirty, runs the
//! deciders over them once per batch, and sends agents their differences.
//!
//! Nothing here is needed after a change of leader: the next one builds it anew from the store and from the agents'
//! reports. Decisions themselves are functions of values, in `orchestrator` and `scheduler`.

mod certificates;
mod changes;
mod managers;
mod plan;
mod serving;
mod sessions;
mod timers;
mod unrest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{
    EngineDescription, NodeId, NodeRole, NodeState, Resources, ServiceId, Task, TaskId, Timestamp,
};

use crate::dispatcher::{Assignments, Fleet, Gates, Mesh, Observations, heartbeat_interval, return_time};
use crate::door::{CloseReason, Effect, SessionId};
use crate::store::{Action, Store};
use crate::watch::Watch;
use plan::Planner;
use serving::Serving;
use timers::{Timer, Timers};
use unrest::Unrest;

pub(crate) struct Leader {
    term: u64,
    pub(crate) fleet: Fleet,
    pub(crate) observations: Observations,
    assignments: Assignments,
    mesh: Mesh,
    gates: Gates,
    serving: Serving,
    planner: Planner,
    /// Services to reconcile at the end of the batch.
    dirty: BTreeSet<ServiceId>,
    /// And which slots of them.
    unrest: Unrest,
    timers: Timers,
    sweep: Duration,
    /// What nodes were told to be, on the sessions that are open.
    told_roles: BTreeMap<NodeId, NodeRole>,
    /// `host:port` of the managers, as every node with a session was told.
    managers: BTreeMap<NodeId, String>,
    /// What nodes said about themselves that the store does not know yet.
    descriptions: BTreeMap<NodeId, EngineDescription>,
    /// Digest of the root that issued a node's certificate, as the node reported it.
    certified_by: BTreeMap<NodeId, String>,
    /// Root certificates that nodes were told to believe.
    told_roots: Arc<str>,
    /// Whether a rotation of the root may have ended.
    rotation_moved: bool,
}

impl Leader {
    /// Everything is dirty, and nothing is known of any node yet.
    pub fn new(term: u64, store: &Store, sweep: Duration, now: Timestamp) -> Self {
        let mut leader = Self {
            term,
            fleet: Fleet::default(),
            observations: Observations::default(),
            assignments: Assignments::new(term),
            mesh: Mesh::new(term),
            gates: Gates::default(),
            serving: Serving::default(),
            planner: Planner::default(),
            dirty: store.service_ids().collect(),
            unrest: Unrest::default(),
            timers: Timers::default(),
            sweep,
            told_roles: BTreeMap::new(),
            managers: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            certified_by: BTreeMap::new(),
            told_roots: Arc::from(""),
            rotation_moved: true,
        };
        leader.know_managers(store);
        let interval = leader.interval(store);
        for node in store.nodes() {
            leader.fleet.add(node.id, now, interval, return_time(store.nodes().len()));
            leader.mesh.set_node(node.index, node.engine.data_address);
            leader.planner.upsert_node(node, &leader.fleet);
        }
        for service in store.services() {
            leader.mesh.set_service(service.id, &service.ports, &[]);
        }
        for task in store.tasks() {
            leader.planner.add_task(task, store);
        }
        leader.timers.set(Timer::Sweep, Some(now + sweep));
        leader.arm_timers();
        leader
    }

    pub fn term(&self) -> u64 {
        self.term
    }

    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.fleet.sessions()
    }

    pub fn node_state(&self, node: NodeId) -> NodeState {
        self.fleet.state(node)
    }

    pub fn running(&self, service: ServiceId) -> u32 {
        self.serving.running(service)
    }

    /// What the tasks on a node reserve together, and how many they are.
    pub fn reserved(&self, node: NodeId) -> (Resources, u32) {
        self.planner.reserved(node)
    }

    /// Why tasks of a service wait for a node.
    pub fn refusal(&self, service: ServiceId) -> Option<&str> {
        self.planner.refusal(service)
    }

    /// Nodes that described themselves anew, as actions.
    pub fn descriptions(&self) -> Vec<Action> {
        let described = self.descriptions.iter();
        described.map(|(node, engine)| Action::DescribeNode { node: *node, engine: engine.clone() }).collect()
    }

    pub fn descriptions_proposed(&mut self) {
        self.descriptions.clear();
    }

    fn interval(&self, store: &Store) -> Duration {
        let base = store.cluster().map_or(1_000, |cluster| cluster.heartbeat_ms);
        heartbeat_interval(base, store.nodes().len())
    }

    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    pub fn run_timers(
        &mut self,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
        effects: &mut Vec<Effect>,
    ) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Fleet => self.expire_nodes(store, now, watch, effects),
                // Both are looked at in every flush.
                Timer::Gates | Timer::Mesh => {}
                Timer::Sweep => {
                    self.dirty.extend(store.service_ids());
                    self.unrest.forget_all();
                    self.planner.retry_all();
                    self.timers.set(Timer::Sweep, Some(now + self.sweep));
                }
                Timer::Service(service) => {
                    self.dirty.insert(service);
                }
            }
        }
    }

    /// Sends what changed in this batch. The mesh goes first: stops wait for it.
    pub fn flush(&mut self, store: &Store, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.mesh.is_open() && self.truth_is_known(store) {
            self.mesh.open_up();
        }
        self.mesh.flush(now, effects);
        for task in self.gates.open(self.mesh.acknowledged_by_all(), now) {
            self.mark_assignment(task, store);
        }
        self.assignments.flush(store, &self.gates, effects);
        self.arm_timers();
    }

    fn arm_timers(&mut self) {
        self.timers.set(Timer::Fleet, self.fleet.next_deadline());
        self.timers.set(Timer::Gates, self.gates.next_deadline());
        self.timers.set(Timer::Mesh, self.mesh.next_flush());
    }

    /// Every node that has tasks has reported them, or is past its grace period.
    fn truth_is_known(&self, store: &Store) -> bool {
        self.fleet.unknown().all(|node| store.tasks_on_node(node).all(|task| task.outcome.is_some()))
    }

    fn mark_assignment(&mut self, task: TaskId, store: &Store) {
        if let Some(node) = store.task(task).and_then(|task| task.node) {
            self.assignments.mark(node, task);
        }
    }

    fn expire_nodes(&mut self, store: &Store, now: Timestamp, watch: &mut Watch, effects: &mut Vec<Effect>) {
        for lost in self.fleet.expire(now) {
            tracing::warn!(node.id = %lost.node, "node is down: nothing was heard of it");
            if let Some(session) = lost.session {
                effects.push(Effect::CloseSession { session, reason: CloseReason::Silent(lost.node) });
            }
            self.mesh.disconnect(lost.node);
            self.assignments.close(lost.node);
            self.node_changed_state(lost.node, store, watch);
        }
    }

    /// The node came or went: what its tasks are worth is decided anew.
    fn node_changed_state(&mut self, node: NodeId, store: &Store, watch: &mut Watch) {
        watch.node(node);
        if let Some(node) = store.node(node) {
            self.planner.upsert_node(node, &self.fleet);
        }
        for task in store.tasks_on_node(node).filter(|task| task.outcome.is_none()) {
            self.refresh_serving(task.id, store, watch);
            self.disturb(task);
        }
    }

    /// What the task's slot needs is decided anew.
    fn disturb(&mut self, task: &Task) {
        self.unrest.note(task);
        self.dirty.insert(task.service);
    }
}
