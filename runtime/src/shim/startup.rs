//! The shim's beginning: waiting for the word, forking the launching process, answering.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, Signal};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid};

use super::protocol::{self, Answer};
use crate::launch::{self, Failure, Parts, Report};
use crate::process::ProcessId;
use crate::record::{Directory, Launch, State};
use crate::sys::{self, Fork, exit_now};

/// Least likely of all to be chosen by the kernel when memory runs out, short of never.
const OOM_SCORE: &str = "-999";

/// A container that runs, from its parent's view.
#[derive(Debug)]
pub struct Started {
    pub init: Pid,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Starts the container in this directory; `None` where it did not start, which the daemon has
/// been told.
pub fn start(directory: &Directory) -> Option<Started> {
    // SAFETY: the daemon starts a shim with a socket as standard input, and nothing else of this
    // process uses it.
    let socket = unsafe { UnixStream::from_raw_fd(0) };
    let result = become_shim()
        .and_then(|()| protocol::receive_start(&socket))
        .map_err(|error| Failure::setup("prepare the shim", &error))
        .and_then(|files| match files {
            Some(files) => launch(directory, files),
            None => exit_now(super::NOT_STARTED),
        });
    let (answer, started) = match result {
        Ok((init, started)) => (Answer::Started(init), Some(started)),
        Err(failure) => (Answer::Failed(failure), None),
    };
    protocol::send_answer(&socket, &answer);
    started
}

/// Leaves the daemon's session and takes on a parent's duties.
fn become_shim() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::thread::set_thread_groups(&[])?;
    // What the launching process orphans becomes ours to reap.
    rustix::process::set_child_subreaper(Some(getpid()))?;
    // Where the daemon lacks the right, protection is not worth failing for.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        blocked.add(signal);
    }
    blocked.thread_block()?;
    // It was run by the number of an open file, and would be known by that.
    rustix::thread::set_name(c"swarm-shim")?;
    Ok(())
}

fn launch(directory: &Directory, files: protocol::Files) -> Result<(ProcessId, Started), Failure> {
    let failed = |error: io::Error| Failure::setup("start the launching process", &error);
    let open_pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()));
    let (stdout, stdout_end) = open_pipe()?;
    let (stderr, stderr_end) = open_pipe()?;
    let (report, report_end) = open_pipe()?;
    let shim = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    let cgroup = files.cgroup.as_ref().map(AsFd::as_fd);
    match sys::fork_into(cgroup).map_err(failed)? {
        Fork::Child => {
            drop((stdout, stderr, report, files.cgroup));
            run_launcher(Parts {
                directory: directory.clone(),
                netns: files.netns,
                stdout: stdout_end,
                stderr: stderr_end,
                report: report_end,
                shim,
            })
        }
        Fork::Parent { child } => {
            drop((stdout_end, stderr_end, report_end, shim, files));
            let init = collect_reports(report, child)?;
            let identity = ProcessId::of(init).map_err(failed)?;
            let own = ProcessId::of(getpid().as_raw_nonzero().get()).map_err(failed)?;
            State { shim: own, init: identity }.write(directory).map_err(failed)?;
            limit_cpu(directory)?;
            let init = Pid::from_raw(init).expect("a process number");
            Ok((identity, Started { init, stdout, stderr }))
        }
    }
}

/// Not the daemon does it: it may be killed before, and the cgroup of a short command is gone when the daemon hears of
/// its start.
fn limit_cpu(directory: &Directory) -> Result<(), Failure> {
    let launch = Launch::read(directory).map_err(|error| Failure::setup("read what was started", &error))?;
    let limited = launch.cgroup.limit_cpu(&launch.spec.resources);
    limited.map_err(|error| Failure::setup("limit CPU time", &error))
}

/// The launching process: its whole life.
fn run_launcher(parts: Parts) -> ! {
    let report = parts.report.try_clone();
    let Err(failure) = launch::run(parts) else { exit_now(0) };
    if let Ok(report) = report {
        Report::Failed(failure).send(File::from(report));
    }
    exit_now(1)
}

/// Reads what the launching process and the first process say until the command runs.
fn collect_reports(report: OwnedFd, launcher: i32) -> Result<i32, Failure> {
    let (mut init, mut detail) = (None, None);
    for line in BufReader::new(File::from(report)).lines() {
        let report = line.and_then(|line| Ok(serde_json::from_str(&line)?));
        match report.map_err(|error| Failure::setup("hear from the launching process", &error))? {
            Report::Init(pid) => init = Some(pid),
            Report::Detail(text) => {
                detail.get_or_insert(text);
            }
            Report::Failed(failure) => return Err(failure.with_detail(detail)),
        }
    }
    init.ok_or_else(|| Failure::Setup {
        step: "make the container".to_owned(),
        reason: format!("the launching process ended with {}", launcher_end(launcher)),
    })
}

/// How the launching process ended, for the error. A small memory limit is the usual reason.
fn launcher_end(launcher: i32) -> String {
    let status = waitpid(Pid::from_raw(launcher), WaitOptions::empty());
    match status.ok().flatten().map(|(_, status)| status) {
        Some(status) if status.signaled() => {
            format!("signal {}", status.terminating_signal().unwrap_or_default())
        }
        Some(status) => format!("code {}", status.exit_status().unwrap_or_default()),
        None => "an unknown state".to_owned(),
    }
}
