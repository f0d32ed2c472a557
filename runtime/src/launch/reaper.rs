//! A small process 1 for containers whose command does not expect to be one: it passes signals on,
//! collects orphans and ends as the command ends.
//!
//! It is this program, not one of the image, and marked as not dumpable, so that the container
//! cannot look into it.

use std::io;
use std::os::fd::RawFd;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::sys::{self, exit_now};

/// Added to a signal's number, as a shell does.
const SIGNAL_BASE: i32 = 128;

/// Goes on in a child, with this process as its reaper: returns only there.
pub fn continue_in_child(report: RawFd) -> io::Result<()> {
    // SAFETY: the process has one thread, so the child may do whatever it could.
    match unsafe { fork() }? {
        ForkResult::Child => Ok(()),
        ForkResult::Parent { child } => {
            // While this end is open, the shim waits for the command to run.
            sys::close_all_but_standard(report);
            exit_now(reap_until(child))
        }
    }
}

/// The exit code of the command.
fn reap_until(command: Pid) -> i32 {
    // Neither fails: the name is short, and the behaviour is known to every kernel.
    let _ = rustix::thread::set_name(c"init");
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let signals = SigSet::all();
    if signals.thread_block().is_err() {
        return SIGNAL_BASE;
    }
    loop {
        if let Some(code) = collect(command) {
            return code;
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // It may have ended meanwhile.
            Ok(signal) => drop(kill(command, signal)),
        }
    }
}

/// Collects what has ended; the exit code where the command is among them.
fn collect(command: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Some(SIGNAL_BASE + signal as i32);
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // No child is left, and the command was not seen to end: it cannot be.
            Err(_) => return Some(SIGNAL_BASE),
        }
    }
}
