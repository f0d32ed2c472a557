//! The crate's only `unsafe` code: starting a process in another network namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns};

/// Starts a process inside a namespace; the caller stays where it is.
pub fn spawn_within(netns: OwnedFd, command: &mut Command) -> io::Result<Child> {
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes one
    // system call on a descriptor that it owns, and neither allocates nor locks.
    unsafe {
        command.pre_exec(move || Ok(setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?));
    }
    command.spawn()
}
