//! Invariant 6, ports: no port of a node is held by two tasks that have not ended, no ingress port by two services.

use std::collections::BTreeMap;

use swarm_model::PortMode;

use super::Step;

pub fn check(step: &Step<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut holders = BTreeMap::new();
    for task in step.after.open_tasks() {
        let (Some(node), Some(spec)) = (task.node, step.after.spec_of(task)) else { continue };
        for port in spec.ports.iter().filter(|port| port.mode == PortMode::Host) {
            if let Some(other) = holders.insert((node, port.protocol, port.published), task.id) {
                violations
                    .push(format!("port {:?} of {node} is held by {other} and {}", port.published, task.id));
            }
        }
    }
    let mut services = BTreeMap::new();
    for service in step.after.services.values() {
        for port in service.ports.iter().filter(|port| port.mode == PortMode::Ingress) {
            if let Some(other) = services.insert((port.protocol, port.published), &service.spec.name) {
                violations
                    .push(format!("{:?} is published by {other} and {}", port.published, service.spec.name));
            }
        }
    }
    violations
}
