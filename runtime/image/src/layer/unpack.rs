//! One layer from its blob into a directory: decompressed, hashed and written in one pass.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::LayerError;
use super::path::{EntryPath, Meaning};
use super::tree::{self, Attributes, Failure, HasMode, Tree};
use crate::compression::{Inflate, InflateLimits};
use crate::digest::Hasher;
use crate::manifest::Layer;
use crate::store::StoreError;
use crate::tarball::{Entry, EntryKind, TarReader};
use crate::{ContentStore, Digest};

/// The largest layer that is unpacked, decompressed: twice the largest of public machine-learning images.
pub const MAX_LAYER_BYTES: u64 = 64 << 30;
/// Entries of one layer: ten times the files of a full desktop distribution's image.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// PATH_MAX would allow 2,047. Each level costs an open file when the tree is removed.
const MAX_DEPTH: usize = 256;
const COPY_BUFFER_BYTES: usize = 256 << 10;

/// The layer's own root within the staging directory.
pub(super) const ROOT: &str = "root";
const TRASH: &str = "trash";

/// What a layer may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnpackLimits {
    pub(super) inflate: InflateLimits,
    pub(super) max_entries: u64,
    pub(super) max_depth: usize,
}

impl UnpackLimits {
    pub(super) const DEFAULT: Self = Self {
        inflate: InflateLimits::up_to(MAX_LAYER_BYTES),
        max_entries: MAX_ENTRIES,
        max_depth: MAX_DEPTH,
    };
}

/// Unpacks `layer` into `<staging>/root`, verifies it and makes it durable.
pub(super) fn unpack(
    layer: &Layer,
    store: &ContentStore,
    staging: &Path,
    limits: UnpackLimits,
) -> Result<(), LayerError> {
    let digest = layer.blob.digest;
    let blob = store.open_blob(&digest)?;
    let archive = |source| LayerError::Archive { layer: digest, source };
    let unreadable = |source| archive(crate::TarError::Read { offset: 0, source });
    let inflated = Inflate::new(blob, layer.compression, limits.inflate).map_err(unreadable)?;
    let mut hashed = Hashed { source: inflated, hasher: Hasher::default() };

    let root = create_dir(&staging.join(ROOT), Mode::from_raw_mode(0o755))?;
    let trash = create_dir(&staging.join(TRASH), Mode::RWXU)?;
    let sync = root.try_clone().map_err(StoreError::io("open", staging))?;
    let mut unpacker = Unpacker {
        layer: digest,
        tar: TarReader::new(&mut hashed),
        tree: Tree::new(root, trash, limits.max_depth),
        limits,
        buffer: vec![0; COPY_BUFFER_BYTES],
    };
    unpacker.run()?;
    unpacker.tar.drain().map_err(archive)?;

    let actual = hashed.hasher.finish();
    if actual != layer.diff_id {
        return Err(LayerError::WrongDigest { layer: digest, expected: layer.diff_id, actual });
    }
    // One call for the whole file system is cheaper than one per file, from a handful of files on.
    rustix::fs::syncfs(&sync).map_err(|errno| StoreError::io("sync", staging)(errno.into()))?;
    Ok(())
}

fn create_dir(path: &Path, mode: Mode) -> Result<OwnedFd, StoreError> {
    let failed = |errno: rustix::io::Errno| StoreError::io("create directory", path)(errno.into());
    rustix::fs::mkdir(path, mode).map_err(failed)?;
    rustix::fs::chmod(path, mode).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed)
}

struct Unpacker<R> {
    layer: Digest,
    tar: TarReader<R>,
    tree: Tree,
    limits: UnpackLimits,
    buffer: Vec<u8>,
}

impl<R: Read> Unpacker<R> {
    fn run(&mut self) -> Result<(), LayerError> {
        let mut entries = 0;
        while let Some(entry) = self.next()? {
            entries += 1;
            if entries > self.limits.max_entries {
                let most = self.limits.max_entries;
                let problem = format!("is one more than the {most} entries that a layer may have");
                return Err(self.failure(&entry, Failure::Refused(problem)));
            }
            self.apply(&entry)?;
        }
        self.tree.leave().map_err(|failure| self.failure_at(b"/", failure))
    }

    fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        self.tar.next().map_err(|source| LayerError::Archive { layer: self.layer, source })
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let place = match self.place(entry) {
            Ok(place) => place,
            Err(failure) => return Err(self.failure(entry, failure)),
        };
        match place {
            Place::Done => Ok(()),
            Place::File(file) => {
                let mut file = File::from(file);
                self.copy(entry, &mut file)?;
                self.finish(entry, &file.into())
            }
            Place::Directory(dir) => self.finish(entry, &dir),
        }
    }

    /// Creates the entry, all but its content and what must be set after the content.
    fn place(&mut self, entry: &Entry) -> Result<Place, Failure> {
        let path = EntryPath::parse(&entry.path, self.limits.max_depth).map_err(Failure::Refused)?;
        if path.is_bookkeeping() {
            return Ok(Place::Done);
        }
        if path.is_below_whiteout() {
            return Err(Failure::Refused("is below a whiteout".into()));
        }
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                EntryKind::Directory => self.tree.root().map(Place::Directory),
                _ => Err(Failure::Refused("would replace the root directory".into())),
            };
        };
        self.tree.enter(&parent)?;
        match Meaning::of(name).map_err(Failure::Refused)? {
            Meaning::Ordinary => self.create(entry, name),
            Meaning::Opaque => self.tree.opaque().map(|()| Place::Done),
            Meaning::Whiteout(hidden) => self.tree.whiteout(hidden).map(|()| Place::Done),
        }
    }

    fn create(&mut self, entry: &Entry, name: &[u8]) -> Result<Place, Failure> {
        let tree = &mut self.tree;
        match &entry.kind {
            EntryKind::Directory => return tree.directory(name).map(Place::Directory),
            EntryKind::File { .. } => return tree.file(name).map(Place::File),
            EntryKind::Symlink { target } => {
                tree.symlink(name, target)?;
                tree.set_attributes(name, attributes(entry), HasMode::No)?;
            }
            EntryKind::Hardlink { target } => {
                let target = EntryPath::parse(target, self.limits.max_depth)
                    .map_err(|problem| Failure::Refused(format!("is a hard link whose target {problem}")))?;
                let (parent, target) = target
                    .split()
                    .ok_or_else(|| Failure::Refused("is a hard link to the root directory".into()))?;
                // Owner, permissions and time are those of the file that it is a second name of.
                tree.hardlink(name, &parent, target)?;
            }
            EntryKind::CharDevice { major, minor } => {
                tree.node(name, FileType::CharacterDevice, (*major, *minor))?;
                tree.set_attributes(name, attributes(entry), HasMode::Yes)?;
            }
            EntryKind::BlockDevice { major, minor } => {
                tree.node(name, FileType::BlockDevice, (*major, *minor))?;
                tree.set_attributes(name, attributes(entry), HasMode::Yes)?;
            }
            EntryKind::Fifo => {
                tree.node(name, FileType::Fifo, (0, 0))?;
                tree.set_attributes(name, attributes(entry), HasMode::Yes)?;
            }
        }
        Ok(Place::Done)
    }

    fn copy(&mut self, entry: &Entry, file: &mut File) -> Result<(), LayerError> {
        loop {
            let read = self.tar.read_content(&mut self.buffer);
            let read = read.map_err(|source| LayerError::Archive { layer: self.layer, source })?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(&self.buffer[..read])
                .map_err(|error| self.failure(entry, Failure::Failed("write", error)))?;
        }
    }

    fn finish(&self, entry: &Entry, file: &OwnedFd) -> Result<(), LayerError> {
        tree::set_attributes(file, attributes(entry), &entry.xattrs)
            .map_err(|failure| self.failure(entry, failure))
    }

    fn failure(&self, entry: &Entry, failure: Failure) -> LayerError {
        self.failure_at(&entry.path, failure)
    }

    fn failure_at(&self, path: &[u8], failure: Failure) -> LayerError {
        let entry = crate::digest::printable(&String::from_utf8_lossy(path));
        match failure {
            Failure::Refused(problem) => LayerError::Refused { layer: self.layer, entry, problem },
            Failure::Failed(action, source) => LayerError::Entry { layer: self.layer, action, entry, source },
        }
    }
}

/// Where the rest of an entry goes.
enum Place {
    Done,
    File(OwnedFd),
    Directory(OwnedFd),
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes { uid: entry.uid, gid: entry.gid, mode: entry.mode, mtime: entry.mtime }
}

struct Hashed<R> {
    source: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
