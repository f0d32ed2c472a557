//! A blob on its way into the store: unnamed while it is written, named once it is verified and synced.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{ContentStore, StoreError, sync_dir};
use crate::Digest;
use crate::digest::Hasher;
use crate::store::Ingested;

/// A blob that is being written. Dropping it leaves nothing behind.
pub struct BlobWriter {
    store: ContentStore,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    pub(super) fn create(store: ContentStore) -> Result<Self, StoreError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&*store.blobs, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| StoreError::io("create an unnamed file in", &store.blobs)(errno.into()))?;
        Ok(Self { store, file: file.into(), hasher: Hasher::default(), size: 0 })
    }

    /// Appends to the blob.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("write a blob in", &self.store.blobs))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// The number of bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ends the blob without naming it yet.
    pub fn finish(self) -> Staged {
        Staged { store: self.store, file: self.file, digest: self.hasher.finish(), size: self.size }
    }
}

/// A complete blob that has no name yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    store: ContentStore,
    file: File,
    digest: Digest,
    size: u64,
}

impl Staged {
    /// The digest of what was written.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The number of bytes that were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The content, for reading at any offset.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes the content durable and gives it its name.
    pub fn commit(self) -> Result<Ingested, StoreError> {
        let path = self.store.path(&self.digest);
        let name = StoreError::io("store blob", &path);
        if self.store.contains(&self.digest) {
            return Ok(Ingested::AlreadyPresent);
        }
        self.file.sync_all().map_err(StoreError::io("sync blob", &path))?;
        match self.link(&path) {
            Ok(()) => {
                sync_dir(&self.store.blobs)?;
                Ok(Ingested::New)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Ingested::AlreadyPresent),
            Err(error) => Err(name(error)),
        }
    }

    fn link(&self, path: &std::path::Path) -> io::Result<()> {
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }
}
