//! Invariant 4: never two tasks of one slot desired running, but two under start-first, and where one of them has to leave
//! its node. Looked at when a task joins another one.

use std::collections::BTreeMap;

use swarm_model::{
    Availability, DesiredState, MountKind, PortMode, Service, ServiceId, ServiceSpec, Task, UpdateOrder,
    UpdatePolicy,
};

use super::{Step, Truth};

pub fn check(step: &Step<'_>) -> Vec<String> {
    let before = counts(step.before);
    let mut violations = Vec::new();
    for ((service, slot), count) in counts(step.after) {
        let Some(service) = step.after.services.get(&service) else { continue };
        if count <= before.get(&(service.id, slot)).copied().unwrap_or(0) {
            continue;
        }
        let leaves =
            step.after.slot(service.id, slot).filter(|task| wanted(task)).any(|task| must_leave(step, task));
        let most = if starts_first(service) || leaves { 2 } else { 1 };
        if count > most {
            violations.push(format!("{count} tasks of {}.{slot} are desired running", service.spec.name));
        }
    }
    violations
}

fn wanted(task: &Task) -> bool {
    task.desired == DesiredState::Running && task.outcome.is_none()
}

fn counts(truth: &Truth) -> BTreeMap<(ServiceId, u32), usize> {
    let mut counts = BTreeMap::new();
    for task in truth.tasks.values().filter(|task| wanted(task)) {
        *counts.entry((task.service, task.slot)).or_default() += 1;
    }
    counts
}

/// Its node is drained, gone, or does not fit its constraints any more.
pub fn must_leave(step: &Step<'_>, task: &Task) -> bool {
    let Some(node) = task.node.and_then(|node| step.before.nodes.get(&node)) else { return true };
    let matches = step
        .after
        .spec_of(task)
        .is_none_or(|spec| spec.task.placement.constraints.iter().all(|constraint| constraint.matches(node)));
    node.spec.availability == Availability::Drain || !matches
}

/// By any of its specs: an order changes while an update is under way.
fn starts_first(service: &Service) -> bool {
    orders(service).any(|order| order == UpdateOrder::StartFirst)
}

/// By each of them.
pub fn always_starts_first(service: &Service) -> bool {
    orders(service).all(|order| order == UpdateOrder::StartFirst)
}

fn orders(service: &Service) -> impl Iterator<Item = UpdateOrder> {
    let specs = service.revisions.values().chain([&service.spec]);
    specs.flat_map(|spec| [&spec.update, &spec.rollback].map(|policy| order(spec, policy)))
}

fn order(spec: &ServiceSpec, policy: &UpdatePolicy) -> UpdateOrder {
    let volume = |kind: &MountKind| matches!(kind, MountKind::Volume { .. });
    let shares = spec.ports.iter().any(|port| port.mode == PortMode::Host)
        || spec.task.container.mounts.iter().any(|mount| volume(&mount.kind))
        || spec.task.placement.max_replicas_per_node.is_some();
    policy.order.unwrap_or(if shares { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst })
}
