//! From a container's end to the status that the operator reads.

use swarm_model::{Limits, TaskState, TaskStatus, Timestamp};

use crate::Exit;

/// The final status of a task whose container ended; `asked` if it was told to stop.
pub(crate) fn status_of(exit: &Exit, asked: bool, limits: &Limits, at: Timestamp) -> TaskStatus {
    let (exit_code, oom_killed) = match exit {
        Exit::Code { code, oom, .. } => (Some(*code), *oom),
        Exit::Lost { .. } => (None, false),
    };
    let (state, error) = match exit {
        _ if asked => (TaskState::Shutdown, String::new()),
        Exit::Code { code: 0, .. } => (TaskState::Complete, String::new()),
        Exit::Code { oom: true, .. } => (TaskState::Failed, out_of_memory(limits)),
        Exit::Code { signal: Some(signal), .. } => (TaskState::Failed, format!("killed by {signal}")),
        // The code says it all.
        Exit::Code { .. } => (TaskState::Failed, String::new()),
        Exit::Lost { reason } => (TaskState::Failed, reason.clone()),
    };
    TaskStatus { state, at, message: String::new(), error, exit_code, oom_killed, pid: None }
}

fn out_of_memory(limits: &Limits) -> String {
    match limits.memory_bytes {
        Some(limit) => format!("killed by the kernel: out of memory (limit {})", binary_size(limit)),
        None => "killed by the kernel: out of memory (the node's; the service has no limit)".to_owned(),
    }
}

/// Bytes in the largest binary unit that shows them exactly.
fn binary_size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = UNITS.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    match exact {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exit: &Exit, asked: bool, expect: &str) {
        let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
        let status = status_of(exit, asked, &limits, Timestamp::ZERO);
        let code = status.exit_code.map_or("-".to_owned(), |code| code.to_string());
        assert_eq!(format!("{} {code} {}", status.state, status.error).trim_end(), expect);
    }

    fn code(code: i32, signal: Option<&str>, oom: bool) -> Exit {
        Exit::Code { code, signal: signal.map(str::to_owned), oom }
    }

    #[test]
    fn the_error_names_the_cause() {
        check(&code(0, None, false), false, "complete 0");
        check(&code(3, None, false), false, "failed 3");
        check(&code(139, Some("SIGSEGV"), false), false, "failed 139 killed by SIGSEGV");
        let oom = "failed 137 killed by the kernel: out of memory (limit 64 MiB)";
        check(&code(137, Some("SIGKILL"), true), false, oom);
        check(&Exit::Lost { reason: "node was rebooted".to_owned() }, false, "failed - node was rebooted");
    }

    #[test]
    fn a_stop_that_was_asked_for_is_no_failure() {
        check(&code(143, Some("SIGTERM"), false), true, "shutdown 143");
        check(&code(0, None, false), true, "shutdown 0");
    }

    #[test]
    fn sizes_are_exact() {
        assert_eq!(binary_size(64 << 20), "64 MiB");
        assert_eq!(binary_size(2 << 30), "2 GiB");
        assert_eq!(binary_size(1_000_000), "1000000 bytes");
    }
}
