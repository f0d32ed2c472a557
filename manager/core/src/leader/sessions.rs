//! What agents say: registrations, heartbeats, statuses, acknowledgements.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_model::{
    AgentMessage, DesiredState, ManagerMessage, NodeId, NodeState, Registration, Task, TaskId, TaskState,
    TaskStatus, Timestamp, Welcome,
};

use super::Leader;
use crate::dispatcher::Seen;
use crate::door::{CloseReason, Effect, SessionId};
use crate::store::Store;
use crate::watch::Watch;

impl Leader {
    /// A node of the cluster opened a session. A newer session replaces an older one.
    #[expect(clippy::too_many_arguments, reason = "an event with its surroundings, taken apart once")]
    pub fn open_session(
        &mut self,
        session: SessionId,
        node: NodeId,
        registration: Registration,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
        effects: &mut Vec<Effect>,
    ) {
        let interval = self.interval(store);
        let before = self.fleet.state(node);
        if let Some(session) = self.fleet.open(node, session, now, interval) {
            effects.push(Effect::CloseSession { session, reason: CloseReason::Superseded(node) });
        }
        effects.extend(
            self.welcome(node, interval, store)
                .map(|message| Effect::Session { session, message: ManagerMessage::Welcome(message) }),
        );
        effects.extend(self.trust(session, store));
        self.assignments.open(node, session);
        self.mesh.connect(node, session);
        if store.node(node).is_some_and(|known| known.engine != registration.engine) {
            self.descriptions.insert(node, registration.engine);
        }
        let reported: BTreeSet<TaskId> = registration.statuses.iter().map(|(task, _)| *task).collect();
        for (task, status) in registration.statuses {
            self.note_status(node, task, status, store, now, watch);
        }
        self.note_unreported(node, &reported, store, now, watch);
        if before == NodeState::Ready {
            watch.node(node);
            if let Some(node) = store.node(node) {
                self.planner.upsert_node(node, &self.fleet);
            }
        } else {
            tracing::info!(node.id = %node, "node is ready");
            self.node_changed_state(node, store, watch);
        }
    }

    fn welcome(&mut self, node: NodeId, interval: Duration, store: &Store) -> Option<Welcome> {
        let cluster = store.cluster()?;
        let role = store.node(node)?.acting_role();
        self.told_roles.insert(node, role);
        Some(Welcome {
            role,
            cluster: cluster.id,
            node,
            index: store.node(node)?.index,
            gateway_pool: cluster.gateway_pool,
            heartbeat_ms: millis(interval),
            managers: self.manager_addresses(),
        })
    }

    pub fn hear(
        &mut self,
        session: SessionId,
        message: AgentMessage,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
        effects: &mut Vec<Effect>,
    ) {
        // A session that was replaced or closed may still have had words on the way.
        let Some(node) = self.fleet.heard(session, now) else { return };
        match message {
            AgentMessage::Heartbeat => {
                let interval = self.interval(store);
                self.fleet.tell_interval(node, interval);
                let message = ManagerMessage::Heartbeat { heartbeat_ms: millis(interval) };
                effects.push(Effect::Session { session, message });
            }
            AgentMessage::Statuses(statuses) => {
                for (task, status) in statuses {
                    self.note_status(node, task, status, store, now, watch);
                }
            }
            AgentMessage::Certified(root) => self.certified(node, root),
            AgentMessage::MeshApplied(version) => self.mesh.acknowledge(node, version),
            AgentMessage::NeedFull => {
                self.assignments.send_all_again(node);
                self.mesh.send_all_again(node);
            }
        }
    }

    /// The node keeps its state until its deadline, but gets nothing new while its agent is away.
    pub fn close_session(&mut self, session: SessionId, store: &Store, watch: &mut Watch) {
        let Some(node) = self.fleet.close(session) else { return };
        self.assignments.close(node);
        self.mesh.disconnect(node);
        self.told_roles.remove(&node);
        watch.node(node);
        if let Some(node) = store.node(node) {
            self.planner.upsert_node(node, &self.fleet);
        }
    }

    fn note_status(
        &mut self,
        node: NodeId,
        id: TaskId,
        status: TaskStatus,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
    ) {
        // An agent speaks only about its own tasks. What it holds without being assigned it, it is told to remove.
        let Some(task) = store.task(id).filter(|task| task.node == Some(node)) else {
            if !status.state.is_final() {
                self.assignments.mark(node, id);
            }
            return;
        };
        if task.outcome.is_some() {
            return;
        }
        let state = status.state;
        match self.observations.note(id, status, now) {
            Seen::Stale => return,
            Seen::Detail => {}
            Seen::Rose => {
                self.unrest.note(task);
                self.refresh_serving(id, store, watch);
                if state.is_final() && self.gates.is_held(id) {
                    self.gates.release(id);
                    self.assignments.mark(node, id);
                }
                if state.is_final() || self.planner.awaits_start(task.service) {
                    self.dirty.insert(task.service);
                }
            }
        }
        watch.task(id);
    }

    /// A registration names every task that the agent holds anything of. What it held before and does not name is gone;
    /// what it was told to stop and does not name has stopped.
    fn note_unreported(
        &mut self,
        node: NodeId,
        reported: &BTreeSet<TaskId>,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
    ) {
        let missing: Vec<(TaskId, TaskStatus)> = store
            .tasks_on_node(node)
            .filter(|task| task.outcome.is_none() && !reported.contains(&task.id))
            .filter_map(|task| Some((task.id, self.lost_status(task, now)?)))
            .collect();
        for (task, status) in missing {
            self.note_status(node, task, status, store, now, watch);
        }
    }

    fn lost_status(&self, task: &Task, at: Timestamp) -> Option<TaskStatus> {
        let (state, error) = if task.desired > DesiredState::Running {
            (TaskState::Shutdown, "")
        } else if self.observations.state(task.id) >= Some(TaskState::Accepted) {
            (TaskState::Failed, "its node no longer knows the task")
        } else {
            return None;
        };
        Some(TaskStatus {
            state,
            at,
            message: String::new(),
            error: error.to_owned(),
            exit_code: None,
            oom_killed: false,
            pid: None,
        })
    }
}

fn millis(interval: Duration) -> u32 {
    u32::try_from(interval.as_millis()).unwrap_or(u32::MAX)
}
