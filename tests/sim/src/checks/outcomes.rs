//! An outcome is true: a task that is said to have ended does not run. Only of a lost node's tasks nothing is said.

use swarm_model::{Task, TaskState};

use super::Step;

pub fn check(step: &Step<'_>) -> Vec<String> {
    let ended = |task: &Task| step.before.tasks.get(&task.id).is_none_or(|before| before.outcome.is_none());
    let new = step.after.tasks.values().filter(|task| task.outcome.is_some() && ended(task));
    new.filter_map(|task| {
        let outcome = task.outcome.as_ref().filter(|outcome| outcome.state != TaskState::Orphaned)?;
        let (host, machine) = step.host(task.node?)?;
        let runs = machine.runtime.containers.get(&task.id).is_some_and(|container| container.is_running());
        runs.then(|| format!("task {} is said to be {}, but runs on host {host}", task.id, outcome.state))
    })
    .collect()
}
