//! The program that shims run, out of reach of containers.
//!
//! Until a container's command runs, its first process still is a shim, and `/proc/PID/exe` leads
//! a hostile image to that program (CVE-2019-5736: it was opened for writing from inside). So it
//! is run from a mount of its own that refuses writes and that is attached nowhere.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys;

/// A program on a read-only mount.
#[derive(Debug)]
pub struct Program {
    /// What was configured, for messages.
    name: PathBuf,
    mount: OwnedFd,
}

impl Program {
    /// Mounts the program. Needs Linux 5.12.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, path, flags)?;
        sys::make_read_only(&mount)?;
        Ok(Self { name: path.to_owned(), mount })
    }

    pub fn name(&self) -> &Path {
        &self.name
    }

    /// A path that leads there in this process and, until it runs the program, in a child of it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }
}
