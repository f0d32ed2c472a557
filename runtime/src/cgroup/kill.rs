//! Killing what is left in a cgroup, and removing it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Cgroup, CgroupError, read_text, write_file};

/// How long killed processes may take to go. One that sits in the kernel, on a dead network file
/// system for instance, may take forever; then the cgroup stays and the caller is told.
const EMPTY_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks. The kernel tells of an empty version 1 cgroup in no other way.
const EMPTY_POLL: Duration = Duration::from_millis(2);
/// Directories below a cgroup that are removed with it. A container can make some only where it was
/// given the right to mount.
const DEPTH_LIMIT: u32 = 32;

impl Cgroup {
    /// Kills every process in the cgroup, waits until they are gone and removes the directories.
    /// A cgroup that does not exist is fine.
    pub fn destroy(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + EMPTY_WAIT;
        loop {
            self.kill()?;
            match self.remove_directories() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(EMPTY_POLL),
            }
        }
    }

    fn kill(&self) -> Result<(), CgroupError> {
        if let Some(path) = &self.unified {
            let file = path.join("cgroup.kill");
            if file.exists() {
                match write_file(&file, "1") {
                    Err(error) if error.is_gone() => {}
                    other => other?,
                }
            }
        }
        // Also where version 2 has killed: a process of a mixed host may have been put into only
        // a part of the hierarchies when its start was cut off.
        for directory in &self.legacy {
            kill_listed(&directory.path)?;
        }
        if let (Some(path), true) = (&self.unified, self.legacy.is_empty()) {
            kill_listed(path)?;
        }
        Ok(())
    }

    fn remove_directories(&self) -> Result<(), CgroupError> {
        self.directories().try_for_each(|path| remove_tree(path, DEPTH_LIMIT))
    }
}

impl CgroupError {
    fn is_gone(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound || self.source.raw_os_error() == Some(libc::ENODEV)
    }
}

/// Kills the processes in `cgroup.procs`. Between reading a number and opening the process it may
/// belong to another one, so only those still listed after they were opened are killed.
fn kill_listed(directory: &Path) -> Result<(), CgroupError> {
    let mut opened = Vec::new();
    for pid in members(directory)? {
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            opened.push((pid, pidfd));
        }
    }
    if opened.is_empty() {
        return Ok(());
    }
    let still = members(directory)?;
    for (pid, pidfd) in opened {
        if still.contains(&pid) {
            // Fails only for a process that has just ended.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
    Ok(())
}

fn members(directory: &Path) -> Result<HashSet<Pid>, CgroupError> {
    let file = directory.join("cgroup.procs");
    match read_text(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()),
        Err(source) => match CgroupError::new("read", &file, source) {
            error if error.is_gone() => Ok(HashSet::new()),
            error => Err(error),
        },
    }
}

fn remove_tree(path: &Path, depth: u32) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::new("remove cgroup", path, source);
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if depth == 0 => return Err(failed(error)),
        Err(_) => {}
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            kill_listed(&entry.path())?;
            remove_tree(&entry.path(), depth - 1)?;
        }
    }
    fs::remove_dir(path).map_err(failed)
}
