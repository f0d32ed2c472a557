//! Layers unpacked for overlayfs: each once, under the digest of its uncompressed content, shared by all images.
//!
//! A layer is unpacked into a staging directory, verified while it streams, synced, and renamed into place; so what
//! stands under `layers/sha256/` is complete, and what a crash left is swept when the store is opened. Root is needed:
//! owners, devices and `trusted.` attributes are set.
//!
//! It does not mount. It does not know which layers are in use either: see [`LayerStore::remove_unused`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;

use crate::manifest::Layer;
use crate::store::{create_private_dir, sync_dir};
use crate::{ContentStore, Digest, ImageManifest, StoreError, TarError};

mod path;
mod tree;
mod unpack;

use unpack::UnpackLimits;
pub use unpack::{MAX_ENTRIES, MAX_LAYER_BYTES};

/// Layers that are unpacked at the same time, by all callers together. Decompressing and hashing take some 4 ns a byte
/// of a core, and the containers that run on the node need their share.
const MAX_PARALLEL: usize = 2;

/// Unpacked layers below one directory. Clones share one store.
#[derive(Debug, Clone)]
pub struct LayerStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layers: PathBuf,
    staging: PathBuf,
    limits: UnpackLimits,
    state: Mutex<State>,
    changed: Condvar,
    /// Locked while the store is open: a second one would sweep away what this one is unpacking.
    _lock: File,
}

#[derive(Debug, Default)]
struct State {
    /// Layers that are being unpacked or removed.
    busy: BTreeSet<Digest>,
    unpacking: usize,
}

/// Why a layer was not unpacked. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The directory is open already.
    #[error("the layer store in {} is in use by another process", dir.display())]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The blob store or a directory of this one failed.
    #[error("the layer store failed")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The layer's content is not an acceptable archive.
    #[error("layer {layer} cannot be read")]
    Archive {
        /// The layer's blob.
        layer: Digest,
        /// Where and why.
        #[source]
        source: TarError,
    },
    /// The layer tries something that no layer may do.
    #[error("layer {layer} is refused: entry {entry:?} {problem}")]
    Refused {
        /// The layer's blob.
        layer: Digest,
        /// The entry's path as the archive has it.
        entry: String,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },
    /// The file system refused an entry.
    #[error("layer {layer}: cannot {action} {entry:?}")]
    Entry {
        /// The layer's blob.
        layer: Digest,
        /// What was tried, as a verb.
        action: &'static str,
        /// The entry's path as the archive has it.
        entry: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The content is not what the image's configuration states.
    #[error("layer {layer} contains {actual} where the image's configuration states {expected}")]
    WrongDigest {
        /// The layer's blob.
        layer: Digest,
        /// What the configuration states.
        expected: Digest,
        /// What was unpacked.
        actual: Digest,
    },
}

impl From<StoreError> for LayerError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl LayerStore {
    /// Opens the store in `dir`, creating it, readable by its owner only, where it does not exist.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LayerError> {
        Self::open_limited(dir.as_ref(), UnpackLimits::DEFAULT)
    }

    fn open_limited(dir: &Path, limits: UnpackLimits) -> Result<Self, LayerError> {
        let (layers, staging) = (dir.join("layers/sha256"), dir.join("staging"));
        create_private_dir(&layers)?;
        create_private_dir(&staging)?;
        let lock = File::open(&staging).map_err(StoreError::io("open", &staging))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| LayerError::InUse { dir: dir.to_owned() })?;
        sweep(&staging)?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Shared { layers, staging, limits, state, changed, _lock: lock };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The directories of an image's layers, bottom first, unpacking those that are missing. Blocks.
    ///
    /// Callers that want the same layer wait for one another. Overlayfs takes the directories as `lowerdir`s, in the
    /// opposite order. The layers must be among those that are kept when [`LayerStore::remove_unused`] is called.
    pub fn unpack(&self, image: &ImageManifest, store: &ContentStore) -> Result<Vec<PathBuf>, LayerError> {
        let missing: Vec<&Layer> =
            image.layers.iter().filter(|layer| !self.path(&layer.diff_id).exists()).collect();
        let next = Mutex::new(missing.iter());
        let failure = Mutex::new(None);
        // Not within the loop's condition: the lock would be held while the layer is unpacked.
        let take = || lock(&next).next();
        let work = || {
            while let Some(layer) = take() {
                if let Err(error) = self.ensure(layer, store) {
                    // The first failure is the one to report, and the rest need not be tried.
                    lock(&failure).get_or_insert(error);
                    lock(&next).by_ref().for_each(drop);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..missing.len().min(MAX_PARALLEL) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(image.layers.iter().map(|layer| self.path(&layer.diff_id)).collect()),
        }
    }

    /// Removes all layers whose `diff_id` is not in `keep`, and tells which. Blocks.
    ///
    /// The caller must keep the layers of every mounted root file system and of every image being prepared.
    pub fn remove_unused(&self, keep: &BTreeSet<Digest>) -> Result<Vec<Digest>, LayerError> {
        let layers = &self.shared.layers;
        let mut removed = Vec::new();
        for entry in fs::read_dir(layers).map_err(StoreError::io("list", layers))? {
            let name = entry.map_err(StoreError::io("list", layers))?.file_name();
            let Some(diff_id) = name.to_str().and_then(|hex| Digest::from_hex(hex).ok()) else { continue };
            if !keep.contains(&diff_id) && self.remove(&diff_id)? {
                removed.push(diff_id);
            }
        }
        removed.sort_unstable();
        Ok(removed)
    }

    fn path(&self, diff_id: &Digest) -> PathBuf {
        self.shared.layers.join(diff_id.hex())
    }

    fn ensure(&self, layer: &Layer, store: &ContentStore) -> Result<(), LayerError> {
        let _turn = self.turn_to_unpack(layer.diff_id);
        let path = self.path(&layer.diff_id);
        if path.exists() {
            return Ok(());
        }
        let staging = Staging::create(self.shared.staging.join(layer.diff_id.hex()))?;
        unpack::unpack(layer, store, &staging.path, self.shared.limits)?;
        let root = staging.path.join(unpack::ROOT);
        fs::rename(&root, &path).map_err(StoreError::io("rename into place", &path))?;
        sync_dir(&self.shared.layers)?;
        Ok(())
    }

    /// `false` when the layer is being used by another call.
    fn remove(&self, diff_id: &Digest) -> Result<bool, LayerError> {
        let Some(_turn) = self.turn_to_remove(*diff_id) else { return Ok(false) };
        let (path, staging) = (self.path(diff_id), self.shared.staging.join(diff_id.hex()));
        // Renamed first: a half-removed layer must never be taken for a whole one.
        fs::rename(&path, &staging).map_err(StoreError::io("rename", &path))?;
        remove_tree(&staging)?;
        Ok(true)
    }

    fn turn_to_unpack(&self, diff_id: Digest) -> Turn<'_> {
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        while state.busy.contains(&diff_id) || state.unpacking >= MAX_PARALLEL {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy.insert(diff_id);
        state.unpacking += 1;
        Turn { shared, diff_id, purpose: Purpose::Unpack }
    }

    fn turn_to_remove(&self, diff_id: Digest) -> Option<Turn<'_>> {
        let shared = &*self.shared;
        let free = lock(&shared.state).busy.insert(diff_id);
        free.then_some(Turn { shared, diff_id, purpose: Purpose::Remove })
    }
}

/// The right to work on one layer, given back when dropped.
struct Turn<'a> {
    shared: &'a Shared,
    diff_id: Digest,
    purpose: Purpose,
}

enum Purpose {
    Unpack,
    Remove,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.busy.remove(&self.diff_id);
        match self.purpose {
            Purpose::Unpack => state.unpacking -= 1,
            Purpose::Remove => {}
        }
        self.shared.changed.notify_all();
    }
}

/// A directory that is removed with all that is left in it when dropped.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn create(path: PathBuf) -> Result<Self, StoreError> {
        // Only there if an earlier removal failed.
        remove_tree(&path)?;
        create_private_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept when the store is opened, or before the layer is tried again.
        let _ = remove_tree(&self.path);
    }
}

fn sweep(staging: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(staging).map_err(StoreError::io("list", staging))? {
        remove_tree(&entry.map_err(StoreError::io("list", staging))?.path())?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::io("remove", path)),
    }
}

/// No invariant of ours spans a panic, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
