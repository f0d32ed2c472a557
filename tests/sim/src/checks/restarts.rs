//! Invariant 12: restarts respect policy and back-off, whoever leads.

use std::time::Duration;

use swarm_model::{DesiredState, Task, TaskState, Timestamp};

use super::Step;

/// Longest back-off.
const CEILING: Duration = Duration::from_secs(300);

pub fn check(step: &Step<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for task in step.after.tasks.values() {
        let before = step.before.tasks.get(&task.id);
        let runs_since_now = task.desired == DesiredState::Running
            && before.is_none_or(|before| before.desired < DesiredState::Running);
        if let Some(not_before) = task.not_before.filter(|at| runs_since_now && task.desired_since < *at) {
            violations.push(format!(
                "task {} is to run {:?} before its time",
                task.id,
                not_before.since(task.desired_since)
            ));
        }
        if before.is_none() {
            violations.extend(too_early(step, task));
        }
    }
    violations
}

/// A task that follows one that ended by itself.
fn too_early(step: &Step<'_>, task: &Task) -> Option<String> {
    let policy = &step.after.spec_of(task)?.task.restart;
    let (restarts, most) = (u64::from(task.restarts), policy.max_attempts);
    if most > 0 && policy.window.is_zero() && restarts > most {
        return Some(format!("task {} is restart {restarts} of at most {most}", task.id));
    }
    let others = || step.after.slot(task.service, task.slot).filter(|other| other.id != task.id);
    let newest = others()
        .filter(|other| other.desired < DesiredState::Remove && other.created_at < task.created_at)
        .max_by_key(|other| other.created_at)?;
    let ended_at = own_end(newest)?;
    let last = others().filter_map(|other| Some(other.outcome.as_ref()?.at)).max()?;
    if newest.revision != task.revision || last > ended_at {
        return None;
    }
    let doublings = task.restarts.checked_sub(1)?;
    let delay = policy.delay.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(CEILING);
    let starts = task.not_before.unwrap_or(task.created_at);
    (starts < ended_at + delay).then(|| {
        format!("restart {restarts} of slot {} after {:?}, not {delay:?}", task.slot, starts.since(ended_at))
    })
}

fn own_end(task: &Task) -> Option<Timestamp> {
    let outcome = task.outcome.as_ref().filter(|_| task.desired == DesiredState::Running)?;
    matches!(outcome.state, TaskState::Failed | TaskState::Complete).then_some(outcome.at)
}
