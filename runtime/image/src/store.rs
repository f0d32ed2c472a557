//! The content-addressed blob store: a directory with one file per blob, named by its SHA-256.
//!
//! A blob exists under its name only when it is complete, verified and on disk: it is written to an unnamed file
//! (`O_TMPFILE`), synced, and then linked. So there is nothing to sweep after a crash, and two writers of one digest
//! cannot disturb each other. The file system must support `O_TMPFILE` (ext4, xfs, btrfs, tmpfs, zfs, overlayfs do).
//!
//! The store does not count references: whoever owns the images decides what to [`ContentStore::remove`].

use std::fs::{self, DirBuilder, File};
use std::io;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Descriptor, Digest};

mod ingest;
mod writer;

pub use ingest::{IngestError, Ingested};
pub use writer::{BlobWriter, Staged};

/// The largest blob that is accepted: 32 GiB, twice the largest layers that public machine-learning images have.
pub const MAX_BLOB_BYTES: u64 = 32 << 30;

/// Blobs under `<dir>/blobs/sha256/`. Clones share one store.
#[derive(Debug, Clone)]
pub struct ContentStore {
    blobs: Arc<Path>,
}

/// Why the store itself failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The blob is not in the store.
    #[error("blob {digest} is not in the image store")]
    NotFound {
        /// What was looked for.
        digest: Digest,
    },
    /// The blob on disk is not what its name says.
    #[error("blob {digest} in the image store is damaged: {problem}; remove it and fetch the image again")]
    Damaged {
        /// The name of the blob.
        digest: Digest,
        /// What differs.
        problem: String,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl ContentStore {
    /// Opens the store in `dir`, creating it, readable by its owner only, where it does not exist.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let blobs = dir.as_ref().join("blobs/sha256");
        create_private_dir(&blobs)?;
        Ok(Self { blobs: blobs.into() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Whether the blob is there. A store that cannot be read holds nothing.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_ok()
    }

    /// The size of a blob in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(source) => Err(not_found_or(digest, "look at", &path, source)),
        }
    }

    /// Opens a blob for reading, positioned at its start.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| not_found_or(digest, "open", &path, source))
    }

    /// Removes a blob. Readers that have it open keep reading. Removing what is not there is no error.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(StoreError::io("remove", &path)),
        }
    }

    /// All blobs with their sizes in bytes, in the order of their digests.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let read = |source| StoreError::io("list", &self.blobs)(source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            let Some(digest) = name.to_str().and_then(|hex| Digest::from_hex(hex).ok()) else { continue };
            match self.size(&digest) {
                Ok(size) => found.push((digest, size)),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Reads a whole blob that must be as long as its descriptor says and at most `limit` bytes, and checks it again:
    /// documents are small, and they decide what else is trusted.
    pub fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, StoreError> {
        let digest = descriptor.digest;
        let damaged = |problem: String| StoreError::Damaged { digest, problem };
        let size = self.size(&digest)?;
        if size != descriptor.size || size > limit {
            let expected = descriptor.size;
            return Err(damaged(format!("it has {size} bytes, {expected} expected, {limit} allowed")));
        }
        let mut bytes = Vec::new();
        let read = self.open_blob(&digest)?.take(size + 1).read_to_end(&mut bytes);
        read.map_err(StoreError::io("read", &self.path(&digest)))?;
        match Digest::of(&bytes) {
            actual if actual == digest => Ok(bytes),
            actual => Err(damaged(format!("its content is {actual}"))),
        }
    }

    /// Starts a blob whose digest is not known yet.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        BlobWriter::create(self.clone())
    }

    /// Stores `bytes` and describes them.
    pub fn write_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        let digest = Digest::of(bytes);
        if !self.contains(&digest) {
            let mut writer = self.writer()?;
            writer.write(bytes)?;
            writer.finish().commit()?;
        }
        Ok(Descriptor { media_type: media_type.into(), digest, size: bytes.len() as u64 })
    }
}

fn not_found_or(digest: &Digest, action: &'static str, path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { digest: *digest },
        _ => StoreError::io(action, path)(source),
    }
}

/// Creates a directory and its parents with mode 0700. Existing ones are left as they are.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("create directory", path))
}

/// Makes what was linked or renamed in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync directory", path))
}

#[cfg(test)]
mod tests;
