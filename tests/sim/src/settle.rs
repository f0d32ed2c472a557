//! The end of a run: faults are over, so within half a minute everything must be as the specs want it, and stay so without
//! a further word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use swarm_manager_core::api::{Request, Response};
use swarm_model::{
    Availability, DesiredState, Node, PortMode, Protocol, Resources, Service, ServiceSpec, Task, TaskState,
    UpdateState,
};

use super::specs;
use super::world::World;

/// From the end of the faults to a leader that answers.
const LEADER_LIMIT: Duration = Duration::from_secs(10);
/// From then on to what is wanted. Well below a leader's sweep, which must not be needed.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(30);
/// For updates to watch what they have changed, slot after slot: ten minutes for each that finds no room, and back again.
const UPDATES_LIMIT: Duration = Duration::from_secs(150 * 60);
const QUIET: Duration = Duration::from_secs(60);

impl World {
    pub fn settle(&mut self) {
        self.heal();
        if !self.run_until(LEADER_LIMIT, |world| world.leader().is_some()) {
            return self.violate("convergence", "nobody leads".to_owned());
        }
        // What the operator asked for last may still come.
        self.run_for(Duration::from_secs(5));
        self.help_the_lost();
        if let Err(text) = self.remove_what_is_wild() {
            return self.violate("convergence", text);
        }
        let mut missing = String::new();
        let converged = self.run_until(CONVERGENCE_LIMIT, |world| {
            missing = world.missing().unwrap_or_default();
            missing.is_empty()
        });
        if !converged {
            let why = self.said_of_waiting();
            return self.violate("convergence", format!("after {CONVERGENCE_LIMIT:?}: {missing}; {why}"));
        }
        if !self.run_until(UPDATES_LIMIT, |world| world.update_under_way().is_none()) {
            let name = self.update_under_way().unwrap_or_default();
            return self.violate("convergence", format!("the update of {name} does not end"));
        }
        self.stay_quiet();
    }

    /// What the leader says of tasks that have no node.
    fn said_of_waiting(&mut self) -> String {
        let request = Request::ListTasks { service: None, node: None };
        let Some(Ok(Response::Tasks(tasks))) = self.ask(LEADER_LIMIT, &request) else {
            return "tasks cannot be listed".to_owned();
        };
        let waiting = tasks.iter().filter(|view| view.task.node.is_none() && view.task.is_live());
        let said =
            waiting.map(|view| format!("{}: {} {}", view.task.id, view.status.message, view.status.error));
        said.collect::<Vec<_>>().join("; ")
    }

    fn update_under_way(&self) -> Option<String> {
        let mut services = self.truth.services.values();
        let under_way = services.find(|service| is_under_way(service))?;
        let tasks: Vec<_> = self.truth.tasks.values().filter(|task| task.service == under_way.id).collect();
        let (spec, update) = (&under_way.spec, &under_way.update);
        let policies = (&spec.update, &spec.rollback);
        Some(format!("{} ({update:?} by {policies:?}): {}", spec.name, self.describe(&tasks)))
    }

    fn stay_quiet(&mut self) {
        // What is still under way may end: records of the past are cleaned up.
        self.run_for(Duration::from_secs(5));
        let before = self.truth.applied;
        self.run_for(QUIET);
        if self.violation.is_some() {
            return;
        }
        // What waits for room is given up in the end, and that may be now.
        let waits = self.truth.tasks.values().any(|task| task.is_live() && task.node.is_none());
        if self.truth.applied != before && !waits {
            let entries = self.truth.applied - before;
            return self.violate("quiet", format!("{entries} entries were written in a quiet minute"));
        }
        if let Some(missing) = self.missing() {
            return self.violate("quiet", missing);
        }
        let left = self.truth.tasks.values().find(|task| !self.truth.services.contains_key(&task.service));
        if let Some(task) = left {
            return self.violate("quiet", format!("task {} is left of a service that was removed", task.id));
        }
        for text in self.operator.history.check_removed(&self.truth) {
            self.violate("acknowledged writes", text);
        }
        self.compare_all();
    }

    fn compare_all(&mut self) {
        for manager in 0..self.managers.len() {
            let Some(process) = &self.managers[manager].core else { continue };
            let applied = process.core.replica().applied();
            if applied != self.truth.applied {
                let text = format!("manager {manager} applied {applied} of {}", self.truth.applied);
                return self.violate("equal stores", text);
            }
            if let Some(text) = self.checks.compare(manager, &process.core) {
                return self.violate("equal stores", text);
            }
        }
    }

    /// Services that crash, or may stop restarting, have no end that could be demanded.
    fn remove_what_is_wild(&mut self) -> Result<(), String> {
        let ask = |world: &mut Self, request: &Request| {
            world.ask(LEADER_LIMIT, request).ok_or_else(|| format!("no answer to {request:?}"))
        };
        let Ok(Response::Services(services)) = ask(self, &Request::ListServices)? else {
            return Err("services cannot be listed".to_owned());
        };
        for view in services.iter().filter(|view| !specs::is_steady(&view.service.spec)) {
            // One that was asked to go before the faults ended may be gone by now.
            let _ = ask(self, &Request::RemoveService { service: view.service.id.to_string() })?;
        }
        Ok(())
    }

    /// What is not as it is wanted, if anything.
    fn missing(&self) -> Option<String> {
        let leader = self.leader();
        if leader.is_none_or(|leader| self.applied(leader) != Some(self.truth.applied)) {
            return Some("there is no leader that knows everything".to_owned());
        }
        let services = self.truth.services.values();
        let of_services = services.filter_map(|service| self.missing_of(service)).next();
        of_services.or_else(|| self.missing_member()).or_else(|| {
            (0..self.hosts.len()).find_map(|host| self.surplus(host).or_else(|| self.wrong_mesh(host)))
        })
    }

    fn applied(&self, manager: usize) -> Option<u64> {
        self.managers[manager].core.as_ref().map(|process| process.core.replica().applied())
    }

    fn missing_of(&self, service: &Service) -> Option<String> {
        let name = &service.spec.name;
        let tasks = || self.truth.tasks.values().filter(|task| task.service == service.id && task.is_live());
        let slots: BTreeSet<u32> = tasks().map(|task| task.slot).collect();
        // Which numbers are left after a scale-down depends on where the tasks were.
        if slots.len() != service.replicas() as usize {
            return Some(format!("{name} has the slots {slots:?}, {} wanted", service.replicas()));
        }
        for slot in slots {
            let mut of_slot: Vec<_> = tasks().filter(|task| task.slot == slot).collect();
            of_slot.sort_by_key(|task| task.created_at);
            let newest = of_slot.last()?;
            if of_slot.iter().any(|task| self.runs(task)) && of_slot.len() == 1 {
                continue;
            }
            if self.waits_for_its_time(newest) {
                continue;
            }
            // An update comes to the slot when it is done with those before.
            if is_under_way(service) && of_slot.len() <= 2 && of_slot.iter().any(|task| self.runs(task)) {
                continue;
            }
            // A start-first update has found no room for its task beside the one that runs.
            let others_run = of_slot.iter().filter(|task| task.id != newest.id).all(|task| self.runs(task));
            if newest.node.is_none() && others_run && of_slot.len() <= 2 {
                if let Some(node) = self.truth.nodes.values().find(|node| self.fits(service, newest, node)) {
                    return Some(format!("{name}.{slot} waits, but fits on {}", node.engine.hostname));
                }
                continue;
            }
            return Some(format!("{name}.{slot} does not run: {}", self.describe(&of_slot)));
        }
        None
    }

    fn describe(&self, tasks: &[&std::sync::Arc<Task>]) -> String {
        let describe = |task: &&std::sync::Arc<Task>| {
            format!(
                "{} revision {} desired {} seen {:?} on {:?} outcome {:?}",
                task.id,
                task.revision,
                task.desired,
                self.checks.seen.state(task.id),
                task.node,
                task.outcome.as_ref().map(|outcome| outcome.state),
            )
        };
        tasks.iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    /// Wanted, seen running, and really running.
    fn runs(&self, task: &Task) -> bool {
        let host = self.hosts.iter().find(|host| Some(host.node) == task.node);
        let container = host.and_then(|host| host.runtime.containers.get(&task.id));
        task.desired == DesiredState::Running
            && self.checks.seen.state(task.id) == Some(TaskState::Running)
            && container.is_some_and(|container| container.is_running())
    }

    /// It backs off, for longer than is waited for here.
    fn waits_for_its_time(&self, task: &Task) -> bool {
        task.desired == DesiredState::Ready && task.not_before.is_some_and(|at| at > self.now)
    }

    /// By a slow rule of its own: whether a task would fit on a node.
    fn fits(&self, service: &Service, task: &Task, node: &Node) -> bool {
        let Some(spec) = self.truth.spec_of(task) else { return false };
        let on_node = || self.truth.open_tasks().filter(|other| other.node == Some(node.id));
        let host_up = self.hosts.iter().any(|host| host.node == node.id && host.is_on && !host.is_removed);
        let reserved = on_node()
            .filter_map(|other| self.truth.spec_of(other))
            .fold(Resources::default(), |sum, spec| sum.saturating_add(spec.task.reservations));
        let taken: Vec<u16> =
            on_node().filter_map(|other| self.truth.spec_of(other)).flat_map(|it| host_ports(it)).collect();
        let placement = &spec.task.placement;
        let there = on_node().filter(|other| other.service == service.id && other.is_live()).count();
        host_up
            && node.spec.availability == Availability::Active
            && placement.constraints.iter().all(|constraint| constraint.matches(node))
            && reserved.saturating_add(spec.task.reservations).fits_in(node.engine.resources)
            && host_ports(spec).iter().all(|port| !taken.contains(port))
            && placement.max_replicas_per_node.is_none_or(|most| there < most as usize)
    }

    /// What a host has without being told.
    fn surplus(&self, host: usize) -> Option<String> {
        let it = &self.hosts[host];
        let drained =
            self.truth.nodes.get(&it.node).is_some_and(|node| node.spec.availability == Availability::Drain);
        for container in it.runtime.running() {
            let id = container.assignment.task;
            let task = self.truth.tasks.get(&id);
            if !task.is_some_and(|task| task.is_live() && task.node == Some(it.node)) {
                return Some(format!("host {host} runs task {id}, which nobody wants"));
            }
            // A task that has nowhere else to go stays.
            if drained && !task.is_some_and(|task| self.has_nowhere_to_go(task)) {
                return Some(format!("host {host} is drained and runs task {id}"));
            }
        }
        let known = |id| self.truth.tasks.get(id).is_some_and(|task| task.node == Some(it.node));
        let stray = it.runtime.containers.keys().find(|id| !known(id));
        let stray = stray.map(|id| format!("host {host} keeps a container of task {id}, which is forgotten"));
        stray.or_else(|| self.forgotten_record(host))
    }

    fn forgotten_record(&self, host: usize) -> Option<String> {
        let mut records = self.hosts[host].runtime.records().map(|record| record.assignment.task);
        let forgotten = records.find(|id| !self.truth.tasks.contains_key(id));
        forgotten.map(|id| format!("host {host} keeps the record of task {id}, which is forgotten"))
    }

    fn has_nowhere_to_go(&self, task: &Task) -> bool {
        let Some(service) = self.truth.services.get(&task.service) else { return false };
        !self.truth.nodes.values().any(|node| Some(node.id) != task.node && self.fits(service, task, node))
    }

    /// Published ports lead to what runs, and nowhere else.
    fn wrong_mesh(&self, host: usize) -> Option<String> {
        if self.hosts[host].is_removed || self.hosts[host].agent.is_none() {
            return None;
        }
        let mut wanted: BTreeMap<(Protocol, u16), BTreeSet<SocketAddrV4>> = BTreeMap::new();
        for service in self.truth.services.values() {
            for port in service.ports.iter().filter(|port| port.mode == PortMode::Ingress) {
                let tasks =
                    self.truth.tasks.values().filter(|task| task.service == service.id && self.runs(task));
                let backends = tasks.filter_map(|task| Some(SocketAddrV4::new(task.address?, port.target)));
                wanted.insert((port.protocol, port.published?), backends.collect());
            }
        }
        let mesh = &self.hosts[host].runtime.mesh;
        let programmed: BTreeMap<_, BTreeSet<SocketAddrV4>> =
            mesh.ports.iter().map(|(port, backends)| (*port, backends.iter().copied().collect())).collect();
        (programmed != wanted)
            .then(|| format!("host {host} has the mesh {programmed:?} instead of {wanted:?}"))
    }
}

fn is_under_way(service: &Service) -> bool {
    let state = service.update.as_ref().map(|update| update.state);
    matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
}

fn host_ports(spec: &ServiceSpec) -> Vec<u16> {
    let host = spec.ports.iter().filter(|port| port.mode == PortMode::Host);
    host.filter_map(|port| port.published).collect()
}
