//! Invariant 6, ports: no port of a node is held by two tasks that have not ended, no ingress port by two services.

use std::collections::BTreeMap;

use swarm_model::PortMode;

use super::Mirror;

pub fn check(mirror: &Mirror) -> Vec<String> {
    let mut violations = Vec::new();
    let mut holders = BTreeMap::new();
    for view in mirror.tasks.values().filter(|view| view.task.outcome.is_none()) {
        let (Some(node), Some(spec)) = (view.task.node, &view.spec) else { continue };
        for port in spec.ports.iter().filter(|port| port.mode == PortMode::Host) {
            if let Some(other) = holders.insert((node, port.protocol, port.published), view.task.id) {
                violations.push(format!(
                    "port {:?} of {node} is held by {other} and {}",
                    port.published, view.task.id
                ));
            }
        }
    }
    let mut services = BTreeMap::new();
    for view in mirror.services.values() {
        for port in view.service.ports.iter().filter(|port| port.mode == PortMode::Ingress) {
            if let Some(other) = services.insert((port.protocol, port.published), &view.service.spec.name) {
                violations.push(format!(
                    "{:?} is published by {other} and {}",
                    port.published, view.service.spec.name
                ));
            }
        }
    }
    violations
}
