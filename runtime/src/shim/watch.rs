//! The shim's life: moving output into the log until the container ends, then its record.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use super::startup::Started;
use crate::exit::Exit;
use crate::logs::{Stream, Writer};
use crate::record::{Directory, Launch};
use crate::runtime::LogLimits;
use crate::sys;

/// Bytes of output taken at once: half of a pipe.
const CHUNK_BYTES: usize = 32 << 10;
/// Times that a full pipe is read after the container has ended. What is in it is 64 KiB; more
/// comes only from a process outside of the container that was handed the pipe.
const DRAIN_CHUNKS: usize = 64;

/// Serves until the container has ended and its record is written.
pub fn until_exit(started: Started, directory: &Directory, limits: LogLimits) {
    let init = started.init;
    let mut output = Output::new(started, Writer::new(directory.logs(), limits));
    let status = match output.pump(init) {
        Ok(status) => status,
        Err(error) => {
            // Without output and reaping there is nothing left to do: the runtime sees a lost
            // container, and the kernel ends it with its parent.
            eprintln!("cannot watch the container: {error}");
            sys::exit_now(super::NOT_STARTED);
        }
    };
    let oom = clean_up(directory);
    output.drain();
    let exit = Exit {
        code: exit_code(status),
        signal: status.terminating_signal(),
        oom,
        finished_at: Timestamp::now(),
    };
    if let Err(error) = exit.write(directory) {
        eprintln!("cannot record how the container ended ({exit:?}): {error}");
    }
}

/// Ends what the container has left and removes its cgroup; whether memory ran out in it.
fn clean_up(directory: &Directory) -> bool {
    // Read only now: while the container runs, the shim holds nothing that it does not need.
    let launch = match Launch::read(directory) {
        Ok(launch) => launch,
        Err(error) => {
            eprintln!("cannot read what was started: {error}");
            return false;
        }
    };
    let oom = launch.cgroup.oom_kills().unwrap_or(0) > 0;
    if let Err(error) = launch.cgroup.destroy() {
        eprintln!("cannot remove the cgroup: {error}");
    }
    oom
}

/// As a shell shows it.
fn exit_code(status: WaitStatus) -> i32 {
    const SIGNAL_BASE: i32 = 128;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNAL_BASE + signal,
        (None, None) => SIGNAL_BASE,
    }
}

struct Output {
    /// `None` once the container has closed it.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    log: Writer,
    chunk: Vec<u8>,
}

impl Output {
    fn new(started: Started, log: Writer) -> Self {
        let Started { stdout, stderr, .. } = started;
        for pipe in [&stdout, &stderr] {
            // Reading follows polling, so a pipe that stays blocking is read all the same.
            let _ = fcntl_getfl(pipe).and_then(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK));
        }
        Self { stdout: Some(stdout), stderr: Some(stderr), log, chunk: Vec::new() }
    }

    /// Moves output until the container's first process has ended.
    fn pump(&mut self, init: Pid) -> io::Result<WaitStatus> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        sys::trim_memory();
        // A child may have ended before the signal could be waited for.
        loop {
            if let Some(status) = reap(init)? {
                return Ok(status);
            }
            self.wait(signals.as_fd())?;
            while signals.read_signal()?.is_some() {}
            self.take(Stream::Stdout);
            self.take(Stream::Stderr);
        }
    }

    /// Waits for output or a signal.
    fn wait(&self, signals: BorrowedFd<'_>) -> io::Result<()> {
        let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        for pipe in [&self.stdout, &self.stderr].into_iter().flatten() {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves one chunk; `false` where nothing is there now.
    fn take(&mut self, stream: Stream) -> bool {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(open) = pipe else { return false };
        self.chunk.resize(CHUNK_BYTES, 0);
        match rustix::io::read(&*open, &mut self.chunk[..]) {
            Ok(0) => *pipe = None,
            Ok(length) => {
                // A full disk loses output, not the container.
                let _ = self.log.write(stream, &self.chunk[..length], Timestamp::now());
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => *pipe = None,
        }
        false
    }

    /// Takes what is left in the pipes.
    fn drain(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..DRAIN_CHUNKS {
                if !self.take(stream) {
                    break;
                }
            }
        }
        let _ = self.log.finish(Timestamp::now());
    }
}

/// Collects all children that have ended; how the first process did, if it is among them.
fn reap(init: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == init => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
