//! Waiting for the end of a process through its pidfd: no thread, no polling.
//!
//! The crate's only unsafe code: the async runtime asks for a promise about the descriptor that it is handed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns when the process has ended: then its pidfd is readable.
pub(crate) async fn ended(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let handle: OwnedFd = fcntl_dupfd_cloexec(pidfd, 0)?;
    // SAFETY: an `OwnedFd` is one open descriptor from its making to its drop, which the `AsyncFd` does.
    let handle = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?;
    handle.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[tokio::test]
    async fn a_process_is_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        {
            let end = super::ended(pidfd.as_fd());
            tokio::pin!(end);
            assert!(futures_util::poll!(&mut end).is_pending());
            drop(child.stdin.take());
            end.await.unwrap();
        }
        child.wait().unwrap();
    }
}
