//! Invariant 5: a rolling update never has more slots out of service than its parallelism, nor any with start-first.
//!
//! The leader decided a moment before what is committed now, so what came up or went down meanwhile is not held against it.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::{
    DesiredState, NodeState, Service, ServiceId, Task, TaskId, TaskState, Timestamp, UpdateState,
};

use super::slots::{always_starts_first, must_leave};
use super::{Seen, Step};

/// From a decision to its entry.
const DECIDED_BEFORE: Duration = Duration::from_secs(4);

/// A slot whose new task does not come up for ten minutes has failed; if that is tolerated, the update goes on. The leader counted
/// them from its decision, and its clock may be a little fast.
const DEADLINE: Duration = Duration::from_secs(10 * 60 - 5);

#[derive(Debug, Default)]
pub struct Memory {
    /// Slots that an update to a revision took out of service, and when.
    down: BTreeMap<(ServiceId, u32), (u64, Timestamp)>,
    /// Since when a task is seen running, and when it was last.
    running: BTreeMap<TaskId, (Timestamp, Timestamp)>,
    /// What updates were allowed, and when last.
    allowed: BTreeMap<(ServiceId, u64), Timestamp>,
}

pub fn check(step: &Step<'_>, seen: &Seen, memory: &mut Memory) -> Vec<String> {
    memory.note(step, seen);
    let mut taken = Vec::new();
    let mut violations = Vec::new();
    for task in step.after.tasks.values().filter(|task| stops(step, task)) {
        let Some(service) = step.after.services.get(&task.service) else { continue };
        if !served(step, seen, memory, task, service) {
            continue;
        }
        if task.revision != service.revision && always_starts_first(service) {
            violations.push(format!("start-first took {}.{} out of service", service.spec.name, task.slot));
        }
        memory.down.insert((service.id, task.slot), (service.revision, step.now));
        taken.push(service.id);
    }
    memory.settle(step, seen);
    for service in taken.iter().filter_map(|id| step.after.services.get(id)) {
        let down = memory.down.range((service.id, 0)..=(service.id, u32::MAX)).count() as u64;
        // The leader may have decided by a spec that the operator replaced while the plan was on its way.
        let lately =
            memory.allowed.range((service.id, 0)..=(service.id, u64::MAX)).map(|((_, most), _)| *most);
        let allowed = allowed(service).map(|now| lately.fold(now, u64::max));
        if let Some(allowed) = allowed.filter(|allowed| down > *allowed) {
            violations.push(format!(
                "the update of {} holds {down} slots down, {allowed} allowed",
                service.spec.name
            ));
        }
    }
    violations
}

fn stops(step: &Step<'_>, task: &Task) -> bool {
    let before = step.before.tasks.get(&task.id);
    task.desired == DesiredState::Shutdown && before.is_some_and(|before| before.is_live())
}

/// Whether the slot was served by this task alone, and its node was one to stay on.
fn served(step: &Step<'_>, seen: &Seen, memory: &Memory, task: &Task, service: &Service) -> bool {
    let long = |id: TaskId| {
        memory.running.get(&id).is_some_and(|(since, _)| step.now.since(*since) > DECIDED_BEFORE)
    };
    let ready = task.node.is_some_and(|node| seen.node(node) == Some(NodeState::Ready));
    let stays = ready && !must_leave(step, task);
    let lately = |id: TaskId| {
        let last = memory.running.get(&id).map(|(_, last)| *last).max(seen.told_running(id));
        last.is_some_and(|last| step.now.since(last) < DECIDED_BEFORE)
    };
    let mut others = step.after.slot(service.id, task.slot).filter(|other| other.id != task.id);
    seen.state(task.id) == Some(TaskState::Running)
        && long(task.id)
        && stays
        && task.slot <= service.replicas()
        && task.revision != service.revision
        && !others.any(|other| lately(other.id))
}

/// `None`: no update is under way.
fn allowed(service: &Service) -> Option<u64> {
    let policy = match service.update.as_ref()?.state {
        UpdateState::Updating => &service.spec.update,
        UpdateState::RollbackStarted => &service.spec.rollback,
        UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => return None,
    };
    Some(if policy.parallelism == 0 { u64::MAX } else { policy.parallelism })
}

impl Memory {
    fn note(&mut self, step: &Step<'_>, seen: &Seen) {
        let services = step.before.services.values();
        let allowed = services.filter_map(|service| Some(((service.id, allowed(service)?), step.now)));
        self.allowed.extend(allowed);
        self.allowed.retain(|_, at| step.now.since(*at) < DECIDED_BEFORE);
        self.running.retain(|id, _| step.after.tasks.contains_key(id));
        for id in step.after.tasks.keys().filter(|id| seen.state(**id) == Some(TaskState::Running)) {
            self.running.entry(*id).or_insert((step.now, step.now)).1 = step.now;
        }
        let stopped = |id: &TaskId| seen.state(*id).is_some_and(|state| state > TaskState::Running);
        for (id, (since, _)) in &mut self.running {
            if stopped(id) {
                *since = step.now;
            }
        }
    }

    /// Slots that serve again, failed on their own, or are not wanted any more.
    fn settle(&mut self, step: &Step<'_>, seen: &Seen) {
        self.down.retain(|(service, slot), (revision, since)| {
            let Some(service) = step.after.services.get(service) else { return false };
            let mut tasks = step.after.slot(service.id, *slot);
            let over = tasks.any(|task| {
                let runs = task.is_live() && seen.state(task.id) == Some(TaskState::Running);
                runs || (task.revision == *revision && task.outcome.is_some())
            });
            let given_up = step.now.since(*since) >= DEADLINE;
            // Fewer replicas are wanted, and this is one too many.
            let dropped = !step.after.slot(service.id, *slot).any(|task| task.desired < DesiredState::Remove);
            service.revision == *revision && !dropped && !over && !given_up
        });
    }
}
