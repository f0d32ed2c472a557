//! The simulated cluster: everything that is, and the queue of what will happen.
//!
//! Nothing here sleeps or runs beside: what happens is ordered by time, then by number. The same seed gives the same run.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_agent_core as agent;
use swarm_manager_core::door::{Event, RequestId};
use swarm_model::{TaskId, Timestamp};

use super::checks::{Checks, Truth};
use super::dice::{Dice, Purpose};
use super::host::Host;
use super::manager::Manager;
use super::mutation::{Mutation, Tampering};
use super::network::Network;
use super::operator::Operator;
use super::plan::Plan;
use super::story::Story;
use super::streams::Stream;
use super::{Violation, specs};

/// What will happen.
#[derive(Debug)]
pub enum Happening {
    /// To a manager, if it still is the same process.
    ManagerEvent {
        manager: usize,
        life: u32,
        event: Event,
    },
    ManagerBatch {
        manager: usize,
        life: u32,
    },
    DiskDone {
        manager: usize,
        life: u32,
        ready: u64,
    },
    CheckpointDone {
        manager: usize,
        life: u32,
        index: u64,
    },
    StartManager {
        manager: usize,
    },
    Up {
        stream: u64,
    },
    Down {
        stream: u64,
    },
    /// An agent's attempt to connect comes to its end.
    Dialled {
        host: usize,
        life: u32,
        session: agent::SessionId,
        address: String,
    },
    HostEvent {
        host: usize,
        life: u32,
        event: agent::Event,
    },
    HostBatch {
        host: usize,
        life: u32,
    },
    StartAgent {
        host: usize,
    },
    ContainerEnds {
        host: usize,
        boot: u32,
        task: TaskId,
        exit: agent::Exit,
    },
    /// The operator's turn.
    Operate,
    /// A request comes to a manager.
    Ask {
        manager: usize,
        id: RequestId,
    },
    /// The next fault, or the end of one.
    Fault,
    Heal(Cure),
    /// Nodes look at what they are to be.
    Members,
}

/// The end of a fault that does not last.
#[derive(Debug, Clone, Copy)]
pub enum Cure {
    Link { from: usize, to: usize },
    Network,
    DiskSpace { manager: usize },
}

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub start: Timestamp,
    pub now: Timestamp,
    /// One per host; most of them are not there.
    pub managers: Vec<Manager>,
    pub hosts: Vec<Host>,
    pub network: Network,
    pub streams: BTreeMap<u64, Stream>,
    pub next_stream: u64,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    happenings: u64,
    pub disk_dice: Dice,
    pub core_dice: Dice,
    pub fault_dice: Dice,
    pub damage_dice: Dice,
    pub operator: Operator,
    /// Faults happen, and the operator acts.
    pub is_chaos: bool,
    /// Which process of which manager led which term, as they said.
    pub leaders: BTreeMap<u64, (usize, u32)>,
    pub truth: Truth,
    pub checks: Checks,
    pub tampering: Tampering,
    pub story: Story,
    pub violation: Option<Violation>,
    /// Nodes that ever joined, or asked to.
    pub nodes_joined: usize,
}

impl World {
    pub fn new(seed: u64, mutation: Option<Mutation>, aloud: bool) -> Self {
        let dice = |purpose| Dice::new(seed, purpose);
        let plan = Plan::new(&mut dice(Purpose::Plan));
        let start = Timestamp::from_micros(1_700_000_000_000_000);
        let hosts = plan.managers + plan.workers;
        Self {
            seed,
            start,
            now: start,
            managers: (0..hosts).map(Manager::new).collect(),
            hosts: (0..hosts)
                .map(|host| Host::new(host, Dice::new(seed ^ (host as u64) << 48, Purpose::Runtime)))
                .collect(),
            network: Network::new(dice(Purpose::Network)),
            streams: BTreeMap::new(),
            next_stream: 0,
            queue: BTreeMap::new(),
            happenings: 0,
            disk_dice: dice(Purpose::Disk),
            core_dice: dice(Purpose::Cores),
            fault_dice: dice(Purpose::Faults),
            damage_dice: dice(Purpose::Damage),
            operator: Operator::new(dice(Purpose::Operator)),
            is_chaos: false,
            leaders: BTreeMap::new(),
            truth: Truth::default(),
            checks: Checks::default(),
            tampering: Tampering::new(mutation, dice(Purpose::Mutation)),
            story: Story::new(aloud),
            violation: None,
            nodes_joined: hosts,
            plan,
        }
    }

    pub fn tell(&mut self, line: &str) {
        self.story.tell(self.now.since(self.start), line);
    }

    /// The first thing that went wrong is the one that counts.
    pub fn violate(&mut self, check: &'static str, text: String) {
        if self.violation.is_none() {
            self.tell(&format!("VIOLATION of {check}: {text}"));
            self.violation = Some(Violation { check, text });
        }
    }

    pub fn schedule(&mut self, after: Duration, happening: Happening) {
        self.schedule_at(self.now + after, happening);
    }

    pub fn schedule_at(&mut self, at: Timestamp, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((at.max(self.now), self.happenings), happening);
    }

    /// How many things happened or are about to.
    pub fn happenings(&self) -> u64 {
        self.happenings
    }

    /// The manager that leads, if it can be asked: the one of the highest term.
    pub fn leader(&self) -> Option<usize> {
        let leads =
            |index: &usize| self.managers[*index].leads.filter(|_| self.managers[*index].core.is_some());
        (0..self.managers.len())
            .filter_map(|index| Some((leads(&index)?, index)))
            .max()
            .map(|(_, index)| index)
    }

    pub fn manager_with(&self, raft_id: u64) -> Option<usize> {
        self.managers.iter().position(|manager| manager.is_member && manager.raft_id == raft_id)
    }

    pub fn manager_at(&self, address: &str) -> Option<usize> {
        specs::host_at(address).filter(|host| self.managers.get(*host).is_some_and(|it| it.core.is_some()))
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.violation.is_none() && self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end)
        {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs until it holds, or the time is up. Answers whether it holds.
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        while self.violation.is_none() {
            if holds(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(20));
        }
        false
    }

    fn step(&mut self) {
        let Some(((at, number), happening)) = self.queue.pop_first() else { return };
        self.now = self.now.max(at);
        self.story.count(at, number);
        match happening {
            Happening::ManagerEvent { manager, life, event } => self.tell_manager(manager, life, event),
            Happening::ManagerBatch { manager, life } => self.manager_batch(manager, life),
            Happening::DiskDone { manager, life, ready } => self.disk_done(manager, life, ready),
            Happening::CheckpointDone { manager, life, index } => self.checkpoint_done(manager, life, index),
            Happening::StartManager { manager } => self.start_manager(manager),
            Happening::Up { stream } => self.deliver_up(stream),
            Happening::Down { stream } => self.deliver_down(stream),
            Happening::Dialled { host, life, session, address } => {
                self.dialled(host, life, session, &address);
            }
            Happening::HostEvent { host, life, event } => self.tell_agent(host, life, event),
            Happening::HostBatch { host, life } => self.host_batch(host, life),
            Happening::StartAgent { host } => self.start_agent(host),
            Happening::ContainerEnds { host, boot, task, exit } => {
                self.container_ends(host, boot, task, exit);
            }
            Happening::Operate => self.operate(),
            Happening::Ask { manager, id } => self.ask_manager(manager, id),
            Happening::Fault => self.fault(),
            Happening::Heal(cure) => self.cure(cure),
            Happening::Members => self.look_at_members(),
        }
    }
}
