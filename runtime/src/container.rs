//! The handle of a container that was started or found again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::cgroup::Cgroup;
use crate::error::ContainerError;
use crate::exit::{Exit, Outcome};
use crate::process::ProcessId;
use crate::record::Directory;
use crate::signal::Signal;
use crate::sys;

/// A container with a shim. The handle owns nothing: dropping it changes nothing.
#[derive(Debug)]
pub struct Container {
    pub(crate) id: String,
    pub(crate) directory: Directory,
    pub(crate) cgroup: Cgroup,
    pub(crate) init: ProcessId,
    pub(crate) shim: OwnedFd,
}

/// What a container uses now, with all of its processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Without page cache that the kernel would drop first.
    pub memory_bytes: u64,
    /// CPU time since the start.
    pub cpu_nanos: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Container {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of the container's first process on the host.
    #[must_use]
    pub fn init_pid(&self) -> i32 {
        self.init.pid
    }

    /// Sends a signal to the first process. As process 1 of its namespace it ignores every signal
    /// that it does not handle, except `SIGKILL` and `SIGSTOP`.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), ContainerError> {
        let failed = |source| ContainerError::Signal { id: self.id.clone(), signal, source };
        let not_running = || ContainerError::NotRunning { id: self.id.clone() };
        let init = self.init.open().map_err(failed)?.ok_or_else(not_running)?;
        match sys::send_signal(init.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(not_running()),
            other => other.map_err(failed),
        }
    }

    /// Kills the container at once.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] where it has ended.
    pub fn kill(&self) -> Result<(), ContainerError> {
        self.signal(Signal::KILL)
    }

    /// A handle of the shim: it polls readable when the container has ended, and then
    /// [`Container::exit_status`] tells how.
    #[must_use]
    pub fn shim_pidfd(&self) -> BorrowedFd<'_> {
        self.shim.as_fd()
    }

    /// How the container ended; `None` while its shim lives.
    ///
    /// Where the shim was killed, what is left of the container is killed too before this
    /// returns [`Outcome::Lost`]: nobody would notice its end any more.
    ///
    /// # Errors
    /// Where the record cannot be read, or a lost container cannot be killed.
    pub fn exit_status(&self) -> Result<Option<Outcome>, ContainerError> {
        let failed = |source| ContainerError::ExitStatus { id: self.id.clone(), source };
        if !ended(self.shim.as_fd()).map_err(failed)? {
            return Ok(None);
        }
        // The shim is this process's child only if this process started it.
        let _ = waitid(WaitId::PidFd(self.shim.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        match Exit::read(&self.directory).map_err(failed)? {
            Some(exit) => Ok(Some(Outcome::Exited(exit))),
            None => {
                self.cgroup.destroy().map_err(|error| failed(io::Error::other(error)))?;
                Ok(Some(Outcome::Lost))
            }
        }
    }

    /// What the container uses now.
    ///
    /// # Errors
    /// Where it has ended, or the kernel's figures cannot be read.
    pub fn stats(&self) -> Result<Usage, ContainerError> {
        self.cgroup.usage().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ContainerError::NotRunning { id: self.id.clone() },
            _ => ContainerError::Stats { id: self.id.clone(), source },
        })
    }
}

/// Whether the process behind a pidfd has ended.
pub fn ended(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut fds, Some(&now))? > 0)
}
