//! Hosts: the agent's process on each, with the real core, and the fake runtime below it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use swarm_agent_core as agent;
use swarm_agent_core::{AgentCore, Exit, Parallelism, Recovered};
use swarm_model::{NodeId, TaskId, Timestamp};

use super::clock::Clock;
use super::dice::Dice;
use super::disk::Disk;
use super::mutation::Mutation;
use super::runtime::{Later, Runtime};
use super::specs;
use super::streams::{Down, Stream, Up};
use super::world::{Happening, World};

const BATCH: Duration = Duration::from_micros(20);
/// Until a manager that does not answer is given up.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Host {
    pub node: NodeId,
    pub runtime: Runtime,
    pub agent: Option<Box<Agent>>,
    /// Counts the agent's processes, and the machine's boots.
    pub life: u32,
    pub boot: u32,
    pub paused_until: Timestamp,
    /// The machine is on.
    pub is_on: bool,
    /// The node was removed from the cluster.
    pub is_removed: bool,
    /// Its disk is of no use, and the cluster has not been told yet that the node is gone.
    pub is_lost: bool,
    /// When it joins again it does so as a manager.
    pub joins_as_manager: bool,
    before_reboot: BTreeSet<TaskId>,
    batch_at: Option<Timestamp>,
}

/// What lives in memory.
#[derive(Debug)]
pub struct Agent {
    pub core: AgentCore,
    clock: Clock,
    inbox: VecDeque<agent::Event>,
    /// The world's number of the current stream.
    stream: Option<u64>,
}

impl Host {
    pub fn new(host: usize, dice: Dice) -> Self {
        Self {
            node: specs::node_id(host),
            runtime: Runtime::new(dice),
            agent: None,
            life: 0,
            boot: 0,
            paused_until: Timestamp::ZERO,
            is_on: true,
            is_removed: false,
            is_lost: false,
            joins_as_manager: false,
            before_reboot: BTreeSet::new(),
            batch_at: None,
        }
    }
}

impl World {
    pub fn start_agent(&mut self, host: usize) {
        let drift = self.drift();
        let seed = self.core_dice.number(0..u64::MAX);
        // What its operator tells it when it joins; afterwards it knows better.
        let there = self.truth.nodes.values().filter_map(|node| node.manager_address.clone());
        let first = (0..self.plan.managers).map(specs::address);
        let managers = if self.truth.nodes.is_empty() { first.collect() } else { there.collect() };
        let now = self.now;
        let it = &mut self.hosts[host];
        if it.agent.is_some() || !it.is_on || it.is_removed {
            return;
        }
        let config = agent::Config {
            cluster: specs::CLUSTER,
            node: it.node,
            engine: specs::engine(host),
            managers,
            seed,
            parallelism: Parallelism::default(),
        };
        it.life += 1;
        it.batch_at = None;
        let mut recovered: Recovered = it.runtime.recover(std::mem::take(&mut it.before_reboot));
        if self.tampering.strikes(Mutation::ForgetContainer) {
            Runtime::forget_in(&mut recovered);
        }
        let clock = Clock::start(0, drift, now);
        let core = AgentCore::new(config, recovered, clock.local(now));
        it.agent = Some(Box::new(Agent { core, clock, inbox: VecDeque::new(), stream: None }));
        self.tell(&format!("agent {host} starts"));
        self.agent_batch_at(host, now);
    }

    /// Kill -9 of the agent; containers run on.
    pub fn kill_agent(&mut self, host: usize) {
        if self.hosts[host].agent.is_some() {
            self.tell(&format!("agent {host} is killed"));
            self.agent_ended(host);
        }
    }

    /// While the node was away, all managers that it knew were replaced: its operator names it another one.
    pub fn help_the_lost(&mut self) {
        let managers: Vec<String> =
            self.truth.nodes.values().filter_map(|node| node.manager_address.clone()).collect();
        for host in 0..self.hosts.len() {
            let runtime = &mut self.hosts[host].runtime;
            let known = runtime.known_managers();
            if !known.is_empty() && !known.iter().any(|known| managers.contains(known)) {
                runtime.name_managers(&managers);
                self.kill_agent(host);
                self.start_agent(host);
            }
        }
    }

    fn agent_ended(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.life += 1;
        it.paused_until = Timestamp::ZERO;
        let stream = it.agent.take().and_then(|agent| agent.stream);
        if let Some(stream) = stream {
            self.push_up(stream, Up::Closed);
        }
    }

    /// The power goes. Nobody is told.
    pub fn power_off(&mut self, host: usize) {
        self.tell(&format!("host {host} loses its power"));
        self.crash_manager(host);
        let it = &mut self.hosts[host];
        it.is_on = false;
        it.boot += 1;
        it.life += 1;
        it.agent = None;
        it.paused_until = Timestamp::ZERO;
        it.before_reboot = it.runtime.reboot();
        self.streams.retain(|_, stream| stream.host != host);
    }

    pub fn power_on(&mut self, host: usize) {
        self.tell(&format!("host {host} is switched on"));
        self.hosts[host].is_on = true;
        self.schedule(Duration::from_millis(5), Happening::StartAgent { host });
        self.schedule(Duration::from_millis(5), Happening::StartManager { manager: host });
    }

    /// The node left the cluster for good, and its machine is wiped.
    pub fn wipe(&mut self, host: usize) {
        self.power_off(host);
        self.hosts[host].is_removed = true;
        self.hosts[host].before_reboot.clear();
        self.hosts[host].runtime.wipe();
        self.managers[host].is_member = false;
        self.managers[host].disk = Disk::default();
    }

    pub fn tell_agent(&mut self, host: usize, life: u32, event: agent::Event) {
        if self.hosts[host].life != life {
            return;
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.inbox.push_back(event);
        let at = self.now + BATCH;
        self.agent_batch_at(host, at);
    }

    fn agent_batch_at(&mut self, host: usize, at: Timestamp) {
        let it = &mut self.hosts[host];
        if it.batch_at.is_none_or(|planned| planned > at) {
            it.batch_at = Some(at);
            let life = it.life;
            self.schedule_at(at, Happening::HostBatch { host, life });
        }
    }

    pub fn host_batch(&mut self, host: usize, life: u32) {
        let now = self.now;
        let it = &mut self.hosts[host];
        if it.life != life || it.batch_at != Some(now) {
            return;
        }
        it.batch_at = None;
        if it.paused_until > now {
            let at = it.paused_until;
            return self.agent_batch_at(host, at);
        }
        let Some(agent) = &mut it.agent else { return };
        let local = agent.clock.local(now);
        let mut effects = Vec::new();
        for event in agent.inbox.drain(..).chain([agent::Event::Wakeup]) {
            agent.core.handle(local, event, &mut effects);
        }
        for effect in effects {
            self.perform_for_agent(host, local, effect);
        }
        self.plan_agent_batch(host);
        let wrongs = std::mem::take(&mut self.hosts[host].runtime.wrongs);
        if let Some(wrong) = wrongs.into_iter().next() {
            self.violate("agent", format!("host {host}: {wrong}"));
        }
    }

    fn plan_agent_batch(&mut self, host: usize) {
        let now = self.now;
        let Some(agent) = &self.hosts[host].agent else { return };
        if let Some(due) = agent.core.next_wakeup() {
            let at = now + agent.clock.until(now, due).max(Duration::from_micros(1));
            self.agent_batch_at(host, at);
        }
    }

    fn perform_for_agent(&mut self, host: usize, local: Timestamp, effect: agent::Effect) {
        let life = self.hosts[host].life;
        match effect {
            agent::Effect::Persist(changes) => self.hosts[host].runtime.persist(changes),
            agent::Effect::Operate(operation) => {
                self.check_operation(host, &operation);
                let operation = self.tamper_operation(operation);
                let boot = self.hosts[host].boot;
                for (after, later) in self.hosts[host].runtime.operate(local, operation) {
                    let happening = match later {
                        Later::Tell(event) => Happening::HostEvent { host, life, event },
                        Later::Ends(task, exit) => Happening::ContainerEnds { host, boot, task, exit },
                    };
                    self.schedule(after, happening);
                }
            }
            agent::Effect::Connect { session, manager } => {
                let up = self.manager_at(&manager).is_some_and(|it| self.connects(host, it));
                let after = if up { self.network.latency() } else { self.dial_failure(host, &manager) };
                self.schedule(after, Happening::Dialled { host, life, session, address: manager });
            }
            agent::Effect::Register { registration, .. } => {
                let registration = self.tamper_registration(registration);
                self.say(host, Up::Register(registration));
            }
            agent::Effect::Send { message, .. } => {
                if let Some(message) = self.tamper_up(message) {
                    self.say(host, Up::Message(message));
                }
            }
            agent::Effect::Disconnect { .. } => {
                self.say(host, Up::Closed);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.stream = None;
                }
            }
        }
    }

    fn connects(&self, host: usize, manager: usize) -> bool {
        self.network.passes(host, manager) && self.network.passes(manager, host)
    }

    /// A process that is gone refuses at once; a host that cannot be reached does not answer.
    fn dial_failure(&self, host: usize, address: &str) -> Duration {
        let reached = specs::host_at(address)
            .is_some_and(|manager| self.hosts[manager].is_on && self.connects(host, manager));
        if reached { Duration::from_millis(1) } else { DIAL_LIMIT }
    }

    pub fn dialled(&mut self, host: usize, life: u32, session: agent::SessionId, address: &str) {
        if self.hosts[host].life != life {
            return;
        }
        let manager = self.manager_at(address).filter(|manager| self.connects(host, *manager));
        let (Some(manager), Some(agent)) = (manager, &mut self.hosts[host].agent) else {
            self.tell(&format!("agent {host} does not reach {address}"));
            let reason = agent::Closed::Failed("connection refused".to_owned());
            return self.tell_agent(host, life, agent::Event::SessionClosed { session, reason });
        };
        self.next_stream += 1;
        let id = self.next_stream;
        agent.stream = Some(id);
        self.tell(&format!("agent {host} has a session with manager {manager}"));
        let manager_life = self.managers[manager].life;
        let (up, down) = Default::default();
        let stream = Stream { host, host_life: life, session, manager, manager_life, up, down };
        self.streams.insert(id, stream);
        self.tell_agent(host, life, agent::Event::SessionOpened { session });
    }

    fn say(&mut self, host: usize, item: Up) {
        if let Some(stream) = self.hosts[host].agent.as_ref().and_then(|agent| agent.stream) {
            self.push_up(stream, item);
        }
    }

    // Streams.

    pub fn push_up(&mut self, id: u64, item: Up) {
        let at = self.now + self.network.latency();
        if let Some(stream) = self.streams.get_mut(&id) {
            let at = stream.up.push(at, item);
            self.schedule_at(at, Happening::Up { stream: id });
        }
    }

    pub fn push_down(&mut self, id: u64, item: Down) {
        let at = self.now + self.network.latency();
        if let Some(stream) = self.streams.get_mut(&id) {
            let at = stream.down.push(at, item);
            self.schedule_at(at, Happening::Down { stream: id });
        }
    }

    pub fn deliver_up(&mut self, id: u64) {
        while let Some(stream) = self.streams.get_mut(&id) {
            // A blocked direction stalls; whoever unblocks it comes back.
            if !self.network.passes(stream.host, stream.manager) {
                return;
            }
            let Some(item) = stream.up.pop_due(self.now) else { return };
            let (manager, life, host) = (stream.manager, stream.manager_life, stream.host);
            if stream.up.deaf {
                continue;
            }
            let session = swarm_manager_core::door::SessionId(id);
            use swarm_manager_core::door::Event;
            let event = match item {
                Up::Register(registration) => {
                    Event::SessionOpened { session, node: self.hosts[host].node, registration }
                }
                Up::Message(message) => Event::SessionMessage { session, message },
                Up::Closed => {
                    stream.up.deaf = true;
                    stream.down.deaf = true;
                    Event::SessionClosed { session }
                }
            };
            self.tell_manager(manager, life, event);
        }
    }

    pub fn deliver_down(&mut self, id: u64) {
        while let Some(stream) = self.streams.get_mut(&id) {
            if !self.network.passes(stream.manager, stream.host) {
                return;
            }
            let Some(item) = stream.down.pop_due(self.now) else { return };
            let (host, life, session) = (stream.host, stream.host_life, stream.session);
            if stream.down.deaf {
                continue;
            }
            let event = match item {
                Down::Message(message) => agent::Event::SessionMessage { session, message },
                Down::Closed(reason) => {
                    stream.down.deaf = true;
                    if let Some(agent) = &mut self.hosts[host].agent
                        && agent.stream == Some(id)
                    {
                        agent.stream = None;
                    }
                    agent::Event::SessionClosed { session, reason }
                }
            };
            self.tell_agent(host, life, event);
        }
    }

    /// Connections that stalled go on.
    pub fn resume_streams(&mut self) {
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            self.deliver_up(id);
            self.deliver_down(id);
        }
        self.streams.retain(|_, stream| !(stream.up.deaf && stream.down.deaf));
    }

    /// A connection breaks: both ends notice.
    pub fn break_stream(&mut self, id: u64) {
        self.push_up(id, Up::Closed);
        self.push_down(id, Down::Closed(agent::Closed::Failed("connection reset".to_owned())));
    }

    pub fn container_ends(&mut self, host: usize, boot: u32, task: TaskId, exit: Exit) {
        let it = &mut self.hosts[host];
        if it.boot != boot || !it.runtime.end(task, &exit) {
            return;
        }
        let life = it.life;
        self.tell_agent(host, life, agent::Event::Exited { task, exit });
    }
}
