//! The output of containers: how the shim keeps it and how it is read back.
//!
//! The files hold lines in the format of the Kubernetes container runtime interface,
//! `2026-11-03T10:11:12.123456789Z stdout F text`. `F` ends a line of the container, `P` is a
//! part of a longer one. `current` is written; when it is full it becomes `current.1`, and so on;
//! the oldest is dropped.

mod format;
mod reader;
mod writer;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub use reader::{ReadError, ReadOptions, Reader};
pub(crate) use writer::Writer;

/// Longest piece of a container's line that one entry holds; a longer line becomes several.
/// Docker's and Kubernetes' value.
pub const ENTRY_LIMIT_BYTES: usize = 16 << 10;

/// Which of its outputs a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of a container's output, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the shim read it, UTC.
    pub time: Timestamp,
    pub stream: Stream,
    /// As the container wrote it, without the newline. Any bytes.
    pub bytes: Vec<u8>,
    /// More of the same line follows.
    pub partial: bool,
}

/// The file with this age; 0 is the one that is written.
fn file_path(directory: &Path, age: u32) -> PathBuf {
    match age {
        0 => directory.join("current"),
        _ => directory.join(format!("current.{age}")),
    }
}
