//! What the agent keeps on disk: one small file per task, and one about the node.
//!
//! ```text
//! DIR/node.json          highest epoch heard of, managers, place in the address plan
//! DIR/tasks/<id>.json    assignment, how it ended, and the boot of the machine in which that was written
//! ```
//!
//! Files are replaced by rename and never half written. They are not synced: after a power loss no container runs any
//! more, and a container without a record waits for a manager to say whether it is wanted.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use swarm_agent_core::{Change, NodeRecord, TaskRecord};
use swarm_model::TaskId;

/// Most that is read of one file: a spec is at most some 1 MiB on the wire.
const FILE_LIMIT_BYTES: u64 = 8 << 20;

/// Why the agent's state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged; move it away to start with an empty state", path = path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// The agent's directory of state.
#[derive(Debug)]
pub struct StateStore {
    directory: PathBuf,
    tasks: PathBuf,
    boot: String,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Stored {
    pub node: NodeRecord,
    pub tasks: Vec<TaskRecord>,
    /// Tasks written in an earlier boot of this machine.
    pub before_reboot: BTreeSet<TaskId>,
}

#[derive(Serialize, Deserialize)]
struct StoredTask {
    boot: String,
    record: TaskRecord,
}

impl StateStore {
    /// Opens the directory, making it, for its owner only, where it does not exist.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_path).map_err(failed("read", boot_path))?.trim().to_owned();
        Self::open_in_boot(directory, boot)
    }

    fn open_in_boot(directory: &Path, boot: String) -> Result<Self, StateError> {
        let tasks = directory.join("tasks");
        DirBuilder::new().recursive(true).mode(0o700).create(&tasks).map_err(failed("create", &tasks))?;
        Ok(Self { directory: directory.to_owned(), tasks, boot })
    }

    /// Reads everything. A damaged file about a task is set aside: its container, if there is one, then waits for a
    /// manager's word.
    pub fn load(&self) -> Result<Stored, StateError> {
        let mut stored = Stored { node: self.load_node()?, ..Stored::default() };
        for entry in fs::read_dir(&self.tasks).map_err(failed("list", &self.tasks))? {
            let path = entry.map_err(failed("list", &self.tasks))?.path();
            let is_record = path.extension().is_some_and(|extension| extension == "json");
            let Some(task) = is_record.then(|| task_of(&path)).flatten() else {
                // What a crash left of a write.
                let _ = fs::remove_file(&path);
                continue;
            };
            match read::<StoredTask>(&path) {
                Ok(Some(StoredTask { boot, record })) if record.assignment.task == task => {
                    if boot != self.boot {
                        stored.before_reboot.insert(task);
                    }
                    stored.tasks.push(record);
                }
                Ok(None) => {}
                Ok(Some(_)) => self.set_aside(&path, "it is about another task"),
                Err(error) => self.set_aside(&path, &error.to_string()),
            }
        }
        stored.tasks.sort_by_key(|record| record.assignment.task);
        Ok(stored)
    }

    fn load_node(&self) -> Result<NodeRecord, StateError> {
        Ok(read(&self.directory.join("node.json"))?.unwrap_or_default())
    }

    fn set_aside(&self, path: &Path, error: &str) {
        tracing::warn!(path = %path.display(), error, "a task's record is damaged and set aside");
        let _ = fs::rename(path, path.with_extension("damaged"));
    }

    /// Writes changes in their order; tries all of them and tells the first failure.
    pub fn write(&self, changes: Vec<Change>) -> Result<(), StateError> {
        changes.into_iter().map(|change| self.write_one(change)).fold(Ok(()), Result::and)
    }

    fn write_one(&self, change: Change) -> Result<(), StateError> {
        match change {
            Change::Node(node) => replace(&self.directory.join("node.json"), &node),
            Change::Task(record) => {
                let path = self.path(record.assignment.task);
                replace(&path, &StoredTask { boot: self.boot.clone(), record })
            }
            Change::Forget(task) => {
                let path = self.path(task);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other.map_err(failed("remove", &path)),
                }
            }
        }
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.tasks.join(format!("{task}.json"))
    }
}

fn task_of(path: &Path) -> Option<TaskId> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}

/// `None` where there is no such file.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file
            .and_then(|file| file.take(FILE_LIMIT_BYTES).read_to_end(&mut bytes))
            .map_err(failed("read", path))?,
    };
    let damaged = |source| StateError::Damaged { path: path.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn replace<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes =
        serde_json::to_vec(value).map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&fresh).and_then(|mut file| file.write_all(&bytes));
    written.map_err(failed("write", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("replace", path))
}

#[cfg(test)]
mod tests;
