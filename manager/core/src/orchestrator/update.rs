//! Rolling updates and rollbacks: what becomes of the one at hand, and which slots it replaces next.
//!
//! Nothing is remembered beside the update's status: how far it is follows from the tasks of the revision that is rolled
//! out. The first slots are watched for the whole of `monitor` before others follow; after that only `parallelism` and
//! `delay` hold it back, as a container that starts in milliseconds would else be everywhere before it fails.

mod progress;

use swarm_model::{FailureAction, Service, UpdateState, UpdateStatus};

use super::Remark;
use super::attempt::Attempt;
use super::eviction;
use super::ledger::Ledger;
use super::settle::serving;
use super::slot::{Beginning, Slot};
use super::target::{Phase, Target};

pub(super) use progress::Progress;

/// Brings the update's status up to date. `missing` slots are not created yet.
pub(super) fn assess(
    target: &mut Target<'_>,
    slots: &mut [Slot<'_>],
    missing: usize,
    ledger: &mut Ledger<'_>,
) -> Progress {
    let mut changed = is_unannounced(target);
    if changed {
        let status = announced(target, ledger);
        target.set_update(status);
    }
    loop {
        let progress = Progress::of(target, slots, missing, ledger);
        let Some(next) = next_status(target, &progress, ledger) else {
            if changed && let Some(status) = target.update() {
                ledger.set_update(status.clone());
            }
            return progress;
        };
        changed = true;
        match next {
            Next::Status(status) => target.set_update(status),
            Next::RollBack { to, status } => {
                // Checked where the step was decided: the revision is known.
                if target.roll_back(to, status) {
                    ledger.roll_back(to);
                    // What counts as a replacement is another thing now.
                    slots.iter_mut().for_each(|slot| eviction::enforce_deadline(slot, target, ledger));
                }
            }
        }
    }
}

/// A revision beyond the first that no status speaks of.
fn is_unannounced(target: &Target<'_>) -> bool {
    target.update().is_none() && (target.service.update.is_some() || target.service.revisions.len() > 1)
}

fn announced(target: &Target<'_>, ledger: &Ledger<'_>) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::Updating,
        started_at: ledger.now,
        completed_at: None,
        message: "update in progress".to_owned(),
        from_revision: revision_before(target),
        to_revision: target.revision(),
    }
}

/// The revision before the current one that counts as proven.
fn revision_before(target: &Target<'_>) -> u64 {
    let service = &target.service;
    match &service.update {
        None => {
            let before = service.revisions.range(..service.revision).next_back();
            before.map_or(service.revision, |(revision, _)| *revision)
        }
        Some(_) => proven_revision(service),
    }
}

/// The last revision that an update brought to its end, or that a rollback returned to: where a rollback of the next
/// update goes. One that is overtaken half way is not proven.
pub(crate) fn proven_revision(service: &Service) -> u64 {
    match &service.update {
        None => service.revision,
        Some(update) => match update.state {
            UpdateState::Updating | UpdateState::Paused => update.from_revision,
            UpdateState::Completed
            | UpdateState::RollbackStarted
            | UpdateState::RollbackPaused
            | UpdateState::RollbackCompleted => update.to_revision,
        },
    }
}

enum Next {
    Status(UpdateStatus),
    RollBack { to: u64, status: UpdateStatus },
}

fn next_status(target: &Target<'_>, progress: &Progress, ledger: &Ledger<'_>) -> Option<Next> {
    let rolling_back = match target.phase() {
        Phase::Settled | Phase::UpdatePaused | Phase::RollbackPaused => return None,
        Phase::Updating => false,
        Phase::RollingBack => true,
    };
    let status = target.update()?;
    if progress.has_failed(target.policy()) {
        return match (rolling_back, target.policy().failure_action) {
            (_, FailureAction::Continue) => completed(progress, status, ledger),
            (false, FailureAction::Pause) => Some(Next::Status(paused(target, progress, status))),
            (false, FailureAction::Rollback) => Some(rollback(target, progress, status, ledger)),
            (true, FailureAction::Pause | FailureAction::Rollback) => {
                Some(Next::Status(rollback_paused(progress, status)))
            }
        };
    }
    completed(progress, status, ledger)
}

fn completed(progress: &Progress, status: &UpdateStatus, ledger: &Ledger<'_>) -> Option<Next> {
    if !progress.is_complete() {
        return None;
    }
    let rolled_back = status.state == UpdateState::RollbackStarted;
    let message = if rolled_back {
        format!("{}; rollback completed", status.message)
    } else if progress.failures() > 0 {
        format!("update completed, but {}", progress.failure_text())
    } else if progress.updated() == 0 {
        "update completed: no task had to be replaced".to_owned()
    } else {
        format!("update completed: {} of {} slots replaced", progress.updated(), progress.total())
    };
    Some(Next::Status(UpdateStatus {
        state: if rolled_back { UpdateState::RollbackCompleted } else { UpdateState::Completed },
        completed_at: Some(ledger.now),
        message,
        ..status.clone()
    }))
}

fn paused(target: &Target<'_>, progress: &Progress, status: &UpdateStatus) -> UpdateStatus {
    let name = &target.service.spec.name;
    UpdateStatus {
        state: UpdateState::Paused,
        message: format!(
            "update paused: {}; correct it with `swarmctl service update {name}` or return with `swarmctl service \
             rollback {name}`",
            progress.failure_text()
        ),
        ..status.clone()
    }
}

fn rollback(target: &Target<'_>, progress: &Progress, status: &UpdateStatus, ledger: &Ledger<'_>) -> Next {
    let to = status.from_revision;
    if to == target.revision() || !target.service.revisions.contains_key(&to) {
        let mut status = paused(target, progress, status);
        status.message.push_str(&format!(" (cannot roll back by itself: revision {to} was forgotten)"));
        return Next::Status(status);
    }
    let status = UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: ledger.now,
        completed_at: None,
        message: format!("update to revision {} failed: {}", target.revision(), progress.failure_text()),
        from_revision: target.revision(),
        to_revision: target.revision() + 1,
    };
    Next::RollBack { to, status }
}

fn rollback_paused(progress: &Progress, status: &UpdateStatus) -> UpdateStatus {
    // One that was resumed tells the first reason only.
    let before = status.message.rsplit("; before: ").next().unwrap_or_default();
    UpdateStatus {
        state: UpdateState::RollbackPaused,
        message: format!("rollback paused: {}; before: {before}", progress.failure_text()),
        ..status.clone()
    }
}

/// Begins with as many of the waiting slots as the policy lets be under way. Those that do not run anyway come first; a
/// rollback restores all of those at once, as nothing is lost by it.
pub(super) fn advance(
    target: &Target<'_>,
    slots: &mut [Slot<'_>],
    progress: &Progress,
    ledger: &mut Ledger<'_>,
) {
    if progress.waiting.is_empty() {
        return;
    }
    let waiting = u32::try_from(progress.waiting.len()).unwrap_or(u32::MAX);
    match target.phase() {
        Phase::Settled => return,
        Phase::UpdatePaused | Phase::RollbackPaused => {
            return ledger.remark(Remark::UpdatePaused { slots: waiting });
        }
        Phase::Updating | Phase::RollingBack => {}
    }
    let in_progress = progress.in_progress(target.policy(), ledger);
    let allowed = match target.policy().parallelism {
        0 => usize::MAX,
        parallelism => usize::try_from(parallelism).unwrap_or(usize::MAX),
    };
    let mut next = progress.waiting.clone();
    next.sort_by_key(|at| (runs(&slots[*at]), slots[*at].number));
    let idle = match target.phase() {
        Phase::RollingBack => next.partition_point(|at| !runs(&slots[*at])),
        Phase::Settled | Phase::Updating | Phase::UpdatePaused | Phase::RollbackPaused => 0,
    };
    next.truncate(allowed.saturating_sub(in_progress).max(idle));
    for at in &next {
        begin(&mut slots[*at], target, ledger);
    }
    let left = progress.waiting.len() - next.len();
    if left > 0 {
        let count = |slots: usize| u32::try_from(slots).unwrap_or(u32::MAX);
        let in_progress = count(in_progress + next.len());
        ledger.remark(Remark::UpdateWaits { slots: count(left), in_progress });
    }
}

fn runs(slot: &Slot<'_>) -> bool {
    slot.live().any(Attempt::is_running)
}

fn begin(slot: &mut Slot<'_>, target: &Target<'_>, ledger: &mut Ledger<'_>) {
    slot.replace(ledger, serving(slot, target), Beginning::of(target.revision()), target.order());
}
