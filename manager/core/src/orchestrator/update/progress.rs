//! How far an update is, read from the tasks of the revision that is rolled out.

use std::time::Duration;

use swarm_model::{DesiredState, RestartCondition, TaskState, Timestamp, UpdatePolicy};

use super::super::attempt::Attempt;
use super::super::ledger::Ledger;
use super::super::restart::Verdict;
use super::super::settle;
use super::super::slot::Slot;
use super::super::target::{Phase, Target};

/// A slot whose new task does not run this long after it was begun counts as failed: no node fits, the image is missing,
/// or the old task does not end. (The model has no field for it yet; Kubernetes and Swarm users know 10 minutes.)
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// The slots of a service, counted by where they are in an update.
#[derive(Debug, Default)]
pub(in super::super) struct Progress {
    /// Positions of those that still are to be replaced.
    pub waiting: Vec<usize>,
    total: usize,
    /// Begun, and not running.
    begun: usize,
    /// Nothing can be said: a node was not heard of, or the slot is not created yet.
    unclear: usize,
    /// Running the new revision since then.
    running: Vec<Timestamp>,
    /// Ended at the new revision as their restart policy wants.
    ended: usize,
    failed: usize,
    first_failure: Option<String>,
    monitor: Duration,
    now: Timestamp,
}

/// Where one slot is.
enum Stage {
    /// What it has is good, and did not come from this update.
    Untouched,
    Waiting,
    Begun,
    Unclear,
    Running(Timestamp),
    Ended,
    Failed(String),
}

impl Progress {
    pub fn of(target: &Target<'_>, slots: &[Slot<'_>], missing: usize, ledger: &mut Ledger<'_>) -> Self {
        let mut progress = Self {
            total: slots.len() + missing,
            unclear: missing,
            monitor: target.policy().monitor,
            now: ledger.now,
            ..Self::default()
        };
        if target.phase() == Phase::Settled {
            return progress;
        }
        for (at, slot) in slots.iter().enumerate() {
            match stage(slot, target, ledger) {
                Stage::Untouched => {}
                Stage::Waiting => progress.waiting.push(at),
                Stage::Begun => progress.begun += 1,
                Stage::Unclear => progress.unclear += 1,
                Stage::Running(since) => progress.running.push(since),
                Stage::Ended => progress.ended += 1,
                Stage::Failed(reason) => {
                    progress.failed += 1;
                    progress.first_failure.get_or_insert_with(|| format!("slot {}: {reason}", slot.number));
                }
            }
        }
        for since in &progress.running {
            ledger.is_due(*since + progress.monitor);
        }
        progress
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// Slots that the update brought to the new revision.
    pub fn updated(&self) -> usize {
        self.running.len() + self.ended
    }

    pub fn failures(&self) -> usize {
        self.failed
    }

    /// Whether more slots failed than the policy tolerates.
    pub fn has_failed(&self, policy: &UpdatePolicy) -> bool {
        let tolerated = u64::from(policy.max_failure_ratio_millionths) * self.total as u64;
        self.failed as u64 * 1_000_000 > tolerated
    }

    pub fn failure_text(&self) -> String {
        let first = self.first_failure.as_deref().unwrap_or("no slot");
        format!("{first} ({} of {} slots failed)", self.failed, self.total)
    }

    /// Whether every slot arrived and was watched for long enough.
    pub fn is_complete(&self) -> bool {
        let arrived = self.waiting.is_empty() && self.begun == 0 && self.unclear == 0;
        arrived && self.running.iter().all(|since| self.is_verified(*since))
    }

    fn is_verified(&self, since: Timestamp) -> bool {
        since + self.monitor <= self.now
    }

    /// Slots that take a place among those under way: until they run, then for the policy's delay. The first ones for
    /// all of `monitor`. A tolerated failure takes none.
    pub fn in_progress(&self, policy: &UpdatePolicy, ledger: &mut Ledger<'_>) -> usize {
        let proven = self.ended > 0 || self.running.iter().any(|since| self.is_verified(*since));
        let pause = if proven { policy.delay } else { policy.delay.max(self.monitor) };
        let pausing = self.running.iter().filter(|since| !ledger.is_due(**since + pause)).count();
        self.begun + self.unclear + pausing
    }
}

fn stage(slot: &Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> Stage {
    let begun = slot.attempts.iter().any(|attempt| attempt.revision == target.revision());
    if let Some(reason) = slot.attempts.iter().find_map(|attempt| early_failure(attempt, target)) {
        return Stage::Failed(reason);
    }
    let serving = slot.live().filter(|attempt| target.is_current(attempt.revision));
    let running = serving.filter_map(Attempt::running_since).min();
    match (begun, running) {
        (true, Some(since)) => Stage::Running(since),
        (true, None) => under_way(slot, target, ledger),
        (false, Some(_)) => Stage::Untouched,
        (false, None) => not_begun(slot, target, ledger),
    }
}

/// A new task that ended by itself before it had run for `monitor`.
fn early_failure(attempt: &Attempt<'_>, target: &Target<'_>) -> Option<String> {
    let outcome = attempt.own_end().filter(|_| attempt.revision == target.revision())?;
    let update = target.update()?;
    let failed = match outcome.state {
        // A service that is to go on and just exits is as broken as one that crashes.
        TaskState::Complete => target.service.spec.task.restart.condition == RestartCondition::Any,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Orphaned => true,
    };
    let early = outcome.ran_since.is_none_or(|since| outcome.at.since(since) < target.policy().monitor);
    // What ended before the update was resumed was known to the operator who resumed it.
    (failed && early && outcome.at >= update.started_at)
        .then(|| if outcome.reason.is_empty() { "exited at once".to_owned() } else { outcome.reason.clone() })
}

fn under_way(slot: &Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> Stage {
    if slot.is_frozen() {
        return Stage::Unclear;
    }
    if let Some(at) = slot.decisive(target)
        && !slot.attempts[at].is_live()
        && slot.attempts[at].revision == target.revision()
    {
        match settle::verdict(slot, at, target) {
            Verdict::Ended | Verdict::Exhausted { .. } => return Stage::Ended,
            Verdict::Restart { .. } | Verdict::Retry { .. } => {}
        }
    }
    let ours = || slot.attempts.iter().filter(|attempt| attempt.revision == target.revision());
    // One that ran and was lost with its node is replaced; that is not the update's failure.
    let last_ran = ours().filter_map(|attempt| attempt.outcome.as_deref());
    let last_ran = last_ran.filter(|outcome| outcome.ran_since.is_some()).map(|outcome| outcome.at).max();
    // Neither is one that had to leave its node.
    let last_left = ours().filter(|attempt| attempt.desired >= DesiredState::Shutdown);
    let last_left = last_left.map(|attempt| attempt.desired_since).max();
    let first = ours().map(|first| first.created_at).min();
    let since = [first, last_ran, last_left, target.update().map(|update| update.started_at)];
    let Some(since) = since.into_iter().flatten().max() else { return Stage::Begun };
    if !ledger.is_due(since + DEADLINE) {
        return Stage::Begun;
    }
    let refusal = ours().filter_map(|attempt| attempt.outcome.as_deref()).next_back();
    let refusal = refusal.map(|outcome| outcome.reason.as_str()).filter(|reason| !reason.is_empty());
    Stage::Failed(format!(
        "not running {} minutes after its replacement began: {}",
        DEADLINE.as_secs() / 60,
        refusal.unwrap_or("`swarmctl service ps` shows what it waits for")
    ))
}

fn not_begun(slot: &Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) -> Stage {
    let (current, other): (Vec<_>, Vec<_>) =
        slot.live().partition(|attempt| target.is_current(attempt.revision));
    if current.iter().any(|attempt| other.is_empty() || !attempt.must_leave()) {
        // A replacement of the same spec may be on the way, from an update before this one.
        let settled = other.is_empty() && !slot.attempts.iter().any(Attempt::is_stopping);
        return if settled { Stage::Untouched } else { under_way(slot, target, ledger) };
    }
    if slot.is_frozen() {
        return Stage::Unclear;
    }
    if !other.is_empty() {
        return Stage::Waiting;
    }
    let Some(at) = slot.decisive(target) else { return Stage::Untouched };
    let decisive = &slot.attempts[at];
    if !target.is_current(decisive.revision) {
        return Stage::Waiting;
    }
    // Of the same spec, and ended: a new revision is a new beginning for a slot that its policy gave up.
    match settle::verdict(slot, at, target) {
        Verdict::Restart { .. } | Verdict::Retry { .. } => Stage::Untouched,
        Verdict::Exhausted { .. } | Verdict::Ended => Stage::Waiting,
    }
}
