//! The files of a container's directory: their names, their shapes, reading and writing them.
//!
//! ```text
//! ROOT/ID/container.json   what was asked for (Launch)
//! ROOT/ID/state.json       the processes (State)
//! ROOT/ID/exit.json        how it ended; absent while it runs
//! ROOT/ID/shim.log         last words of the shim
//! ROOT/ID/logs/            output, see `logs`
//! ROOT/ID/{upper,work}/    what the container writes
//! ROOT/ID/etc/             files of its /etc that were given
//! ROOT/ID/launch/          empty; the launching process mounts memory here and works in it
//! ```

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::exit::Exit;
use crate::files::{self, Durability};
use crate::process::ProcessId;
use crate::spec::ContainerSpec;

/// Most that is read of one of these files. Environment and mounts dominate: a process may be
/// given 2 MiB of arguments and environment at all.
const RECORD_LIMIT_BYTES: u64 = 8 << 20;

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A place in memory while the container is launched. Nothing of it is needed after.
    pub fn launch(&self) -> PathBuf {
        self.join("launch")
    }

    pub fn logs(&self) -> PathBuf {
        self.join("logs")
    }
}

/// Everything the shim must know, except open files.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    pub spec: ContainerSpec,
    /// The container has a network namespace of its own, which arrives as an open file.
    pub private_network: bool,
    pub cgroup: Cgroup,
    /// Who is to start it.
    pub shim: ProcessId,
}

/// The processes of a container that has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub shim: ProcessId,
    pub init: ProcessId,
}

#[derive(Serialize, Deserialize)]
struct ExitRecord {
    code: i32,
    signal: Option<i32>,
    oom: bool,
    finished_at: String,
}

impl Launch {
    const FILE: &str = "container.json";

    pub fn write(&self, directory: &Directory) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        files::replace(&directory.join(Self::FILE), &bytes, Durability::Process)
    }

    pub fn read(directory: &Directory) -> io::Result<Self> {
        let bytes = files::read_bounded(&directory.join(Self::FILE), RECORD_LIMIT_BYTES)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl State {
    const FILE: &str = "state.json";

    pub fn write(&self, directory: &Directory) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        files::replace(&directory.join(Self::FILE), &bytes, Durability::Process)
    }

    /// `None` where the container never came so far.
    pub fn read(directory: &Directory) -> io::Result<Option<Self>> {
        match files::read_bounded(&directory.join(Self::FILE), RECORD_LIMIT_BYTES) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Exit {
    const FILE: &str = "exit.json";

    pub(crate) fn write(&self, directory: &Directory) -> io::Result<()> {
        let record = ExitRecord {
            code: self.code,
            signal: self.signal,
            oom: self.oom,
            finished_at: self.finished_at.to_string(),
        };
        let bytes = serde_json::to_vec(&record)?;
        files::replace(&directory.join(Self::FILE), &bytes, Durability::Host)
    }

    /// `None` while the container runs, or where nobody saw its end.
    pub(crate) fn read(directory: &Directory) -> io::Result<Option<Self>> {
        let bytes = match files::read_bounded(&directory.join(Self::FILE), RECORD_LIMIT_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let record: ExitRecord = serde_json::from_slice(&bytes)?;
        let finished_at: Timestamp =
            record.finished_at.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(Self { code: record.code, signal: record.signal, oom: record.oom, finished_at }))
    }
}
