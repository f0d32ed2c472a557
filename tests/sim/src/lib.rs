//! The simulator: manager cores and agent cores of a whole cluster in one thread under one seed, with a network, disks,
//! clocks and containers that fail, and an operator that does anything.
//!
//! A run has a safety phase, in which the invariants of the design are checked after everything that happens; then all
//! faults end, and what is wanted must come to be. The same seed gives the same run, to the microsecond.
//!
//! The cores are the product's. What their shells do with disks, sockets and the runtime is done here by the world, in
//! the same order; nothing here proves anything about the shells.

#![forbid(unsafe_code)]

mod blindness;
pub mod campaign;
mod checks;
mod clock;
mod damage;
mod dice;
mod disk;
mod faults;
mod history;
mod host;
mod manager;
mod members;
mod mutation;
mod network;
mod operator;
mod plan;
mod runtime;
mod settle;
mod specs;
mod story;
mod streams;
mod tampering;
mod world;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use swarm_manager_core::api::{Request, Response};
use swarm_model::NodeState;

pub use mutation::Mutation;
use world::{Happening, World};

/// From the first manager's start to a cluster whose nodes are all there.
const FORMATION_LIMIT: Duration = Duration::from_secs(30);

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which checker saw it.
    pub check: &'static str,
    pub text: String,
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<Violation>,
    /// The last things that happened.
    pub story: Vec<String>,
    /// Of everything that happened, with its time: equal for equal runs.
    pub digest: u64,
    pub happenings: u64,
    /// Log entries committed, and requests that were answered with substance.
    pub entries: u64,
    pub answers: u64,
    pub simulated: Duration,
}

/// One run. `aloud`: tells what happens as it happens. A panic of a core is a violation.
pub fn run(seed: u64, mutation: Option<Mutation>, aloud: bool) -> Outcome {
    let mut world = World::new(seed, mutation, aloud);
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violate("panic", text.unwrap_or_else(|| "of an unknown kind".to_owned()));
    }
    Outcome {
        seed,
        story: world.story.last_lines(),
        digest: world.story.digest(),
        happenings: world.happenings(),
        entries: world.truth.applied,
        answers: world.operator.history.answered,
        simulated: world.now.since(world.start),
        violation: world.violation,
    }
}

impl World {
    fn run(&mut self) {
        self.tell(&format!("seed {}: {:?}", self.seed, self.plan));
        self.form();
        if self.violation.is_some() {
            return;
        }
        self.begin_chaos();
        self.run_for(self.plan.chaos);
        if self.violation.is_none() {
            self.settle();
        }
    }

    /// A cluster comes to be, through the API.
    fn form(&mut self) {
        self.managers[0].is_member = true;
        self.start_manager(0);
        let create = Request::CreateCluster(Box::new(specs::create_cluster(specs::new_node(0, 0, true))));
        if !matches!(self.ask(FORMATION_LIMIT, &create), Some(Ok(_))) {
            return self.violate("formation", "no cluster was created".to_owned());
        }
        for host in 1..self.hosts.len() {
            let manager = host < self.plan.managers;
            let admit = Request::AdmitNode(specs::new_node(host, host, manager));
            let admitted = self.ask(FORMATION_LIMIT, &admit);
            if !matches!(admitted, Some(Ok(_))) {
                return self.violate("formation", format!("host {host} was not admitted: {admitted:?}"));
            }
            self.managers[host].is_member = manager;
            self.start_manager(host);
        }
        for host in 0..self.hosts.len() {
            self.schedule(Duration::ZERO, Happening::StartAgent { host });
        }
        let ready = self.run_until(FORMATION_LIMIT, |world| {
            (0..world.hosts.len())
                .all(|host| world.checks.seen.node(world.hosts[host].node) == Some(NodeState::Ready))
        });
        let managers = self.plan.managers;
        let voting = ready && self.run_until(FORMATION_LIMIT, |world| world.voters() == managers);
        if !voting {
            self.violate("formation", "the nodes did not all come up".to_owned());
        }
    }

    fn voters(&mut self) -> usize {
        use swarm_manager_core::api::ManagerStatus::{Leader, Reachable};
        match self.ask(Duration::from_secs(5), &Request::ListNodes) {
            Some(Ok(Response::Nodes(nodes))) => {
                nodes.iter().filter(|view| matches!(view.manager, Some(Leader | Reachable))).count()
            }
            _ => 0,
        }
    }
}
