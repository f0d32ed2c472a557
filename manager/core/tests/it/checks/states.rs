//! Invariant 3: task states only rise.

use super::Mirror;

pub fn check(mirror: &mut Mirror) -> Vec<String> {
    let Mirror { tasks, highest, .. } = mirror;
    tasks
        .values()
        .filter_map(|view| {
            let state = view.status.state;
            let before = highest.insert(view.task.id, state)?;
            (state < before).then(|| format!("task {} fell from {before} to {state}", view.task.id))
        })
        .collect()
}
