//! A host: an agent that obeys, and tasks that do as they are told unless the scenario says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use swarm_manager_core::door::SessionId;
use swarm_model::{
    AgentMessage, Assignment, AssignmentsDelta, DesiredState, EngineDescription, ManagerMessage, MeshDelta,
    NodeId, Protocol, Registration, TableVersion, TaskId, TaskState, TaskStatus, Timestamp,
};

/// From one state of a task to the next.
const STEP: Duration = Duration::from_millis(2);

pub struct Held {
    pub assignment: Assignment,
    pub state: TaskState,
    /// When it reaches the next state.
    next: Option<Timestamp>,
    exit_code: Option<i32>,
    error: &'static str,
}

pub struct Agent {
    pub node: NodeId,
    pub engine: EngineDescription,
    link: Option<(usize, SessionId)>,
    gone: bool,
    tasks: BTreeMap<TaskId, Held>,
    /// Statuses that the manager was not told yet.
    unreported: BTreeSet<TaskId>,
    /// What is to be said of tasks that are not here any more, or never were.
    last_words: BTreeMap<TaskId, TaskStatus>,
    assigned: TableVersion,
    meshed: TableVersion,
    pub mesh: BTreeMap<(Protocol, u16), Vec<SocketAddrV4>>,
    pub mesh_nodes: BTreeSet<u16>,
    heartbeat: Duration,
    next_beat: Timestamp,
    due: Timestamp,
    line: Timestamp,
    uplink: Timestamp,
    /// Acknowledges no mesh.
    pub is_deaf: bool,
    /// New tasks fail instead of starting, while this is set.
    pub fails: Option<&'static str>,
    /// What a task was when the agent was told to stop it: (task, backends of all ports at that time).
    pub stops: Vec<(TaskId, Timestamp)>,
    /// Differences that did not fit.
    pub gaps: u32,
}

pub struct Outcome {
    pub messages: Vec<AgentMessage>,
    pub next: Timestamp,
}

impl Agent {
    pub fn new(node: NodeId, engine: EngineDescription) -> Self {
        Self {
            node,
            engine,
            link: None,
            gone: false,
            tasks: BTreeMap::new(),
            unreported: BTreeSet::new(),
            last_words: BTreeMap::new(),
            assigned: TableVersion::default(),
            meshed: TableVersion::default(),
            mesh: BTreeMap::new(),
            mesh_nodes: BTreeSet::new(),
            heartbeat: Duration::from_secs(1),
            next_beat: Timestamp::ZERO,
            due: Timestamp::ZERO,
            line: Timestamp::ZERO,
            uplink: Timestamp::ZERO,
            is_deaf: false,
            fails: None,
            stops: Vec::new(),
            gaps: 0,
        }
    }

    pub fn session(&self) -> Option<SessionId> {
        self.link.map(|(_, session)| session).filter(|_| !self.gone)
    }

    pub fn manager(&self) -> Option<usize> {
        self.link.map(|(manager, _)| manager)
    }

    pub fn session_with(&self, manager: usize) -> Option<SessionId> {
        self.link.filter(|(other, _)| *other == manager).map(|(_, session)| session)
    }

    pub fn is_gone(&self) -> bool {
        self.gone
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.link.is_none() || self.due <= now
    }

    pub fn line_free(&self, now: Timestamp) -> Duration {
        self.line.since(now)
    }

    pub fn line_busy(&mut self, until: Timestamp) {
        self.line = until;
    }

    pub fn uplink_free(&self, now: Timestamp) -> Duration {
        self.uplink.since(now)
    }

    pub fn uplink_busy(&mut self, until: Timestamp) {
        self.uplink = until;
    }

    pub fn vanish(&mut self) {
        self.gone = true;
        self.tasks.clear();
    }

    /// The host comes back after a reboot, with nothing running.
    pub fn come_back(&mut self) {
        self.gone = false;
        self.link = None;
        self.assigned = TableVersion::default();
        self.meshed = TableVersion::default();
    }

    pub fn connect(&mut self, manager: usize, session: SessionId, now: Timestamp) -> Registration {
        self.link = Some((manager, session));
        self.next_beat = now + self.heartbeat;
        self.unreported.clear();
        let statuses = self.tasks.iter().map(|(id, held)| (*id, held.status(now))).collect();
        Registration { engine: self.engine.clone(), statuses }
    }

    pub fn disconnect(&mut self) -> Option<(usize, SessionId)> {
        self.link.take()
    }

    pub fn tasks(&self) -> &BTreeMap<TaskId, Held> {
        &self.tasks
    }

    /// The container ends by itself.
    pub fn end(&mut self, task: TaskId, exit_code: i32) {
        let held = self.tasks.get_mut(&task).expect("the task is here");
        held.state = if exit_code == 0 { TaskState::Complete } else { TaskState::Failed };
        held.exit_code = Some(exit_code);
        held.error = if exit_code == 0 { "" } else { "exited with an error" };
        held.next = None;
        self.unreported.insert(task);
        self.due = Timestamp::ZERO;
    }

    pub fn receive(&mut self, message: ManagerMessage, now: Timestamp) -> Vec<AgentMessage> {
        self.due = Timestamp::ZERO;
        match message {
            ManagerMessage::Welcome(welcome) => {
                self.heartbeat = Duration::from_millis(u64::from(welcome.heartbeat_ms));
                self.next_beat = now + self.heartbeat;
                Vec::new()
            }
            ManagerMessage::Assignments(delta) => self.assign(delta, now),
            ManagerMessage::Mesh(delta) => self.program(delta),
            ManagerMessage::Trust(roots) => {
                vec![AgentMessage::Certified(roots.lines().last().unwrap_or_default().to_owned())]
            }
            ManagerMessage::SubscribeLogs(_)
            | ManagerMessage::CancelLogs(_)
            | ManagerMessage::Managers(_)
            | ManagerMessage::Heartbeat { .. } => Vec::new(),
        }
    }

    fn assign(&mut self, delta: AssignmentsDelta, now: Timestamp) -> Vec<AgentMessage> {
        assert!(
            delta.version.epoch >= self.assigned.epoch,
            "an instruction of a deposed leader came through"
        );
        if delta.base.is_some_and(|base| base != self.assigned) {
            self.gaps += 1;
            return vec![AgentMessage::NeedFull];
        }
        if delta.base.is_none() {
            let named: BTreeSet<TaskId> = delta.upsert.iter().map(|assignment| assignment.task).collect();
            let unnamed: Vec<TaskId> = self.tasks.keys().filter(|id| !named.contains(id)).copied().collect();
            unnamed.into_iter().for_each(|id| self.stop(id, now, true));
        }
        self.assigned = delta.version;
        for assignment in delta.upsert {
            self.take(assignment, now);
        }
        for task in delta.remove {
            self.stop(task, now, true);
        }
        Vec::new()
    }

    fn take(&mut self, assignment: Assignment, now: Timestamp) {
        let id = assignment.task;
        let stops = assignment.desired > DesiredState::Running;
        match self.tasks.get_mut(&id) {
            Some(held) => {
                assert!(assignment.desired >= held.assignment.desired, "desired states only rise");
                held.assignment = assignment;
            }
            None => {
                let held = Held {
                    assignment,
                    state: TaskState::Accepted,
                    next: Some(now + STEP),
                    exit_code: None,
                    error: "",
                };
                self.tasks.insert(id, held);
                self.unreported.insert(id);
            }
        }
        if stops {
            self.stop(id, now, false);
        } else if let Some(held) = self.tasks.get_mut(&id)
            && held.state == TaskState::Ready
        {
            held.next = Some(now + STEP);
        }
    }

    fn stop(&mut self, id: TaskId, now: Timestamp, forget: bool) {
        let Some(held) = self.tasks.get_mut(&id) else {
            self.last_words.insert(id, gone(now));
            return;
        };
        if !held.state.is_final() && held.assignment.desired != DesiredState::Remove {
            self.stops.push((id, now));
            held.next = Some(now + STEP);
        }
        held.assignment.desired = if forget { DesiredState::Remove } else { DesiredState::Shutdown };
        if forget && held.state.is_final() {
            if self.unreported.remove(&id) {
                self.last_words.insert(id, held.status(now));
            }
            self.tasks.remove(&id);
        }
    }

    fn program(&mut self, delta: MeshDelta) -> Vec<AgentMessage> {
        if delta.base.is_some_and(|base| base != self.meshed) {
            self.gaps += 1;
            return vec![AgentMessage::NeedFull];
        }
        if delta.base.is_none() {
            self.mesh.clear();
            self.mesh_nodes.clear();
        }
        self.meshed = delta.version;
        for (index, address) in delta.nodes {
            match address {
                Some(_) => self.mesh_nodes.insert(index),
                None => self.mesh_nodes.remove(&index),
            };
        }
        for (port, backends) in delta.ports {
            match backends {
                Some(backends) => self.mesh.insert(port, backends),
                None => self.mesh.remove(&port),
            };
        }
        if self.is_deaf { Vec::new() } else { vec![AgentMessage::MeshApplied(delta.version)] }
    }

    pub fn step(&mut self, now: Timestamp) -> Outcome {
        let fails = self.fails;
        let mut forgotten = Vec::new();
        for (id, held) in &mut self.tasks {
            if held.next.is_some_and(|next| next <= now) {
                held.advance(now, fails);
                self.unreported.insert(*id);
                if held.state.is_final() && held.assignment.desired == DesiredState::Remove {
                    forgotten.push(*id);
                }
            }
        }
        let mut messages = Vec::new();
        if self.link.is_some() && !self.unreported.is_empty() {
            let reported = std::mem::take(&mut self.unreported);
            let status = |id: &TaskId| Some((*id, self.tasks.get(id)?.status(now)));
            messages.push(AgentMessage::Statuses(reported.iter().filter_map(status).collect()));
            for id in forgotten {
                self.tasks.remove(&id);
            }
        }
        if self.link.is_some() && !self.last_words.is_empty() {
            messages.push(AgentMessage::Statuses(std::mem::take(&mut self.last_words).into_iter().collect()));
        }
        if self.next_beat <= now {
            self.next_beat = now + self.heartbeat;
            messages.push(AgentMessage::Heartbeat);
        }
        let next = self.tasks.values().filter_map(|held| held.next).min();
        self.due = next.map_or(self.next_beat, |next| next.min(self.next_beat));
        Outcome { messages, next: self.due }
    }
}

fn gone(at: Timestamp) -> TaskStatus {
    TaskStatus {
        state: TaskState::Shutdown,
        at,
        message: String::new(),
        error: String::new(),
        exit_code: None,
        oom_killed: false,
        pid: None,
    }
}

impl Held {
    fn status(&self, at: Timestamp) -> TaskStatus {
        TaskStatus {
            state: self.state,
            at,
            message: String::new(),
            error: self.error.to_owned(),
            exit_code: self.exit_code,
            oom_killed: false,
            pid: None,
        }
    }

    fn advance(&mut self, now: Timestamp, fails: Option<&'static str>) {
        self.next = Some(now + STEP);
        if self.assignment.desired > DesiredState::Running {
            self.state = TaskState::Shutdown;
            self.next = None;
            return;
        }
        match self.state {
            TaskState::Accepted => self.state = TaskState::Preparing,
            TaskState::Preparing => {
                self.state = TaskState::Ready;
                if self.assignment.desired == DesiredState::Ready {
                    self.next = None;
                }
            }
            TaskState::Ready => {
                if let Some(error) = fails {
                    self.state = TaskState::Failed;
                    self.exit_code = Some(1);
                    self.error = error;
                } else {
                    self.state = TaskState::Running;
                }
                self.next = None;
            }
            _ => self.next = None,
        }
    }
}
