//! Everything at once, at arbitrary moments. First safety, checked all the time; then all faults end, and what is wanted
//! must come to be, and nothing else be left.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{Request, Response, ServiceView};
use swarm_model::{PortMode, ServiceMode};

use crate::checks;
use crate::sim::{World, specs};

const AGENTS: usize = 4;

struct Chaos {
    world: World,
    managers: usize,
    services: Vec<String>,
    made: u32,
}

impl Chaos {
    fn new(seed: u64, managers: usize) -> Self {
        Self { world: World::with_agents(seed, managers, AGENTS), managers, services: Vec::new(), made: 0 }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.world.random(0..below as u64) as usize
    }

    fn act(&mut self) {
        match self.pick(12) {
            0..=2 => self.create(),
            3 | 4 => self.change(|spec, number| spec.mode = ServiceMode::Replicated { replicas: number }),
            5 => self.change(|spec, number| spec.task.force_update = u64::from(number)),
            6 => self.remove(),
            7 => self.end_a_task(),
            8 => {
                let agent = self.pick(AGENTS);
                if !self.world.agents[agent].is_gone() {
                    self.world.restart_agent(agent);
                }
            }
            9 => self.switch_a_host(),
            10 => self.switch_a_manager(),
            _ => {
                let pause = Duration::from_millis(self.world.random(0..3_000));
                self.world.run_for(pause);
            }
        }
        let pause = Duration::from_micros(self.world.random(0..4_000));
        self.world.run_for(pause);
    }

    fn create(&mut self) {
        self.made += 1;
        let name = format!("s{}", self.made);
        let mut spec = specs::service(&name, self.made % 5);
        if self.made.is_multiple_of(2) {
            spec.ports = vec![specs::port(None, PortMode::Ingress)];
        }
        if self.made.is_multiple_of(5) {
            spec.ports = vec![specs::port(Some(443), PortMode::Host)];
        }
        self.world.send(Request::CreateService { spec: Arc::new(spec), request_id: None });
        self.services.push(name);
    }

    fn change(&mut self, change: impl Fn(&mut swarm_model::ServiceSpec, u32)) {
        if self.services.is_empty() {
            return;
        }
        let number = self.pick(8) as u32;
        let index = self.pick(self.services.len());
        let service = self.services[index].clone();
        let view = self.world.mirror.services.values().find(|view| view.service.spec.name == service);
        let Some(view) = view else { return };
        let mut spec = (*view.service.spec).clone();
        change(&mut spec, number);
        let version = view.service.version;
        self.world.send(Request::UpdateService { service, version, spec: Arc::new(spec) });
    }

    fn remove(&mut self) {
        if !self.services.is_empty() {
            let index = self.pick(self.services.len());
            let service = self.services[index].clone();
            self.world.send(Request::RemoveService { service });
        }
    }

    fn end_a_task(&mut self) {
        let agent = self.pick(AGENTS);
        let code = self.pick(2) as i32;
        let running = self.world.agents[agent].running();
        if !running.is_empty() {
            let task = running[self.pick(running.len())];
            self.world.agents[agent].end(task, code);
        }
    }

    fn switch_a_host(&mut self) {
        let agent = self.pick(AGENTS);
        if self.world.agents[agent].is_gone() {
            self.world.revive(agent);
        } else {
            self.world.vanish(agent);
        }
    }

    /// One at a time, so that a majority is left where there is one.
    fn switch_a_manager(&mut self) {
        match self.world.managers.iter().position(|manager| manager.core.is_none()) {
            Some(down) => self.world.start(down),
            None => {
                let manager = self.pick(self.managers);
                self.world.crash(manager);
            }
        }
    }

    fn heal(&mut self) {
        for manager in 0..self.managers {
            if self.world.managers[manager].core.is_none() {
                self.world.start(manager);
            }
        }
        for agent in 0..AGENTS {
            if self.world.agents[agent].is_gone() {
                self.world.revive(agent);
            }
        }
    }

    fn settle(&mut self) {
        self.heal();
        self.world.run_until("there is a leader", |world| world.leader().is_some());
        self.world.run_for(Duration::from_secs(5));
        let Ok(Response::Services(services)) = self.world.ask(Request::ListServices) else {
            panic!("services")
        };
        for view in &services {
            let name = view.service.spec.name.clone();
            // A port of the node is there once per node; who gets it where two want it is not said.
            let most = match (on_host_port(view), services.iter().filter(|view| on_host_port(view)).count()) {
                (true, 1) => AGENTS,
                (true, _) => continue,
                (false, _) => usize::MAX,
            };
            self.world.wait_running(&name, (view.desired as usize).min(most));
        }
        checks::equal_stores(&self.world);
        for view in services {
            let removed = self.world.ask(Request::RemoveService { service: view.service.id.to_string() });
            assert!(removed.is_ok(), "{removed:?}");
        }
        self.world.run_until("every agent is empty", |world| {
            world.agents.iter().all(|agent| agent.tasks().is_empty())
        });
        self.world.run_until("no task is left", |world| {
            matches!(world.ask(Request::ListTasks { service: None, node: None }), Ok(Response::Tasks(it)) if it.is_empty())
        });
    }
}

fn on_host_port(view: &ServiceView) -> bool {
    view.service.ports.iter().any(|port| port.mode == PortMode::Host)
}

fn run(seeds: std::ops::Range<u64>, managers: usize) {
    for seed in seeds {
        let mut chaos = Chaos::new(seed, managers);
        for _ in 0..60 {
            chaos.act();
        }
        chaos.settle();
    }
}

#[test]
fn one_manager_converges_after_anything() {
    run(1_000..1_024, 1);
}

#[test]
fn three_managers_converge_after_anything() {
    run(2_000..2_016, 3);
}
