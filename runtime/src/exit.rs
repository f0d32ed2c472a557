//! How a container ended.

use jiff::Timestamp;

/// How a container ended, as its shim wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code as a shell shows it: 128 plus the signal's number where a signal ended it.
    pub code: i32,
    /// The signal that ended the first process.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container because its memory limit was reached.
    pub oom: bool,
    /// When the shim saw the end, UTC.
    pub finished_at: Timestamp,
}

/// What is known of a container that no longer runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended, and its shim saw how.
    Exited(Exit),
    /// Its shim was killed (or the host went down) before it could write how the container ended.
    Lost,
}
