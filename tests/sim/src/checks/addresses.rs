//! Invariant 6, addresses: none is held by two tasks that have not ended, and each lies on its task's node.

use std::collections::BTreeMap;

use super::Step;

pub fn check(step: &Step<'_>) -> Vec<String> {
    let mut holders = BTreeMap::new();
    let mut violations = Vec::new();
    for task in step.after.open_tasks() {
        let Some(address) = task.address else { continue };
        if let Some(other) = holders.insert(address, task.id) {
            violations.push(format!("{address} is held by {other} and {}", task.id));
        }
    }
    violations
}
