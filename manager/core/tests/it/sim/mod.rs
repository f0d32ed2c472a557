//! A cluster in one thread: manager cores, disks, agents, network and clock, all of one seed.
//!
//! Nothing here sleeps or runs beside: what happens is a queue ordered by time, then by number. The same seed gives the
//! same run. Faults are asked for by the scenario: crash, cut, vanish.

mod agent;
mod disk;
mod manager;
pub mod specs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use swarm_manager_core::api::{ApiError, Change, ManagerStatus, Request, Response, TaskView};
use swarm_manager_core::door::{Effect, Event, Leadership, RequestId, SessionId};
use swarm_model::{AgentMessage, DesiredState, ManagerMessage, NodeId, Registration, TaskState, Timestamp};

pub use agent::Agent;
pub use manager::Manager;

use crate::checks;

/// What will happen, and when.
enum Happening {
    /// To a manager, if it still is the same process.
    Event {
        manager: usize,
        life: u32,
        event: Event,
    },
    Wakeup {
        manager: usize,
        life: u32,
    },
    ToAgent {
        agent: usize,
        session: SessionId,
        message: ManagerMessage,
    },
    AgentClosed {
        agent: usize,
        session: SessionId,
    },
    /// An agent's own clock.
    AgentStep {
        agent: usize,
    },
}

pub struct World {
    pub seed: u64,
    pub now: Timestamp,
    pub managers: Vec<Manager>,
    pub agents: Vec<Agent>,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    happenings: u64,
    randomness: ChaCha12Rng,
    next_request: u64,
    next_session: u64,
    replies: BTreeMap<RequestId, Result<Response, ApiError>>,
    /// Which manager leads which term, as they said.
    pub leaders: BTreeMap<u64, usize>,
    pub mirror: checks::Mirror,
    mirror_request: Option<RequestId>,
    /// Entries handed to a disk, in all.
    pub entries_written: u64,
    /// The last things that happened, for a failing test.
    trace: Vec<String>,
}

impl World {
    /// Managers with empty disks that are in no cluster yet, and no agents.
    pub fn new(seed: u64, managers: usize) -> Self {
        let mut world = Self {
            seed,
            now: Timestamp::from_micros(1_700_000_000_000_000),
            managers: Vec::new(),
            agents: Vec::new(),
            queue: BTreeMap::new(),
            happenings: 0,
            randomness: ChaCha12Rng::seed_from_u64(seed),
            next_request: 0,
            next_session: 0,
            replies: BTreeMap::new(),
            leaders: BTreeMap::new(),
            mirror: checks::Mirror::default(),
            mirror_request: None,
            entries_written: 0,
            trace: Vec::new(),
        };
        for index in 0..managers {
            world.add_manager(index);
        }
        world
    }

    /// Another manager process, with an empty disk.
    pub fn add_manager(&mut self, index: usize) {
        assert_eq!(index, self.managers.len());
        self.managers.push(Manager::new(index));
        self.start(index);
    }

    /// A cluster that was created through the API and joined by the other managers, with agents connected on as many
    /// nodes. The first nodes are the managers'.
    pub fn with_agents(seed: u64, managers: usize, agents: usize) -> Self {
        let mut world = Self::new(seed, managers);
        let first = specs::new_node(0, true);
        world
            .ask(Request::CreateCluster(Box::new(specs::create_cluster(first))))
            .expect("a cluster is created");
        for index in 1..managers {
            world.ask(Request::AdmitNode(specs::new_node(index, true))).expect("a manager is admitted");
        }
        world.run_until("all managers vote", |world| world.voting() == managers);
        for index in 0..agents {
            world.join(index);
        }
        world.run_until("all nodes are ready", |world| {
            world.nodes().iter().filter(|n| n.state == swarm_model::NodeState::Ready).count() == agents
        });
        world
    }

    /// Node `index` becomes a member, and its agent starts.
    pub fn join(&mut self, index: usize) {
        let new = specs::new_node(index, index < self.managers.len());
        if index >= self.managers.len() {
            self.ask(Request::AdmitNode(new.clone())).expect("a node is admitted");
        }
        self.agents.push(Agent::new(new.id, new.engine));
        self.schedule(Duration::ZERO, Happening::AgentStep { agent: index });
    }

    pub fn random(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.randomness.random_range(range)
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((self.now + after, self.happenings), happening);
    }

    /// One way through the network.
    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.random(100..400))
    }

    // Managers.

    pub fn start(&mut self, index: usize) {
        let mut seed = [0; 32];
        self.randomness.fill(&mut seed);
        let effects = self.managers[index].start(seed, self.now);
        self.note(format!("manager {index} starts"));
        self.perform(index, effects);
    }

    /// Kill -9 and a power cut in one: what was not synced is lost.
    pub fn crash(&mut self, index: usize) {
        self.note(format!("manager {index} crashes"));
        let keep = self.random(0..1 << 32);
        self.managers[index].crash(keep);
        for agent in 0..self.agents.len() {
            if let Some(session) = self.agents[agent].session_with(index) {
                let after = self.latency();
                self.schedule(after, Happening::AgentClosed { agent, session });
            }
        }
        for peer in (0..self.managers.len()).filter(|peer| *peer != index) {
            self.deliver(peer, Event::PeerLost { peer: index as u64 + 1 });
        }
    }

    fn deliver(&mut self, manager: usize, event: Event) {
        let life = self.managers[manager].life;
        let after = self.latency();
        self.schedule(after, Happening::Event { manager, life, event });
    }

    fn handle(&mut self, index: usize, event: Event) {
        let now = self.now;
        let Some(core) = &mut self.managers[index].core else { return };
        let mut effects = Vec::new();
        core.handle(now, event, &mut effects);
        self.perform(index, effects);
        let life = self.managers[index].life;
        // The batch ends a little later, so that events that come together are one batch.
        self.schedule(Duration::from_micros(20), Happening::Wakeup { manager: index, life });
    }

    fn wake(&mut self, index: usize) {
        let now = self.now;
        let Some(core) = &mut self.managers[index].core else { return };
        let mut effects = Vec::new();
        core.handle(now, Event::Wakeup, &mut effects);
        self.perform(index, effects);
    }

    fn perform(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.perform_one(index, effect);
        }
        let life = self.managers[index].life;
        let due = self.managers[index].core.as_ref().and_then(swarm_manager_core::ManagerCore::next_wakeup);
        if let Some(due) = due {
            let after = due.since(self.now);
            if self.managers[index].wakeup_at != Some(due) || after == Duration::ZERO {
                self.managers[index].wakeup_at = Some(due);
                self.schedule(
                    after.max(Duration::from_micros(1)),
                    Happening::Wakeup { manager: index, life },
                );
            }
        }
    }

    fn perform_one(&mut self, index: usize, effect: Effect) {
        let life = self.managers[index].life;
        match effect {
            Effect::Persist(persist) => {
                self.entries_written += persist.entries.len() as u64;
                let ready = persist.ready;
                self.managers[index].disk.write(persist);
                let after = Duration::from_micros(self.random(150..600));
                self.schedule(
                    after,
                    Happening::Event { manager: index, life, event: Event::Persisted { ready } },
                );
            }
            Effect::Checkpoint(checkpoint) => {
                let event = Event::Checkpointed { index: checkpoint.index };
                self.managers[index].disk.write_checkpoint(checkpoint.encode());
                let after = Duration::from_micros(self.random(1_000..20_000));
                self.schedule(after, Happening::Event { manager: index, life, event });
            }
            Effect::TruncateLog { up_to } => self.managers[index].disk.truncate(up_to),
            Effect::SendRaft { to, message } => self.send_raft(index, to, message),
            Effect::SendSnapshot { to, message, state } => self.send_raft(index, to, state.within(&message)),
            Effect::Reply { id, result: Ok(Response::Snapshot { changes, .. }) }
                if self.mirror_request == Some(id) =>
            {
                self.mirror_request = None;
                changes.into_iter().for_each(|change| self.mirror.apply(change));
            }
            Effect::Reply { id, result } => drop(self.replies.insert(id, result)),
            Effect::Session { session, message } => {
                if let Some(agent) = self.agents.iter().position(|a| a.session() == Some(session)) {
                    let after = self.latency().max(self.agents[agent].line_free(self.now));
                    self.agents[agent].line_busy(self.now + after);
                    self.schedule(after, Happening::ToAgent { agent, session, message });
                }
            }
            Effect::CloseSession { session, .. } => {
                if let Some(agent) = self.agents.iter().position(|a| a.session() == Some(session)) {
                    let after = self.latency();
                    self.schedule(after, Happening::AgentClosed { agent, session });
                }
            }
            Effect::Publish(publication) => {
                for change in publication.changes {
                    self.mirror.apply(change);
                }
                checks::check(self);
            }
            Effect::Members(_)
            | Effect::Removed(_)
            | Effect::Autolock(_)
            | Effect::Operators(_)
            | Effect::Happened(_) => {}
            Effect::Leadership(leadership) => self.leadership(index, leadership),
            Effect::Stop { reason } => panic!("seed {}: manager {index} stopped: {reason}", self.seed),
        }
    }

    fn send_raft(&mut self, from: usize, to: u64, message: Bytes) {
        let to = to as usize - 1;
        if self.managers[from].is_cut || self.managers[to].is_cut || self.managers[to].core.is_none() {
            return;
        }
        // In order per pair of members: constant latency.
        let life = self.managers[to].life;
        self.schedule(
            Duration::from_micros(200),
            Happening::Event { manager: to, life, event: Event::Raft { message } },
        );
    }

    fn leadership(&mut self, index: usize, leadership: Leadership) {
        self.note(format!("manager {index}: {leadership:?}"));
        self.managers[index].leads = None;
        if let Leadership::Leader { term } = leadership {
            self.managers[index].leads = Some(term);
            let other = self.leaders.insert(term, index);
            assert!(other.is_none_or(|it| it == index), "seed {}: two leaders in term {term}", self.seed);
            self.mirror = checks::Mirror::default();
            self.next_request += 1;
            let id = RequestId(self.next_request);
            self.mirror_request = Some(id);
            self.deliver(
                index,
                Event::Request { id, by: None, request: Request::Snapshot { service: None, tasks: true } },
            );
        }
    }

    pub fn leader(&self) -> Option<usize> {
        (0..self.managers.len())
            .filter(|index| self.managers[*index].core.is_some() && !self.managers[*index].is_cut)
            .filter_map(|index| Some((self.managers[index].leads?, index)))
            .max()
            .map(|(_, index)| index)
    }

    // Agents.

    /// The host is gone: its agent, its tasks, its connections, without a word.
    pub fn vanish(&mut self, agent: usize) {
        self.note(format!("host {agent} vanishes"));
        self.agents[agent].vanish();
    }

    /// The host is switched on again, with nothing running.
    pub fn revive(&mut self, agent: usize) {
        self.note(format!("host {agent} is back"));
        self.agents[agent].come_back();
        self.schedule(Duration::ZERO, Happening::AgentStep { agent });
    }

    /// The agent process restarts; its tasks run on.
    pub fn restart_agent(&mut self, agent: usize) {
        if let Some((manager, session)) = self.agents[agent].disconnect() {
            self.deliver(manager, Event::SessionClosed { session });
        }
        self.schedule(Duration::from_millis(100), Happening::AgentStep { agent });
    }

    fn agent_step(&mut self, agent: usize) {
        if self.agents[agent].is_gone() {
            return;
        }
        if self.agents[agent].session().is_none() {
            match self.leader() {
                Some(manager) => self.connect(agent, manager),
                None => return self.schedule(Duration::from_millis(50), Happening::AgentStep { agent }),
            }
        }
        let outcome = self.agents[agent].step(self.now);
        for message in outcome.messages {
            self.say(agent, message);
        }
        self.schedule(
            outcome.next.since(self.now).max(Duration::from_micros(50)),
            Happening::AgentStep { agent },
        );
    }

    fn connect(&mut self, agent: usize, manager: usize) {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let registration: Registration = self.agents[agent].connect(manager, session, self.now);
        let node = self.agents[agent].node;
        self.deliver_in_order(agent, Event::SessionOpened { session, node, registration });
    }

    fn say(&mut self, agent: usize, message: AgentMessage) {
        if let Some(session) = self.agents[agent].session() {
            self.deliver_in_order(agent, Event::SessionMessage { session, message });
        }
    }

    fn deliver_in_order(&mut self, agent: usize, event: Event) {
        let Some(manager) = self.agents[agent].manager() else { return };
        let life = self.managers[manager].life;
        let after = self.latency().max(self.agents[agent].uplink_free(self.now));
        self.agents[agent].uplink_busy(self.now + after);
        self.schedule(after, Happening::Event { manager, life, event });
    }

    // Time.

    /// The next thing happens. False: nothing ever will.
    fn step(&mut self) -> bool {
        let Some(((at, _), happening)) = self.queue.pop_first() else { return false };
        self.now = self.now.max(at);
        match happening {
            Happening::Event { manager, life, event } => {
                if let Event::Persisted { ready } = event
                    && self.managers[manager].life == life
                {
                    self.managers[manager].disk.sync(ready);
                }
                if let Event::Checkpointed { .. } = event
                    && self.managers[manager].life == life
                {
                    self.managers[manager].disk.sync_checkpoint();
                }
                if self.managers[manager].life == life {
                    self.handle(manager, event);
                }
            }
            Happening::Wakeup { manager, life } => {
                if self.managers[manager].life == life {
                    self.wake(manager);
                }
            }
            Happening::ToAgent { agent, session, message } => {
                if self.agents[agent].session() == Some(session) {
                    let replies = self.agents[agent].receive(message, self.now);
                    for reply in replies {
                        self.say(agent, reply);
                    }
                    self.schedule(Duration::ZERO, Happening::AgentStep { agent });
                }
            }
            Happening::AgentClosed { agent, session } => {
                if self.agents[agent].session() == Some(session) {
                    self.agents[agent].disconnect();
                    self.schedule(Duration::from_millis(20), Happening::AgentStep { agent });
                }
            }
            Happening::AgentStep { agent } => {
                if self.agents[agent].is_due(self.now) {
                    self.agent_step(agent);
                }
            }
        }
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs until it holds; fails after a minute of the world's time. Answers how long it took.
    pub fn run_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> Duration {
        let start = self.now;
        let end = self.now + Duration::from_secs(60);
        loop {
            if holds(self) {
                return self.now.since(start);
            }
            assert!(
                self.now < end,
                "seed {}: after a minute it does not hold that {what}\n{}",
                self.seed,
                self.story()
            );
            self.run_for(Duration::from_millis(2));
        }
    }

    fn note(&mut self, text: String) {
        self.trace.push(format!("{:>12} {text}", self.now.as_micros() % 1_000_000_000_000));
    }

    /// What happened last, and what is.
    pub fn story(&self) -> String {
        let from = self.trace.len().saturating_sub(30);
        format!("{}\n{}", self.trace[from..].join("\n"), self.mirror.describe())
    }

    // The API.

    /// Sends a request to whoever leads.
    pub fn send(&mut self, request: Request) -> RequestId {
        let manager = self.leader().unwrap_or(0);
        self.send_to(manager, request)
    }

    pub fn send_to(&mut self, manager: usize, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.handle(manager, Event::Request { id, by: None, request });
        id
    }

    pub fn take_reply(&mut self, id: RequestId) -> Option<Result<Response, ApiError>> {
        self.replies.remove(&id)
    }

    /// Asks whoever leads, once there is a leader.
    pub fn ask(&mut self, request: Request) -> Result<Response, ApiError> {
        if !matches!(request, Request::CreateCluster(_)) {
            self.run_until("there is a leader", |world| world.leader().is_some());
        }
        let id = self.send(request);
        let mut reply = None;
        self.run_until("a request is answered", |world| {
            reply = reply.take().or_else(|| world.take_reply(id));
            reply.is_some()
        });
        reply.expect("the loop ended with one")
    }

    pub fn nodes(&mut self) -> Vec<swarm_manager_core::api::NodeView> {
        match self.ask(Request::ListNodes) {
            Ok(Response::Nodes(nodes)) => nodes,
            other => panic!("nodes: {other:?}"),
        }
    }

    /// Managers that vote and can be reached, as the leader sees it.
    pub fn voting(&mut self) -> usize {
        let votes = |status| matches!(status, Some(ManagerStatus::Leader | ManagerStatus::Reachable));
        self.nodes().iter().filter(|view| votes(view.manager)).count()
    }

    pub fn tasks(&mut self, service: &str) -> Vec<TaskView> {
        match self.ask(Request::ListTasks { service: Some(service.to_owned()), node: None }) {
            Ok(Response::Tasks(tasks)) => tasks,
            other => panic!("tasks of {service}: {other:?}"),
        }
    }

    /// Tasks of a service that are wanted to run and do.
    pub fn running(&mut self, service: &str) -> Vec<TaskView> {
        let mut tasks = self.tasks(service);
        tasks.retain(|view| {
            view.task.desired == DesiredState::Running
                && view.task.outcome.is_none()
                && view.status.state == TaskState::Running
        });
        tasks
    }

    pub fn wait_running(&mut self, service: &str, count: usize) -> Duration {
        self.run_until(&format!("{count} tasks of {service} run"), |world| {
            world.running(service).len() == count
        })
    }

    /// Nodes that tasks of a service run on.
    pub fn hosts(&mut self, service: &str) -> BTreeSet<NodeId> {
        self.running(service).iter().filter_map(|view| view.task.node).collect()
    }

    /// Everything that the leader would tell a new watcher.
    pub fn snapshot(&mut self) -> Vec<Change> {
        match self.ask(Request::Snapshot { service: None, tasks: true }) {
            Ok(Response::Snapshot { changes, .. }) => changes,
            other => panic!("snapshot: {other:?}"),
        }
    }
}
