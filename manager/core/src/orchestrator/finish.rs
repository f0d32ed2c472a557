//! Ends: which tasks count as ended, and what is noted about how. The note is what an operator reads first.

use swarm_model::{DesiredState, Outcome, Service, TaskState, TaskStatus, Timestamp};

use super::NodeCondition;
use super::attempt::Attempt;
use super::ledger::Ledger;
use super::plan::TaskAction;
use super::slot::Slot;

/// Bytes of a reason that are kept; agents are not trusted to be brief.
const MAX_REASON_BYTES: usize = 1024;

/// Gives an outcome to every attempt that ended: its agent says so, or its node is lost.
pub(super) fn finish_ended(slot: &mut Slot<'_>, service: &Service, ledger: &mut Ledger<'_>) {
    for attempt in slot.attempts.iter_mut().filter(|attempt| attempt.outcome.is_none()) {
        if let Some(outcome) = reported(attempt, service) {
            ledger.finish(attempt, outcome);
            continue;
        }
        match attempt.condition {
            NodeCondition::Down { .. } => orphan(attempt, "node down", ledger),
            NodeCondition::Gone => orphan(attempt, "node removed from the cluster", ledger),
            NodeCondition::Unplaced
            | NodeCondition::Usable
            | NodeCondition::Unknown
            | NodeCondition::Draining
            | NodeCondition::Mismatch => {}
        }
    }
    slot.attempts.retain(|attempt| {
        let never_ran = attempt.is_stopping() && attempt.condition == NodeCondition::Unplaced;
        if never_ran {
            ledger.act(TaskAction::Forget { id: attempt.id });
        }
        !never_ran
    });
}

/// The outcome that a final report makes.
fn reported(attempt: &Attempt<'_>, service: &Service) -> Option<Outcome> {
    let observed = attempt.observed.filter(|observed| observed.status.state.is_final())?;
    if attempt.condition == NodeCondition::Unknown {
        return None;
    }
    let limit = service.task_spec(attempt.revision).and_then(|spec| spec.limits.memory_bytes);
    Some(Outcome {
        state: observed.status.state,
        exit_code: observed.status.exit_code,
        oom_killed: observed.status.oom_killed,
        reason: reason(observed.status, limit),
        at: observed.since,
        ran_since: observed.ran_since,
    })
}

/// The node took the task with it. Should it return, its agent is told to stop it.
fn orphan(attempt: &mut Attempt<'_>, reason: &str, ledger: &mut Ledger<'_>) {
    if attempt.desired < DesiredState::Shutdown {
        attempt.raise(DesiredState::Shutdown, ledger);
    }
    let at: Timestamp = ledger.now;
    let ran_since = attempt.observed.and_then(|observed| {
        observed.ran_since.or((observed.status.state == TaskState::Running).then_some(observed.since))
    });
    let outcome = Outcome {
        state: TaskState::Orphaned,
        exit_code: None,
        oom_killed: false,
        reason: reason.to_owned(),
        at,
        ran_since,
    };
    ledger.finish(attempt, outcome);
}

fn reason(status: &TaskStatus, memory_limit: Option<u64>) -> String {
    let mut text = match status.state {
        TaskState::Failed => failure(status, memory_limit),
        TaskState::Rejected if status.error.is_empty() => "its node could not prepare it".to_owned(),
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Rejected
        | TaskState::Orphaned => status.error.clone(),
    };
    if text.len() > MAX_REASON_BYTES {
        text.truncate(text.floor_char_boundary(MAX_REASON_BYTES));
        text.push('…');
    }
    text
}

fn failure(status: &TaskStatus, memory_limit: Option<u64>) -> String {
    let cause = if status.oom_killed {
        match memory_limit {
            Some(limit) => format!("killed by the kernel: out of memory (limit {})", size(limit)),
            None => "killed by the kernel: out of memory".to_owned(),
        }
    } else if status.error.is_empty() {
        status.exit_code.and_then(signal).unwrap_or_default().to_owned()
    } else {
        status.error.clone()
    };
    match status.exit_code {
        Some(code) if cause.is_empty() => format!("exit code {code}"),
        Some(code) => format!("exit code {code}: {cause}"),
        None if cause.is_empty() => "failed for an unknown reason".to_owned(),
        None => cause,
    }
}

/// What a shell's exit code above 128 stands for.
fn signal(exit_code: i32) -> Option<&'static str> {
    Some(match exit_code {
        129 => "ended by SIGHUP",
        130 => "ended by SIGINT",
        131 => "ended by SIGQUIT",
        132 => "illegal instruction (SIGILL)",
        134 => "aborted (SIGABRT)",
        135 => "bus error (SIGBUS)",
        136 => "arithmetic error (SIGFPE)",
        137 => "killed (SIGKILL)",
        139 => "segmentation fault (SIGSEGV)",
        141 => "broken pipe (SIGPIPE)",
        143 => "ended by SIGTERM",
        _ => return None,
    })
}

fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        state: TaskState,
        exit_code: Option<i32>,
        oom_killed: bool,
        error: &str,
        limit: Option<u64>,
        expect: &str,
    ) {
        let status = TaskStatus {
            state,
            at: Timestamp::ZERO,
            message: String::new(),
            error: error.to_owned(),
            exit_code,
            oom_killed,
            pid: None,
        };
        assert_eq!(reason(&status, limit), expect);
    }

    #[test]
    fn reasons_begin_with_the_cause() {
        use TaskState::{Complete, Failed, Rejected};
        check(Complete, Some(0), false, "", None, "");
        check(Failed, Some(1), false, "", None, "exit code 1");
        check(Failed, Some(139), false, "", None, "exit code 139: segmentation fault (SIGSEGV)");
        let oom = "exit code 137: killed by the kernel: out of memory (limit 64 MiB)";
        check(Failed, Some(137), true, "", Some(64 << 20), oom);
        check(Failed, Some(137), true, "", None, "exit code 137: killed by the kernel: out of memory");
        check(Failed, None, false, "", None, "failed for an unknown reason");
        check(Failed, None, false, "cannot start /bin/x: not found", None, "cannot start /bin/x: not found");
        check(Rejected, None, false, "", None, "its node could not prepare it");
        check(Rejected, None, false, "image web:2: not found", None, "image web:2: not found");
        let long = "é".repeat(600);
        check(Rejected, None, false, &long, None, &format!("{}…", "é".repeat(512)));
    }
}
