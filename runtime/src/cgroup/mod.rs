//! Control groups of versions 1 and 2 and the mixture of both: limits, figures, out-of-memory
//! kills, killing and removing.
//!
//! A container has one directory named by its id in every hierarchy that limits or measures
//! something. Only the caller of the runtime and the shim touch them: the OCI library is kept
//! away from cgroups, because its way of joining costs 6 to 11 ms on version 1 (see
//! [`Cgroup::join_legacy`]).

mod devices;
mod kill;
mod layout;
mod limits;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use devices::DeviceProgram;
pub use layout::Layout;

use crate::container::Usage;
use crate::files::read_bounded;
use crate::spec::Resources;

/// Most that is read of a file of a cgroup.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// A controller that containers need. Of others (cpuset, perf_event, net_cls, …) a container
/// stays where its shim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    Memory,
    Cpu,
    Cpuacct,
    Pids,
    Devices,
    Freezer,
    Blkio,
}

/// A container's directories in the cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Version 1: one directory per hierarchy.
    legacy: Vec<LegacyDirectory>,
    /// Version 2. On a mixed host it has no controllers, but kills a whole group in one write.
    unified: Option<PathBuf>,
}

/// Directories of the host that a container sees in `/sys/fs/cgroup`.
#[derive(Debug, PartialEq, Eq)]
pub enum View<'a> {
    /// This directory as `/sys/fs/cgroup`.
    Whole(&'a Path),
    /// These directories below it, with their names there.
    PerController(Vec<(String, &'a Path)>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LegacyDirectory {
    controllers: Vec<Controller>,
    path: PathBuf,
}

/// What was tried on which file of a cgroup.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}", path = path.display())]
pub struct CgroupError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl CgroupError {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self { action, path, source }
    }
}

impl Cgroup {
    /// Makes the directories and sets the limits, but for [`Cgroup::limit_cpu`].
    pub fn create(&self, resources: &Resources, devices: &DeviceProgram) -> Result<(), CgroupError> {
        for path in self.directories() {
            fs::create_dir(path).map_err(|e| CgroupError::new("create cgroup", path, e))?;
        }
        limits::apply(self, resources)?;
        devices.restrict(self)
    }

    /// Limits CPU time. After the start, which takes milliseconds of it: a container with a tenth
    /// of a CPU would else wait for its next period before it runs.
    pub fn limit_cpu(&self, resources: &Resources) -> Result<(), CgroupError> {
        limits::apply_cpu_quota(self, resources)
    }

    /// Moves the calling thread, which must be the only one of its process, into the version 1
    /// directories.
    ///
    /// It writes 0 to `tasks`, not its number to `cgroup.procs`: for the calling thread alone the
    /// kernel skips the lock of all thread groups and with it the wait for an RCU grace period
    /// (0.4 ms instead of 7 ms for seven controllers, Linux 6.18).
    pub fn join_legacy(&self) -> Result<(), CgroupError> {
        for directory in &self.legacy {
            write_file(&directory.path.join("tasks"), "0")?;
        }
        Ok(())
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let open = |path: &PathBuf| {
            File::open(path).map(OwnedFd::from).map_err(|e| CgroupError::new("open", path, e))
        };
        self.unified.as_ref().map(open).transpose()
    }

    /// What a container sees of its cgroup.
    pub fn view(&self) -> View<'_> {
        match &self.unified {
            Some(path) if self.legacy.is_empty() => View::Whole(path),
            _ => View::PerController(self.legacy.iter().filter_map(LegacyDirectory::view).collect()),
        }
    }

    /// Number of processes that the kernel killed because the memory limit was reached.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let memory = Controller::Memory;
        let file = match (self.legacy_directory(memory), self.unified_with(memory)) {
            (Some(path), _) => path.join("memory.oom_control"),
            (None, Some(path)) => path.join("memory.events"),
            (None, None) => return Ok(0),
        };
        Ok(read_field(&file, "oom_kill")?.unwrap_or(0))
    }

    /// What the container uses now; 0 where this host does not measure it. Page cache that the
    /// kernel would drop first is not counted as memory.
    pub fn usage(&self) -> io::Result<Usage> {
        // Also tells that the cgroup is gone, where nothing else would.
        self.directories().try_for_each(|path| path.metadata().map(drop))?;
        let pids = match self.directory_with(Controller::Pids) {
            Some(path) => read_number(&path.join("pids.current"))?,
            None => 0,
        };
        Ok(Usage { memory_bytes: self.memory_bytes()?, cpu_nanos: self.cpu_nanos()?, pids })
    }

    fn memory_bytes(&self) -> io::Result<u64> {
        let memory = Controller::Memory;
        let (path, used, cache) = match (self.legacy_directory(memory), self.unified_with(memory)) {
            (Some(path), _) => (path, "memory.usage_in_bytes", "total_inactive_file"),
            (None, Some(path)) => (path, "memory.current", "inactive_file"),
            (None, None) => return Ok(0),
        };
        let used = read_number(&path.join(used))?;
        let cache = read_field(&path.join("memory.stat"), cache)?;
        Ok(used.saturating_sub(cache.unwrap_or(0)))
    }

    fn cpu_nanos(&self) -> io::Result<u64> {
        match (self.legacy_directory(Controller::Cpuacct), &self.unified) {
            (Some(path), _) => read_number(&path.join("cpuacct.usage")),
            // There without any controller.
            (None, Some(path)) => Ok(read_field(&path.join("cpu.stat"), "usage_usec")?.unwrap_or(0) * 1000),
            (None, None) => Ok(0),
        }
    }

    /// The version 2 directory, if it has this controller.
    fn unified_with(&self, controller: Controller) -> Option<&Path> {
        let limit = match controller {
            Controller::Memory => "memory.max",
            Controller::Cpu => "cpu.max",
            Controller::Pids => "pids.max",
            Controller::Blkio => "io.max",
            // No files in version 2.
            Controller::Cpuacct | Controller::Devices | Controller::Freezer => return None,
        };
        self.unified.as_deref().filter(|path| path.join(limit).exists())
    }

    fn directory_with(&self, controller: Controller) -> Option<&Path> {
        self.legacy_directory(controller).or_else(|| self.unified_with(controller))
    }

    fn legacy_directory(&self, controller: Controller) -> Option<&Path> {
        self.legacy
            .iter()
            .find(|directory| directory.controllers.contains(&controller))
            .map(|directory| directory.path.as_path())
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        let legacy = self.legacy.iter().map(|directory| directory.path.as_path());
        legacy.chain(self.unified.as_deref())
    }
}

impl LegacyDirectory {
    /// Hierarchies with several controllers are known under their names joined by commas.
    fn view(&self) -> Option<(String, &Path)> {
        let told = self.controllers.iter().any(|c| Controller::TOLD.contains(c));
        let names: Vec<&str> = self.controllers.iter().map(|c| c.name()).collect();
        told.then(|| (names.join(","), self.path.as_path()))
    }
}

impl Controller {
    /// Those from which programs learn their limits.
    const TOLD: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuacct, Self::Pids];

    const ALL: [Self; 7] =
        [Self::Memory, Self::Cpu, Self::Cpuacct, Self::Pids, Self::Devices, Self::Freezer, Self::Blkio];

    /// Its name in the options of a version 1 mount.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
        }
    }
}

fn write_file(path: &Path, value: &str) -> Result<(), CgroupError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| CgroupError::new("write", path, e))
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read_bounded(path, FILE_LIMIT_BYTES)?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn read_number(path: &Path) -> io::Result<u64> {
    let text = read_text(path)?;
    let number = text.trim().parse();
    number.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// The number behind `name` in a file of lines `name number`.
fn read_field(path: &Path, name: &str) -> io::Result<Option<u64>> {
    Ok(find_field(&read_text(path)?, name))
}

fn find_field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(find_field(events, "oom_kill"), Some(2));
        assert_eq!(find_field(events, "oom_k"), None);
    }
}
