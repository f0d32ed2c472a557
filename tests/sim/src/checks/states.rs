//! Invariant 3: states only rise. What is desired of a task, where it is, and how it ended never goes back.

use super::Step;

pub fn check(step: &Step<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for before in step.before.tasks.values() {
        let Some(after) = step.after.tasks.get(&before.id) else { continue };
        let id = before.id;
        if after.desired < before.desired {
            violations
                .push(format!("task {id} was desired {} and is desired {}", before.desired, after.desired));
        }
        if before.node.is_some() && (after.node, after.address) != (before.node, before.address) {
            violations.push(format!("task {id} moved from {:?} to {:?}", before.node, after.node));
        }
        if before.outcome.is_some() && after.outcome != before.outcome {
            violations.push(format!("the outcome of task {id} changed"));
        }
        if (after.service, after.slot, after.revision) != (before.service, before.slot, before.revision) {
            violations.push(format!("task {id} became another one"));
        }
    }
    violations
}
