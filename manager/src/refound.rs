//! A manager that becomes the only one of its cluster: a new node with a backup, or a survivor with its own disk.
//!
//! What it is to start from is made in the core (`swarm_manager_core::recovery`), and is put on disk here. A survivor's
//! disk is changed as by a snapshot that it received: first the checkpoint in both copies, then the log, so a power cut
//! leaves what was there before or what is there after, and both can be started from.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use swarm_manager_core::api::NewNode;
use swarm_manager_core::door::Recovered;
use swarm_manager_core::recovery::{Refounded, Salvage, SalvageError, Survivor};
use swarm_model::{NodeId, Timestamp};

use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::keys::DataKey;
use crate::log::{LogError, LogStore, SegmentLog};

/// Why a manager cannot become the only one.
#[derive(Debug, thiserror::Error)]
pub enum RefoundError {
    #[error("cannot use the manager's state in {path}", path = path.display())]
    Checkpoint {
        path: PathBuf,
        #[source]
        source: CheckpointError,
    },
    #[error("cannot use the manager's log in {path}", path = path.display())]
    Log {
        path: PathBuf,
        #[source]
        source: LogError,
    },
    #[error("the cluster cannot go on with this manager")]
    Salvage(#[from] SalvageError),
}

/// Makes the manager in `directory`, which must not be running, the only one of its cluster.
///
/// # Errors
/// Its disk refused or is damaged, or it is no manager in its own state. It can be started as before.
pub fn recover(directory: &Path, key: &DataKey, node: NodeId) -> Result<(), RefoundError> {
    let mut disk = Disk::open(directory, key)?;
    let recovered = std::mem::take(&mut disk.recovered);
    let refounded = Salvage::of_disk(&recovered)?.refound(&Survivor::Member(node), now())?;
    disk.write(&refounded)
}

/// Puts the state of a backup into an empty directory, with `node` as the only manager.
pub(crate) fn restore(
    directory: &Path,
    key: &DataKey,
    salvage: Salvage,
    node: NewNode,
) -> Result<(), RefoundError> {
    let refounded = salvage.refound(&Survivor::Newcomer(Box::new(node)), now())?;
    Disk::open(directory, key)?.write(&refounded)
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO + now
}

/// Log and checkpoints, with nobody at work on them.
struct Disk {
    log: SegmentLog,
    log_path: PathBuf,
    checkpoints: CheckpointStore,
    state_path: PathBuf,
    recovered: Recovered,
}

impl Disk {
    fn open(directory: &Path, key: &DataKey) -> Result<Self, RefoundError> {
        let (log_path, state_path) = (directory.join("log"), directory.join("state"));
        let (checkpoints, checkpoint) = CheckpointStore::open(&state_path, key)
            .map_err(|source| RefoundError::Checkpoint { path: state_path.clone(), source })?;
        let (log, held) = SegmentLog::open(&log_path, key)
            .map_err(|source| RefoundError::Log { path: log_path.clone(), source })?;
        let recovered = Recovered { checkpoint, hard_state: held.hard_state, entries: held.entries };
        Ok(Self { log, log_path, checkpoints, state_path, recovered })
    }

    fn write(mut self, refounded: &Refounded) -> Result<(), RefoundError> {
        self.checkpoints
            .replace(&refounded.state)
            .map_err(|source| RefoundError::Checkpoint { path: self.state_path.clone(), source })?;
        let log = &mut self.log;
        log.reset(refounded.state.index)
            .and_then(|()| log.append(Some(&refounded.hard_state), &[]))
            .and_then(|()| log.close())
            .map_err(|source| RefoundError::Log { path: self.log_path.clone(), source })
    }
}

#[cfg(test)]
mod tests;
