//! Invariant 6, addresses: none is held by two tasks that have not ended.

use std::collections::BTreeMap;

use super::Mirror;

pub fn check(mirror: &Mirror) -> Vec<String> {
    let mut holders = BTreeMap::new();
    let mut violations = Vec::new();
    for view in mirror.tasks.values().filter(|view| view.task.outcome.is_none()) {
        let Some(address) = view.task.address else { continue };
        if let Some(other) = holders.insert(address, view.task.id) {
            violations.push(format!("{address} is held by {other} and {}", view.task.id));
        }
    }
    violations
}
