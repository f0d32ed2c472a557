//! The applied state on disk: checkpoints of what changed, in sled, twice.
//!
//! Off the path of acknowledgements: the log has everything until a checkpoint is durable in both copies. They are never
//! written at the same time, so whatever a power cut makes of the one that was being written, the other one is as its
//! last sync left it, and the log goes on from there. A copy that cannot be read, of a power cut or of rot, is made anew
//! from the other.

mod error;
mod replica;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use swarm_manager_core::door::{Checkpoint, CheckpointState};
use tracing::{info, warn};

pub use error::CheckpointError;
use replica::{Replica, SEGMENT_BYTES};

use crate::keys::DataKey;
use crate::log::disk::{make_directory, sync_directory};
use crate::text::chain;

/// Directories of the copies, in the order in which they are opened and written.
const COPIES: [&str; 2] = ["first", "second"];
const TEMPORARY: &str = "copy.tmp";

#[derive(Debug)]
pub struct CheckpointStore {
    first: Replica,
    second: Replica,
}

impl CheckpointStore {
    /// Opens the store in `directory`, which is made if it does not exist and is encrypted with `key`, and reads the last
    /// checkpoint.
    ///
    /// # Errors
    /// The disk refused, or neither copy matches its checksums.
    pub fn open(directory: &Path, key: &DataKey) -> Result<(Self, Option<CheckpointState>), CheckpointError> {
        Self::open_with(directory, SEGMENT_BYTES, key)
    }

    fn open_with(
        directory: &Path,
        segment_bytes: usize,
        key: &DataKey,
    ) -> Result<(Self, Option<CheckpointState>), CheckpointError> {
        let io = |action| {
            let path = directory.to_owned();
            move |source| CheckpointError::Io { action, path, source }
        };
        make_directory(directory).map_err(io("create"))?;
        let [first_path, second_path] = COPIES.map(|name| directory.join(name));
        let copy = |from: &Path, to: &Path| {
            copy_directory(from, &directory.join(TEMPORARY), to).map_err(io("repair"))
        };
        let open = |path: &Path| Replica::open(path, segment_bytes, key);
        // While the first one is opened, and written by that, the second one is left alone; and the other way round.
        let first = match open(&first_path) {
            Ok(first) => first,
            // The other one is, too.
            Err(error @ CheckpointError::OtherKey { .. }) => return Err(error),
            Err(error) => {
                tell_of_repair(&error);
                copy(&second_path, &first_path)?;
                open(&first_path).map_err(|second| CheckpointError::BothDamaged {
                    path: directory.to_owned(),
                    second: chain(&second),
                    first: Box::new(error),
                })?
            }
        };
        let index = |replica: &Replica| replica.head().map(|head| head.index);
        let newest = index(&first);
        let (first, second) = match open(&second_path) {
            Ok(second) if index(&second) == newest => (first, second),
            // Neither is open while it is copied.
            Ok(second) if index(&second) > newest => {
                drop((first, second));
                copy(&second_path, &first_path)?;
                (open(&first_path)?, open(&second_path)?)
            }
            behind => {
                if let Err(error) = &behind {
                    tell_of_repair(error);
                }
                drop((first, behind));
                copy(&first_path, &second_path)?;
                (open(&first_path)?, open(&second_path)?)
            }
        };
        let state = first.read()?;
        Ok((Self { first, second }, state))
    }

    /// Adds one checkpoint; durable when this returns.
    ///
    /// # Errors
    /// The disk refused. The checkpoint before it stands.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.first.write(checkpoint)?;
        self.second.write(checkpoint)
    }

    /// Replaces everything, for a snapshot received from another manager; durable when this returns.
    ///
    /// # Errors
    /// As [`CheckpointStore::write`].
    pub fn replace(&mut self, state: &CheckpointState) -> Result<(), CheckpointError> {
        self.first.replace(state)?;
        self.second.replace(state)
    }
}

fn tell_of_repair(error: &CheckpointError) {
    match error {
        CheckpointError::Unfinished { .. } => {
            info!("{error}; it is made anew from the other copy");
        }
        error => warn!(
            error = chain(error),
            "a copy of the manager's checkpoint cannot be read; it is made anew from the other"
        ),
    }
}

/// Puts a durable copy of a directory in the place of another one.
fn copy_directory(from: &Path, temporary: &Path, to: &Path) -> io::Result<()> {
    remove_directory(temporary)?;
    copy_files(from, temporary)?;
    remove_directory(to)?;
    fs::rename(temporary, to)?;
    to.parent().map_or(Ok(()), sync_directory)
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    make_directory(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    sync_directory(to)
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
