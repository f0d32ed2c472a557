//! The daemon's side: starting a shim, having it start a container, ending it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::protocol::{self, Answer};
use super::{ARGUMENT, Program};
use crate::error::StartError;
use crate::process::ProcessId;
use crate::record::Directory;
use crate::runtime::LogLimits;

/// How long a container may take to start. It takes milliseconds; a disk or a kernel that needs
/// this long is not going to answer.
const START_WAIT: Duration = Duration::from_secs(60);
/// How long a killed shim may take to go.
const END_WAIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How long a shim may take to end by itself once its container has: it waits for the rest of the
/// container as long as [`crate::cgroup`] does.
const OWN_END_WAIT: Timespec = Timespec { tv_sec: 12, tv_nsec: 0 };
/// How much of a dead shim's log becomes part of the error.
const LAST_WORDS_BYTES: usize = 2048;

/// A shim that waits for the word to start its container. Dropped before that, it ends.
#[derive(Debug)]
pub struct Shim {
    socket: UnixStream,
    /// `None` once it has a container.
    pidfd: Option<OwnedFd>,
    process: ProcessId,
    log: File,
}

/// Runs the shim of a container.
pub fn spawn(program: &Program, directory: &Directory, limits: LogLimits) -> io::Result<Shim> {
    let (socket, theirs) = UnixStream::pair()?;
    let log = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(directory.join("shim.log"))?;
    let child = Command::new(program.path())
        .arg0("swarm-shim")
        .arg(ARGUMENT)
        .args(protocol::arguments(directory, limits))
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log.try_clone()?)
        .spawn()?;
    // A child that nobody has waited for keeps its number.
    let pid = i32::try_from(child.id()).expect("a process number");
    let process = ProcessId::of(pid)?;
    let pidfd = pidfd_open(Pid::from_raw(pid).expect("not 0"), PidfdFlags::empty())?;
    Ok(Shim { socket, pidfd: Some(pidfd), process, log })
}

impl Shim {
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Starts the container; returns the shim's pidfd and the container's first process.
    pub fn launch(
        mut self,
        id: &str,
        netns: Option<BorrowedFd<'_>>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<(OwnedFd, ProcessId), StartError> {
        let id = || id.to_owned();
        let answer = protocol::send_start(&self.socket, netns, cgroup)
            .and_then(|()| self.socket.set_read_timeout(Some(START_WAIT)))
            .and_then(|()| protocol::receive_answer(&self.socket));
        match answer {
            Ok(Some(Answer::Started(init))) => {
                let pidfd = self.pidfd.take().expect("taken only here");
                Ok((pidfd, init))
            }
            Ok(Some(Answer::Failed(failure))) => Err(StartError::Failed { id: id(), failure }),
            Ok(None) | Err(_) => Err(StartError::ShimDied { id: id(), last_words: self.last_words() }),
        }
    }

    fn last_words(&self) -> String {
        let length = self.log.metadata().map_or(0, |metadata| metadata.len());
        let mut words = vec![0; LAST_WORDS_BYTES];
        let start = length.saturating_sub(LAST_WORDS_BYTES as u64);
        let read = self.log.read_at(&mut words, start).unwrap_or(0);
        let words = String::from_utf8_lossy(&words[..read]).trim().replace('\n', "; ");
        if words.is_empty() { words } else { format!(": {words}") }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // One that cannot be killed is in the hands of the kernel.
            let _ = kill_and_wait(pidfd.as_fd());
        }
    }
}

/// Ends a container and its shim, whichever of them lives. The container goes first: its shim
/// reaps it, and ends.
pub fn end(shim: ProcessId, init: Option<ProcessId>) -> io::Result<()> {
    let Some(shim) = shim.open()? else { return Ok(()) };
    let init = init.map(ProcessId::open).transpose()?.flatten();
    if let Some(init) = init {
        kill(init.as_fd())?;
        if wait(shim.as_fd(), OWN_END_WAIT)? {
            return Ok(());
        }
    }
    kill_and_wait(shim.as_fd())
}

fn kill_and_wait(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    kill(pidfd)?;
    if wait(pidfd, END_WAIT)? { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

fn kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the process has ended within this time.
fn wait(pidfd: BorrowedFd<'_>, limit: Timespec) -> io::Result<bool> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    if poll(&mut fds, Some(&limit))? == 0 {
        return Ok(false);
    }
    // Only a child leaves something to collect.
    let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    Ok(true)
}
