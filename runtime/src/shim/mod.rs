//! The parent of one container: a process with one thread that outlives the daemon.
//!
//! ```text
//! daemon ── spawn ──> shim ── fork into the cgroup ──> launching process ──> (ends)
//!    └── socket ───────┘ └── parent of ──> the container's first process
//! ```
//!
//! The shim holds the container's output, reaps it and writes down how it ended. It has no
//! socket once the container runs: the daemon watches it by pidfd and reads its files.

mod client;
mod program;
mod protocol;
mod startup;
mod watch;

use std::ffi::OsString;

pub(crate) use client::{end, spawn};
pub(crate) use program::Program;

use crate::sys::exit_now;

/// First argument with which a program must call [`main`].
pub const ARGUMENT: &str = "shim";

/// Exit code of a shim whose container did not start; why, it has told the daemon.
const NOT_STARTED: i32 = 1;

/// Runs this process as a shim. `args` are the process's arguments after [`ARGUMENT`]. To be
/// called before anything starts a thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ! {
    let Some((directory, limits)) = protocol::parse_arguments(args) else {
        eprintln!("the shim is started by the runtime, not by hand");
        exit_now(2);
    };
    let Some(started) = startup::start(&directory) else {
        exit_now(NOT_STARTED);
    };
    watch::until_exit(started, &directory, limits);
    exit_now(0)
}
