//! Invariant 4: never two tasks of one slot desired running, but two under start-first, and where one of them has to leave
//! its node. Looked at when a task joins another one.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::{
    Availability, DesiredState, MountKind, PortMode, Service, ServiceId, ServiceSpec, Task, Timestamp,
    UpdateOrder, UpdatePolicy,
};

use super::{Step, Truth};

/// Entries between a plan and what the operator had committed while it was on its way.
const DECIDED_BEFORE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Memory {
    /// When a spec with start-first was last in force.
    started_first: BTreeMap<ServiceId, Timestamp>,
}

impl Memory {
    fn note(&mut self, step: &Step<'_>) {
        self.started_first.retain(|id, _| step.after.services.contains_key(id));
        for service in step.before.services.values().filter(|service| starts_first(service)) {
            self.started_first.insert(service.id, step.now);
        }
    }

    /// By any of its specs, or by one that the operator replaced while the leader's plan was on its way.
    fn may_start_first(&self, step: &Step<'_>, service: &Service) -> bool {
        let lately = |at: &Timestamp| step.now.since(*at) < DECIDED_BEFORE;
        starts_first(service) || self.started_first.get(&service.id).is_some_and(lately)
    }
}

pub fn check(step: &Step<'_>, memory: &mut Memory) -> Vec<String> {
    memory.note(step);
    let before = counts(step.before);
    let mut violations = Vec::new();
    for ((service, slot), count) in counts(step.after) {
        let Some(service) = step.after.services.get(&service) else { continue };
        if count <= before.get(&(service.id, slot)).copied().unwrap_or(0) {
            continue;
        }
        let leaves =
            step.after.slot(service.id, slot).filter(|task| wanted(task)).any(|task| must_leave(step, task));
        let most = if memory.may_start_first(step, service) || leaves { 2 } else { 1 };
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
