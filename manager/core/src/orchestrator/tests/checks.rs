//! What must hold in every plan, whatever happens in the world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_model::{
    DesiredState, Service, ServiceSpec, Task, TaskId, TaskState, Timestamp, UpdateOrder, UpdateState,
};

use super::super::{Remark, ServicePlan, TaskAction};
use super::world::{NodeIs, World};

/// What the checks remember from one plan to the next.
#[derive(Debug, Default)]
pub struct Memory {
    /// Restarts that a slot was given at a revision.
    restarts: BTreeMap<(u32, u64), u64>,
    /// Slots that an update to a revision took out of service, and when.
    taken_down: BTreeMap<(u32, u64), Timestamp>,
}

/// Checks a plan: `before` is the world's tasks that it was made for, `world` is what it led to.
pub fn check(before: &BTreeMap<TaskId, Task>, plan: &ServicePlan, world: &mut World) {
    slots_are_as_many_as_wanted(plan, world);
    if !world.removed {
        unknown_nodes_are_left_alone(before, plan, world);
        pairs_serve_a_purpose(plan, world);
        updates_keep_their_bounds(before, plan, world);
        restarts_keep_their_delays(before, plan, world);
    }
}

fn slots_are_as_many_as_wanted(plan: &ServicePlan, world: &World) {
    let slots: BTreeSet<u32> = (world.tasks.values())
        .filter(|task| task.desired < DesiredState::Remove)
        .map(|task| task.slot)
        .collect();
    let wanted = if world.removed { 0 } else { world.service.replicas() as usize };
    let waits = plan.remarks.iter().any(|remark| matches!(remark, Remark::ScaleDownWaits { .. }));
    assert!(slots.len() == wanted || waits && slots.len() > wanted, "{wanted} slots wanted: {slots:?}");
}

/// A leader that has not heard of a node decides nothing that depends on it.
fn unknown_nodes_are_left_alone(before: &BTreeMap<TaskId, Task>, plan: &ServicePlan, world: &World) {
    for action in &plan.actions {
        let (id, allowed) = match action {
            TaskAction::Create { .. } => continue,
            TaskAction::SetDesired { id, desired } => (id, *desired == DesiredState::Remove),
            TaskAction::Finish { id, .. } => (id, false),
            TaskAction::Forget { id } => (id, before[id].outcome.is_some()),
        };
        let node = before.get(id).and_then(|task| task.node);
        let unknown = node.is_some_and(|node| world.nodes[&node] == NodeIs::Unknown);
        assert!(!unknown || allowed, "decided about a task of an unknown node: {action:?}");
    }
}

/// Invariant 4: at most two tasks of a slot may run, and two only where one serves until the other does.
fn pairs_serve_a_purpose(plan: &ServicePlan, world: &World) {
    let raised = plan.actions.iter().filter_map(|action| match action {
        TaskAction::Create { id, desired: DesiredState::Running, .. }
        | TaskAction::SetDesired { id, desired: DesiredState::Running } => world.tasks.get(id),
        TaskAction::Create { .. }
        | TaskAction::SetDesired { .. }
        | TaskAction::Finish { .. }
        | TaskAction::Forget { .. } => None,
    });
    for task in raised {
        let others = (world.tasks.values())
            .filter(|other| other.slot == task.slot && other.id != task.id && other.is_live());
        let others: Vec<&Task> = others.collect();
        assert!(others.len() <= 1, "slot {} has {} others", task.slot, others.len());
        for other in others {
            assert!(runs(world, other), "slot {}: the other one serves nobody", task.slot);
            let leaves = is_on(world, other, &[NodeIs::Draining, NodeIs::Mismatch]);
            assert!(leaves || order(&world.service) == UpdateOrder::StartFirst, "two of slot {}", task.slot);
        }
    }
}

/// Invariant 5: an update takes no more slots out of service than it may, and none with start-first.
fn updates_keep_their_bounds(before: &BTreeMap<TaskId, Task>, plan: &ServicePlan, world: &mut World) {
    let revision = world.service.revision;
    let mut taken = Vec::new();
    for action in &plan.actions {
        let TaskAction::SetDesired { id, desired: DesiredState::Shutdown } = action else { continue };
        let task = &before[id];
        if !runs(world, task) || !is_on(world, task, &[NodeIs::Ready]) || !world.tasks.contains_key(id) {
            continue;
        }
        let mut others = world.tasks.values().filter(|other| other.slot == task.slot && other.id != *id);
        if others.any(|other| other.is_live() && runs(world, other)) {
            continue;
        }
        assert!(differs(&world.service, task.revision), "stopped {task:?} for nothing");
        assert_eq!(order(&world.service), UpdateOrder::StopFirst, "start-first lost slot {}", task.slot);
        taken.push(((task.slot, revision), world.now));
    }
    let mut down = std::mem::take(&mut world.checks.taken_down);
    let serves =
        |slot: u32| world.tasks.values().any(|task| task.slot == slot && task.is_live() && runs(world, task));
    let failed = |slot: u32| {
        world.tasks.values().any(|task| task.slot == slot && task.revision == revision && ended_itself(task))
    };
    down.extend(taken.iter().copied());
    // Failed for good after ten minutes, and tolerated, or the update would have ended.
    let stuck = |since: Timestamp| world.now.since(since) >= Duration::from_secs(600);
    let wanted =
        |slot: u32| world.tasks.values().any(|task| task.slot == slot && task.desired < DesiredState::Remove);
    down.retain(|(slot, of), since| {
        *of == revision && wanted(*slot) && !stuck(*since) && !serves(*slot) && !failed(*slot)
    });
    let allowed = match world.service.update.as_ref().map(|update| update.state) {
        Some(UpdateState::Updating) => world.service.spec.update.parallelism,
        Some(UpdateState::RollbackStarted) => world.service.spec.rollback.parallelism,
        // What failed and was tolerated is tried again after the update.
        None
        | Some(
            UpdateState::Paused
            | UpdateState::Completed
            | UpdateState::RollbackPaused
            | UpdateState::RollbackCompleted,
        ) => 0,
    };
    assert!(
        taken.is_empty() || allowed == 0 || down.len() as u64 <= allowed,
        "the update holds {down:?} down, {allowed} allowed"
    );
    world.checks.taken_down = down;
    paused_updates_rest(before, plan, world);
}

fn paused_updates_rest(before: &BTreeMap<TaskId, Task>, plan: &ServicePlan, world: &World) {
    let update = world.service.update.as_ref();
    let paused = update.is_some_and(|update| {
        update.to_revision == world.service.revision
            && matches!(update.state, UpdateState::Paused | UpdateState::RollbackPaused)
    });
    for action in plan.actions.iter().filter(|_| paused) {
        let TaskAction::Create { slot, revision, .. } = action else { continue };
        let serving = before.values().any(|task| {
            task.slot == *slot
                && task.is_live()
                && runs(world, task)
                && is_on(world, task, &[NodeIs::Ready])
                && task.revision != *revision
        });
        assert!(!serving, "a paused update went on with slot {slot}");
    }
}

/// Invariant 12: a restart keeps to delay and attempts, whoever leads.
fn restarts_keep_their_delays(before: &BTreeMap<TaskId, Task>, plan: &ServicePlan, world: &mut World) {
    for action in &plan.actions {
        let TaskAction::Create { slot, revision, not_before, restarts, .. } = action else { continue };
        let of_slot =
            before.values().filter(|task| task.slot == *slot && task.desired < DesiredState::Remove);
        let Some(newest) = of_slot.max_by_key(|task| task.created_at) else {
            world.checks.restarts.retain(|(of, _), _| of != slot);
            continue;
        };
        // As the plan left it.
        let Some(ended) = world.tasks.get(&newest.id).filter(|task| ended_itself(task)) else { continue };
        let end = |task: &Task| task.outcome.as_ref().map(|outcome| outcome.at);
        let ended_at = end(ended).unwrap_or(Timestamp::ZERO);
        // What served beside it and was lost later is what this one replaces.
        let last = world.tasks.values().filter(|task| task.slot == *slot).filter_map(end).max();
        if ended.revision != *revision || last > Some(ended_at) {
            continue;
        }
        let policy = world.service.revisions[revision].task.restart.clone();
        assert!(*restarts == 1 || *restarts == ended.restarts + 1, "{restarts} after {}", ended.restarts);
        let factor = 1u32.checked_shl(restarts - 1).unwrap_or(u32::MAX);
        let delay = policy.delay.saturating_mul(factor).min(Duration::from_secs(300));
        let starts = not_before.unwrap_or(world.now);
        assert!(starts >= ended_at + delay, "restart {restarts} after {:?}", starts.since(ended_at));
        let count = world.checks.restarts.entry((*slot, *revision)).or_default();
        *count += 1;
        let limit = policy.max_attempts;
        assert!(limit == 0 || !policy.window.is_zero() || *count <= limit, "{count} restarts of {limit}");
    }
    for action in &plan.actions {
        if let TaskAction::SetDesired { id, desired: DesiredState::Running } = action {
            let due = world.tasks[id].not_before.is_none_or(|time| time <= world.now);
            assert!(due, "started before its time");
        }
    }
}

fn ended_itself(task: &Task) -> bool {
    task.desired == DesiredState::Running
        && task
            .outcome
            .as_ref()
            .is_some_and(|outcome| matches!(outcome.state, TaskState::Failed | TaskState::Complete))
}

fn runs(world: &World, task: &Task) -> bool {
    world.seen.get(&task.id).is_some_and(|seen| seen.status.state == TaskState::Running)
}

fn is_on(world: &World, task: &Task, nodes: &[NodeIs]) -> bool {
    task.node.is_some_and(|node| nodes.contains(&world.nodes[&node]))
}

/// The tests set the same order for updates and rollbacks.
fn order(service: &Service) -> UpdateOrder {
    let spec = &service.spec;
    let limited = spec.task.placement.max_replicas_per_node.is_some();
    let shared = limited || !spec.task.container.mounts.is_empty() || !spec.ports.is_empty();
    spec.update.order.unwrap_or(if shared { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst })
}

/// Whether tasks of that revision are to be replaced; the walks change image and force only.
pub fn differs(service: &Service, revision: u64) -> bool {
    let key = |spec: &ServiceSpec| (spec.task.container.image.name.clone(), spec.task.force_update);
    service.revisions.get(&revision).is_none_or(|spec| key(spec) != key(&service.spec))
}
