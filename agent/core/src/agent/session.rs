//! The session with a manager: registration, welcome, the two tables, heartbeats.

use std::time::Duration;

use swarm_model::{
    AgentMessage, Assignment, AssignmentsDelta, ManagerMessage, MeshDelta, Registration, Timestamp, Welcome,
};

use super::{AgentCore, GARBAGE_INTERVAL, Network};
use crate::door::{Change, Closed, Effect, Place, SessionId};
use crate::link::Link;
use crate::table::Verdict;
use crate::timer::Timer;

/// From the registration to the manager's welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);
/// Beats without an answer before a manager is left.
const PATIENCE: u32 = 2;
/// The interval told by a manager is taken within these bounds.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// Managers of hearsay are kept up to so many: some have gone since.
const MANAGERS_LIMIT: usize = 32;

impl AgentCore {
    pub(super) fn connect(&mut self, effects: &mut Vec<Effect>) {
        if let Some((session, manager)) = self.dialer.dial() {
            effects.push(Effect::Connect { session, manager });
        }
    }

    pub(super) fn session_opened(&mut self, now: Timestamp, session: SessionId, effects: &mut Vec<Effect>) {
        if !self.dialer.opened(session) {
            return;
        }
        // Statuses of tasks that are gone already have no entry, and nothing else would tell them.
        let mut statuses = self.outbox.take_all();
        let removals = self.removals.iter();
        statuses.extend(removals.filter_map(|(task, removal)| Some((*task, removal.status()?.clone()))));
        statuses.extend(self.tasks.iter().map(|(task, entry)| (*task, entry.status.clone())));
        let registration =
            Registration { engine: self.config.engine.clone(), statuses: statuses.into_iter().collect() };
        effects.push(Effect::Register { session, registration });
        self.timers.set(Timer::Welcome, now + WELCOME_LIMIT);
    }

    pub(super) fn session_closed(&mut self, now: Timestamp, session: SessionId, reason: Closed) {
        let was_up = self.dialer.up().is_some();
        match (was_up, self.dialer.current() == Some(session)) {
            (true, true) => tracing::info!(?reason, "the session with the manager ended"),
            (false, true) => tracing::debug!(?reason, "no session with the manager"),
            (_, false) => {}
        }
        if let Some(retry_at) = self.dialer.closed(now, session, reason) {
            self.timers.clear(Timer::Welcome);
            self.timers.clear(Timer::Heartbeat);
            self.timers.clear(Timer::Report);
            self.timers.set(Timer::Connect, retry_at);
        }
    }

    /// Ends the session from our side.
    pub(super) fn hang_up(&mut self, now: Timestamp, error: String, effects: &mut Vec<Effect>) {
        if let Some(session) = self.dialer.current() {
            effects.push(Effect::Disconnect { session });
            self.session_closed(now, session, Closed::Failed(error));
        }
    }

    /// A manager that left two beats unanswered cannot be heard: another one may lead by now, and would soon take this node
    /// for lost. One may have more to do at the moment than answer at once, and dialling it anew is more work for it.
    pub(super) fn beat(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(session) = self.dialer.up() else { return };
        if self.unanswered == PATIENCE {
            self.hang_up(now, "the manager does not answer".to_owned(), effects);
        } else {
            self.unanswered += 1;
            effects.push(Effect::Send { session, message: AgentMessage::Heartbeat });
            self.timers.set(Timer::Heartbeat, now + self.heartbeat);
        }
    }

    pub(super) fn session_message(
        &mut self,
        now: Timestamp,
        session: SessionId,
        message: ManagerMessage,
        effects: &mut Vec<Effect>,
    ) {
        if self.dialer.registered() != Some(session) {
            return;
        }
        let welcomed = self.dialer.up().is_some();
        self.unanswered = 0;
        match message {
            ManagerMessage::Welcome(welcome) => self.welcomed(now, welcome, effects),
            ManagerMessage::Assignments(_) | ManagerMessage::Mesh(_) if !welcomed => {
                self.hang_up(now, "the manager sent orders before its welcome".to_owned(), effects);
            }
            ManagerMessage::Assignments(delta) => self.receive_assignments(now, session, delta, effects),
            ManagerMessage::Mesh(delta) => self.receive_mesh(now, session, delta, effects),
            // Log streams are calls of their own: whoever drives the core answers them.
            ManagerMessage::SubscribeLogs(_) | ManagerMessage::CancelLogs(_) => {}
            ManagerMessage::Heartbeat { heartbeat_ms: 0 } => {}
            ManagerMessage::Heartbeat { heartbeat_ms } => self.set_heartbeat(heartbeat_ms),
            // So are certificates.
            ManagerMessage::Trust(_) => {}
            ManagerMessage::Managers(addresses) if welcomed => self.managers_changed(addresses, effects),
            // A manager that does not lead may be the one that is out of date.
            ManagerMessage::Managers(addresses) => {
                let known = self.dialer.managers().to_vec();
                self.managers_changed(merged(known, addresses), effects);
            }
        }
    }

    fn set_heartbeat(&mut self, millis: u32) {
        self.heartbeat = Duration::from_millis(millis.into()).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
    }

    fn welcomed(&mut self, now: Timestamp, welcome: Welcome, effects: &mut Vec<Effect>) {
        let (cluster, node) = (self.config.cluster, self.config.node);
        if (welcome.cluster, welcome.node) != (cluster, node) {
            let (other_cluster, other_node) = (welcome.cluster, welcome.node);
            let error = format!(
                "the manager is of cluster {other_cluster} and takes this node for {other_node}; this is node {node} of cluster {cluster}"
            );
            return self.hang_up(now, error, effects);
        }
        self.dialer.welcomed(&welcome.managers);
        self.assignments.session_changed();
        self.mesh.table.session_changed();
        self.timers.clear(Timer::Welcome);
        self.set_heartbeat(welcome.heartbeat_ms);
        self.timers.set(Timer::Heartbeat, now + self.heartbeat);
        if let Link::Up { manager } = self.dialer.connection().link {
            tracing::info!(manager, "connected to the manager");
        }
        if !welcome.managers.is_empty() {
            self.node.managers = welcome.managers;
        }
        let place = Place { index: welcome.index, gateway_pool: welcome.gateway_pool };
        if self.node.place != Some(place) {
            self.node.place = Some(place);
            self.network = Network::Closed;
            self.open_network();
        }
        // Written before anything is done in the new place, or on orders of the new epoch.
        self.persist_node(effects);
    }

    /// Written down at once: after a restart this is all that the node knows of its cluster.
    fn managers_changed(&mut self, addresses: Vec<String>, effects: &mut Vec<Effect>) {
        if !addresses.is_empty() {
            self.dialer.set_managers(&addresses);
            self.node.managers = addresses;
            self.persist_node(effects);
        }
    }

    pub(super) fn managers_named(&mut self, now: Timestamp, named: Vec<String>, effects: &mut Vec<Effect>) {
        let known = self.dialer.managers().to_vec();
        self.managers_changed(merged(named, known), effects);
        if self.dialer.begin_anew() {
            self.timers.set(Timer::Connect, now);
        }
    }

    fn persist_node(&mut self, effects: &mut Vec<Effect>) {
        if self.node != self.node_on_disk {
            self.node_on_disk = self.node.clone();
            effects.push(Effect::Persist(vec![Change::Node(self.node.clone())]));
        }
    }

    fn receive_assignments(
        &mut self,
        now: Timestamp,
        session: SessionId,
        delta: AssignmentsDelta,
        effects: &mut Vec<Effect>,
    ) {
        let (epoch, everything) = (delta.version.epoch, delta.base.is_none());
        let verdict = self.assignments.judge(self.node.epoch, delta.base, delta.version);
        if self.obey(now, session, verdict, epoch, effects) {
            self.node.epoch = epoch;
            if everything {
                self.order_everything(now, &delta);
            }
            for task in delta.remove {
                self.order_removal(now, task);
            }
            for assignment in delta.upsert {
                self.order(now, assignment);
            }
        }
    }

    fn receive_mesh(
        &mut self,
        now: Timestamp,
        session: SessionId,
        delta: MeshDelta,
        effects: &mut Vec<Effect>,
    ) {
        let epoch = delta.version.epoch;
        let verdict = self.mesh.receive(self.node.epoch, delta);
        if self.obey(now, session, verdict, epoch, effects) {
            self.node.epoch = epoch;
            if let Some(version) = self.mesh.acknowledged() {
                effects.push(Effect::Send { session, message: AgentMessage::MeshApplied(version) });
            }
        }
    }

    /// Whether a table's message is to be acted on; if not, what to answer.
    fn obey(
        &mut self,
        now: Timestamp,
        session: SessionId,
        verdict: Verdict,
        epoch: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match verdict {
            Verdict::Replace | Verdict::Advance => return true,
            Verdict::Gap => effects.push(Effect::Send { session, message: AgentMessage::NeedFull }),
            Verdict::Stale => {}
            Verdict::Deposed => {
                let newest = self.node.epoch;
                let error = format!("the manager led in term {epoch}, but {newest} has begun");
                self.hang_up(now, error, effects);
            }
        }
        false
    }

    /// A list of everything: what it does not name is to be removed, containers without a record among it.
    fn order_everything(&mut self, now: Timestamp, delta: &AssignmentsDelta) {
        if !self.confirmed {
            self.confirmed = true;
            self.marked.extend(self.tasks.keys());
            self.timers.set(Timer::CollectGarbage, now + GARBAGE_INTERVAL);
        }
        let named: std::collections::BTreeSet<_> = delta.upsert.iter().map(|one| one.task).collect();
        let unnamed: Vec<_> = self.tasks.keys().filter(|task| !named.contains(task)).copied().collect();
        for task in unnamed {
            self.order_removal(now, task);
        }
        for (task, found) in std::mem::take(&mut self.strays) {
            match delta.upsert.iter().find(|assignment| assignment.task == task) {
                Some(assignment) => self.take_in(now, Assignment::clone(assignment), found),
                None => self.remove_stray(task),
            }
        }
    }
}

/// Those of `first`, then the others.
fn merged(mut first: Vec<String>, others: Vec<String>) -> Vec<String> {
    for address in others {
        if !first.contains(&address) {
            first.push(address);
        }
    }
    first.truncate(MANAGERS_LIMIT);
    first
}
