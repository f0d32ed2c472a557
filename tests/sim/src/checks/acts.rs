//! Invariants 2 and 6 on the hosts themselves: an agent starts what was decided for its node and nothing else, stops
//! nothing that is wanted, and no two of its containers hold the same address or port.

use swarm_agent_core::Operation;
use swarm_model::{Assignment, DesiredState, PortMode, PortSpec, TaskId};

use crate::world::World;

impl World {
    pub fn check_operation(&mut self, host: usize, operation: &Operation) {
        let wrong = match operation {
            Operation::Start(assignment) => {
                self.unjustified_start(host, assignment).or_else(|| self.conflict(host, assignment))
            }
            Operation::Stop(assignment) => self.unjustified_stop(host, assignment.task),
            Operation::Kill(task) | Operation::Remove(task) => self.unjustified_stop(host, *task),
            Operation::OpenNetwork(_)
            | Operation::ProgramMesh(_)
            | Operation::Prepare(_)
            | Operation::CancelPrepare(_)
            | Operation::SetPorts(_)
            | Operation::CollectGarbage { .. } => None,
        };
        if let Some(text) = wrong {
            self.violate("acts", text);
        }
    }

    fn unjustified_start(&self, host: usize, assignment: &Assignment) -> Option<String> {
        let task = assignment.task;
        let node = self.hosts[host].node;
        let Some((placed, desired)) = self.checks.placed.get(&task) else {
            return Some(format!("host {host} starts task {task}, which nobody decided"));
        };
        if *placed != node {
            return Some(format!("host {host} starts task {task}, which is placed on node {placed}"));
        }
        if *desired < DesiredState::Running {
            return Some(format!("host {host} starts task {task} before it is to run"));
        }
        let decided = self.truth.tasks.get(&task)?;
        (decided.address != Some(assignment.address))
            .then(|| format!("host {host} starts task {task} with another address than its own"))
    }

    /// A container is stopped or removed although everybody wants it.
    fn unjustified_stop(&self, host: usize, task: TaskId) -> Option<String> {
        let runs = self.hosts[host].runtime.containers.get(&task).is_some_and(|it| it.is_running());
        let decided = self.truth.tasks.get(&task)?;
        let wanted = decided.is_live() && decided.node == Some(self.hosts[host].node);
        (runs && wanted).then(|| format!("host {host} stops task {task}, which is to run"))
    }

    fn conflict(&self, host: usize, assignment: &Assignment) -> Option<String> {
        let own = host_ports(&assignment.ports);
        self.hosts[host].runtime.running().find_map(|container| {
            let other = &container.assignment;
            if other.address == assignment.address {
                return Some(format!(
                    "{} is in use on host {host} when {} starts",
                    other.address, assignment.task
                ));
            }
            let port = host_ports(&other.ports).into_iter().find(|port| own.contains(port))?;
            Some(format!("port {port:?} is in use on host {host} when {} starts", assignment.task))
        })
    }
}

fn host_ports(ports: &[PortSpec]) -> Vec<(swarm_model::Protocol, Option<u16>)> {
    let host = ports.iter().filter(|port| port.mode == PortMode::Host);
    host.map(|port| (port.protocol, port.published)).collect()
}
