//! Invariant 4: never two tasks of one slot desired running, but two under start-first.

use std::collections::BTreeMap;

use swarm_model::{DesiredState, MountKind, PortMode, ServiceSpec, UpdateOrder};

use super::Mirror;

pub fn check(mirror: &Mirror) -> Vec<String> {
    let mut slots: BTreeMap<_, u32> = BTreeMap::new();
    for view in mirror.tasks.values() {
        if view.task.desired == DesiredState::Running && view.task.outcome.is_none() {
            *slots.entry((view.task.service, view.task.slot)).or_default() += 1;
        }
    }
    slots
        .into_iter()
        .filter_map(|((service, slot), count)| {
            let spec = &mirror.services.get(&service)?.service.spec;
            let most = if starts_first(spec) { 2 } else { 1 };
            (count > most).then(|| format!("{count} tasks of {}.{slot} are desired running", spec.name))
        })
        .collect()
}

fn starts_first(spec: &ServiceSpec) -> bool {
    let pinned = spec.ports.iter().any(|port| port.mode == PortMode::Host)
        || spec.task.container.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Volume { .. }));
    match spec.update.order {
        Some(order) => order == UpdateOrder::StartFirst,
        None => !pinned,
    }
}
