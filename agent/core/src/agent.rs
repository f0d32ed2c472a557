//! The state machine: [`AgentCore::handle`] routes, its parts act.
//!
//! Events change facts and mark tasks; [`Event::Wakeup`] looks at what is marked and at the deadlines that have come,
//! and emits, in this order: what to write down, what to do on the node, what to tell the manager.

mod recover;
mod session;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_model::{AgentMessage, Assignment, TaskId, TaskStatus, Timestamp};

use crate::door::{Change, Config, Effect, Event, Found, ImageRefKey, NodeRecord, Operation, Recovered};
use crate::lane::Lane;
use crate::link::{Connection, Dialer};
use crate::mesh::MeshFollower;
use crate::report::Outbox;
use crate::table::Table;
use crate::task::Entry;
use crate::timer::{Timer, Timers};
use tasks::Removal;

/// Between a failure of the kernel's network interfaces and the next try.
const NETWORK_RETRY: Duration = Duration::from_secs(2);
/// Between two looks for images that nobody uses.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(600);

/// One node's agent. See the crate's description for what it guarantees.
#[derive(Debug)]
pub struct AgentCore {
    config: Config,
    dialer: Dialer,
    /// What of the node's own record is on disk, and what should be.
    node: NodeRecord,
    node_on_disk: NodeRecord,
    heartbeat: Duration,
    /// Heartbeats that were sent since the manager last said something.
    unanswered: u32,
    assignments: Table,
    /// A manager has told this process everything that is assigned.
    confirmed: bool,
    tasks: BTreeMap<TaskId, Entry>,
    removals: BTreeMap<TaskId, Removal>,
    /// Containers without a record, until a manager says whether they are wanted.
    strays: BTreeMap<TaskId, Found>,
    prepare: Lane,
    start: Lane,
    remove: Lane,
    /// Tasks whose next step is to be looked at.
    marked: BTreeSet<TaskId>,
    /// Tasks that could start, but for a port or address that another one here still has.
    blocked: BTreeSet<TaskId>,
    /// Tasks whose record on disk is not what it should be.
    unsaved: BTreeSet<TaskId>,
    forgotten: BTreeSet<TaskId>,
    outbox: Outbox,
    network: Network,
    mesh: MeshFollower,
    timers: Timers,
    /// Operations of the current batch.
    operations: Vec<Operation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Closed,
    Opening,
    Open,
}

impl AgentCore {
    /// A core that goes on from what an earlier process left. Follow it with [`Event::Wakeup`].
    pub fn new(config: Config, recovered: Recovered, now: Timestamp) -> Self {
        let known = &recovered.node.managers;
        let managers = if known.is_empty() { config.managers.clone() } else { known.clone() };
        let mut core = Self {
            dialer: Dialer::new(managers, config.seed),
            node: recovered.node.clone(),
            node_on_disk: recovered.node.clone(),
            heartbeat: Duration::ZERO,
            unanswered: 0,
            assignments: Table::default(),
            confirmed: false,
            tasks: BTreeMap::new(),
            removals: BTreeMap::new(),
            strays: BTreeMap::new(),
            prepare: Lane::new(config.parallelism.prepare),
            start: Lane::new(config.parallelism.start),
            remove: Lane::new(config.parallelism.remove),
            marked: BTreeSet::new(),
            blocked: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            outbox: Outbox::default(),
            network: Network::Closed,
            mesh: MeshFollower::default(),
            timers: Timers::default(),
            operations: Vec::new(),
            config,
        };
        core.recover(recovered, now);
        core.open_network();
        core.timers.set(Timer::Connect, now);
        core
    }

    /// Takes in one event. The effects of a batch come at its [`Event::Wakeup`], except those of the session.
    pub fn handle(&mut self, now: Timestamp, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Wakeup => self.wake_up(now, effects),
            Event::SessionOpened { session } => self.session_opened(now, session, effects),
            Event::SessionMessage { session, message } => {
                self.session_message(now, session, message, effects)
            }
            Event::SessionClosed { session, reason } => self.session_closed(now, session, reason),
            Event::ManagersNamed { managers } => self.managers_named(now, managers, effects),
            Event::NetworkOpened { result } => self.network_opened(now, result),
            Event::MeshProgrammed { result } => self.mesh_programmed(now, result, effects),
            Event::Prepared { task, result } => self.prepared(now, task, result),
            Event::Started { task, result } => self.started(now, task, result),
            Event::Exited { task, exit } => self.exited(now, task, exit),
            Event::Removed { task, result } => self.removed(now, task, result),
            Event::Progress { task, message } => self.progress(task, message),
        }
    }

    /// When to come back at the latest, if nothing else happens.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    pub fn connection(&self) -> Connection {
        self.dialer.connection()
    }

    /// A task that is assigned and not being removed: its orders, and how far it is.
    pub fn task(&self, task: TaskId) -> Option<(&Assignment, &TaskStatus)> {
        self.tasks.get(&task).map(|entry| (&*entry.assignment, &entry.status))
    }

    /// Tasks of which anything is on this node.
    pub fn task_count(&self) -> usize {
        self.tasks.len() + self.removals.len()
    }

    fn wake_up(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now) {
            self.fire(now, timer, effects);
        }
        self.take_steps(now);
        self.fill_lanes(now);
        self.program_mesh();
        self.persist(effects);
        effects.extend(self.operations.drain(..).map(Effect::Operate));
        self.report(now, effects);
    }

    fn fire(&mut self, now: Timestamp, timer: Timer, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Connect => self.connect(effects),
            Timer::Welcome => {
                self.hang_up(now, "the manager did not answer the registration".to_owned(), effects)
            }
            Timer::Heartbeat => self.beat(now, effects),
            Timer::Report => self.outbox.hurry(),
            Timer::Prepare(task) => self.prepare_again(task),
            Timer::Kill(task) => self.grace_is_over(now, task),
            Timer::Remove(task) => self.remove.enter(task),
            Timer::Mesh => self.mesh.retry(),
            Timer::Network => self.open_network(),
            Timer::CollectGarbage => self.collect_garbage(now),
        }
    }

    fn persist(&mut self, effects: &mut Vec<Effect>) {
        let mut changes = Vec::new();
        if self.node != self.node_on_disk {
            self.node_on_disk = self.node.clone();
            changes.push(Change::Node(self.node.clone()));
        }
        for task in std::mem::take(&mut self.unsaved) {
            let removal = || self.removals.get(&task)?.record.clone();
            changes.extend(self.tasks.get(&task).map(Entry::record).or_else(removal).map(Change::Task));
        }
        changes.extend(std::mem::take(&mut self.forgotten).into_iter().map(Change::Forget));
        if !changes.is_empty() {
            effects.push(Effect::Persist(changes));
        }
    }

    fn report(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.outbox.is_empty() {
            return;
        }
        // Without a manager nothing is lost: the next session opens with everything.
        let Some(session) = self.dialer.up() else { return };
        if !self.outbox.is_urgent() {
            self.timers.set_if_unset(Timer::Report, now + Outbox::PATIENCE);
            return;
        }
        self.timers.clear(Timer::Report);
        for statuses in self.outbox.take() {
            effects.push(Effect::Send { session, message: AgentMessage::Statuses(statuses) });
        }
    }

    fn open_network(&mut self) {
        if let (Some(place), Network::Closed) = (self.node.place, self.network) {
            self.network = Network::Opening;
            self.operations.push(Operation::OpenNetwork(place));
        }
    }

    fn network_opened(&mut self, now: Timestamp, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.network = Network::Open;
                self.mesh.reprogram();
            }
            Err(error) => {
                tracing::error!(error, "the node's network cannot be opened");
                self.network = Network::Closed;
                self.timers.set(Timer::Network, now + NETWORK_RETRY);
            }
        }
    }

    fn program_mesh(&mut self) {
        if self.network == Network::Open
            && let Some(mesh) = self.mesh.next()
        {
            self.operations.push(Operation::ProgramMesh(mesh));
        }
    }

    fn mesh_programmed(&mut self, now: Timestamp, result: Result<(), String>, effects: &mut Vec<Effect>) {
        match result {
            Ok(()) => {
                if let (Some(version), Some(session)) = (self.mesh.programmed(), self.dialer.up()) {
                    effects.push(Effect::Send { session, message: AgentMessage::MeshApplied(version) });
                }
            }
            Err(error) => {
                tracing::error!(error, "published ports cannot be programmed");
                self.mesh.failed();
                self.timers.set(Timer::Mesh, now + NETWORK_RETRY);
            }
        }
    }

    fn collect_garbage(&mut self, now: Timestamp) {
        let removing =
            self.removals.values().filter_map(|removal| Some(&removal.record.as_ref()?.assignment));
        let assigned = self.tasks.values().map(|entry| &entry.assignment).chain(removing);
        let images = assigned.map(|assignment| ImageRefKey::from(&assignment.spec.container.image)).collect();
        self.operations.push(Operation::CollectGarbage { images });
        self.timers.set(Timer::CollectGarbage, now + GARBAGE_INTERVAL);
    }
}

#[cfg(test)]
mod tests;
