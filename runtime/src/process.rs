//! Processes named so that a reused number is never mistaken for them: by number and start time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process of this host, alive or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process number in the host's namespace.
    pub pid: i32,
    /// Clock ticks from boot to the start of the process, field 22 of `/proc/PID/stat`.
    pub started_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> io::Result<Self> {
        let started_ticks = started_ticks(pid)?;
        Ok(Self { pid, started_ticks })
    }

    /// A handle of the process, `None` where it has ended and was reaped.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number may have been reused: only after the handle is open does the comparison hold.
        match started_ticks(self.pid) {
            Ok(ticks) if ticks == self.started_ticks => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn started_ticks(pid: i32) -> io::Result<u64> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A process that ends between open and read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            return Err(io::ErrorKind::NotFound.into());
        }
        other => other?,
    };
    parse_started_ticks(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// The command in the second field may hold anything, so counting starts after its last `)`.
fn parse_started_ticks(stat: &str) -> Option<u64> {
    const FIELDS_BETWEEN_COMMAND_AND_START: usize = 19;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(FIELDS_BETWEEN_COMMAND_AND_START)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_start_time() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(parse_started_ticks(stat), Some(4711));
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let me = ProcessId::of(own).unwrap();
        assert!(me.open().unwrap().is_some());
        let other = ProcessId { started_ticks: me.started_ticks + 1, ..me };
        assert!(other.open().unwrap().is_none());
    }
}
