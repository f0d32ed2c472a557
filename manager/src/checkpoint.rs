//! The applied state on disk: checkpoints of what changed, in sled.
//!
//! Off the path of acknowledgements: the log has everything until a checkpoint is durable. sled's own flush does not
//! sync (docs/adr/0002), so every checkpoint is one atomic batch, a flush, and an `fdatasync` of sled's file. Values
//! are cut into pieces so that sled never moves one into a file that it does not sync. Each object carries a checksum.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use swarm_manager_core::door::{Checkpoint, CheckpointState, ObjectKey, StoredObject};

/// Values above a quarter of a segment go to files that sled never syncs; leaves hold about 16 of ours.
const SEGMENT_BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 64 << 10;
const CACHE_BYTES: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// Key of the record that says what the objects are a state of. Objects' keys begin with `o`.
const META_KEY: &[u8] = b"m";
const META_BYTES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} the checkpoint store {path}")]
    Sled {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: sled::Error,
    },
    #[error("cannot {action} the checkpoint store {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the checkpoint store {path} is damaged: {what}. Restore this manager from a backup, or remove it from the \
         cluster and let it join again"
    )]
    Damaged { path: PathBuf, what: String },
}

#[derive(Debug)]
pub struct CheckpointStore {
    path: PathBuf,
    database: sled::Db,
    /// Our own handle of sled's one file, for the sync that sled does not do.
    file: File,
}

impl CheckpointStore {
    /// Opens the store in `directory`, which is made if it does not exist, and reads the last checkpoint.
    ///
    /// # Errors
    /// The disk refused, or what is stored does not match its checksums.
    pub fn open(directory: &Path) -> Result<(Self, Option<CheckpointState>), CheckpointError> {
        let path = directory.to_owned();
        let io = |action| {
            let path = path.clone();
            move |source| CheckpointError::Io { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io("create"))?;
        let database = open(directory).map_err(|source| CheckpointError::Sled {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let file = File::open(directory.join("db")).map_err(io("open"))?;
        let store = Self { path, database, file };
        let state = store.read()?;
        Ok((store, state))
    }

    /// Adds one checkpoint; durable when this returns.
    ///
    /// # Errors
    /// The disk refused. The checkpoint before it stands.
    pub fn write(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut batch = sled::Batch::default();
        for key in &checkpoint.removed {
            self.remove(&mut batch, key)?;
        }
        for object in &checkpoint.changed {
            self.remove(&mut batch, &object.key)?;
            insert(&mut batch, object);
        }
        batch.insert(META_KEY, meta(checkpoint.index, checkpoint.term, &checkpoint.conf_state));
        self.commit(batch)
    }

    /// Replaces everything, for a snapshot received from another manager; durable when this returns.
    ///
    /// # Errors
    /// As [`CheckpointStore::write`].
    pub fn replace(&self, state: &CheckpointState) -> Result<(), CheckpointError> {
        let mut batch = sled::Batch::default();
        for key in self.database.iter().keys() {
            batch.remove(key.map_err(|source| self.sled("read", source))?);
        }
        state.objects.iter().for_each(|object| insert(&mut batch, object));
        batch.insert(META_KEY, meta(state.index, state.term, &state.conf_state));
        self.commit(batch)
    }

    fn remove(&self, batch: &mut sled::Batch, key: &ObjectKey) -> Result<(), CheckpointError> {
        for piece in self.database.scan_prefix(prefix(key)).keys() {
            batch.remove(piece.map_err(|source| self.sled("read", source))?);
        }
        Ok(())
    }

    fn commit(&self, batch: sled::Batch) -> Result<(), CheckpointError> {
        self.database.apply_batch(batch).map_err(|source| self.sled("write", source))?;
        self.database.flush().map_err(|source| self.sled("flush", source))?;
        let failed = |source| CheckpointError::Io { action: "sync", path: self.path.clone(), source };
        self.file.sync_data().map_err(failed)?;
        let mut blobs = match std::fs::read_dir(self.path.join("blobs")) {
            Ok(blobs) => blobs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        assert!(blobs.next().is_none(), "pieces are below the size at which sled makes blobs");
        Ok(())
    }

    fn read(&self) -> Result<Option<CheckpointState>, CheckpointError> {
        let damaged =
            |what: &str| CheckpointError::Damaged { path: self.path.clone(), what: what.to_owned() };
        let mut meta = None;
        let mut pieces: BTreeMap<Bytes, Vec<u8>> = BTreeMap::new();
        for item in self.database.iter() {
            let (key, value) = item.map_err(|source| self.sled("read", source))?;
            if *key == *META_KEY {
                meta = Some(checked(&value).ok_or_else(|| damaged("the checkpoint's record"))?.to_vec());
                continue;
            }
            let object = parse_key(&key).ok_or_else(|| damaged("a key of an unknown form"))?;
            pieces.entry(object).or_default().extend_from_slice(&value);
        }
        let Some(meta) = meta else {
            return if pieces.is_empty() {
                Ok(None)
            } else {
                Err(damaged("objects without a checkpoint's record"))
            };
        };
        let (numbers, conf_state) =
            meta.split_at_checked(META_BYTES).ok_or_else(|| damaged("the checkpoint's record"))?;
        let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
        let objects = pieces.into_iter().map(|(key, value)| {
            let value = checked(&value).ok_or_else(|| damaged("an object does not match its checksum"))?;
            Ok(StoredObject { key: ObjectKey(key), value: Bytes::copy_from_slice(value) })
        });
        Ok(Some(CheckpointState {
            index: number(0),
            term: number(8),
            conf_state: Bytes::copy_from_slice(conf_state),
            objects: objects.collect::<Result<_, _>>()?,
        }))
    }

    fn sled(&self, action: &'static str, source: sled::Error) -> CheckpointError {
        CheckpointError::Sled { action, path: self.path.clone(), source }
    }
}

/// sled lets go of its lock a moment after it was dropped, on a thread of its own.
fn open(directory: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(directory)
        .flush_every_ms(None)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES);
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("acquire lock") && Instant::now() < end =>
            {
                std::thread::sleep(LOCK_RETRY);
            }
            opened => return opened,
        }
    }
}

/// `o`, the length of the key, the key; then the piece's number.
fn prefix(key: &ObjectKey) -> Vec<u8> {
    let length = u16::try_from(key.0.len()).expect("object keys are ids and names");
    [&b"o"[..], &length.to_be_bytes(), &key.0].concat()
}

fn parse_key(key: &[u8]) -> Option<Bytes> {
    let rest = key.strip_prefix(b"o")?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (rest.len() == length + 4).then(|| Bytes::copy_from_slice(&rest[..length]))
}

fn insert(batch: &mut sled::Batch, object: &StoredObject) {
    let prefix = prefix(&object.key);
    let value = sealed(&object.value);
    for (number, piece) in (0u32..).zip(value.chunks(PIECE_BYTES)) {
        batch.insert([&prefix[..], &number.to_be_bytes()].concat(), piece);
    }
}

fn meta(index: u64, term: u64, conf_state: &[u8]) -> Vec<u8> {
    sealed(&[&index.to_be_bytes()[..], &term.to_be_bytes(), conf_state].concat())
}

/// The bytes behind their checksum.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(bytes).to_be_bytes()[..], bytes].concat()
}

fn checked(sealed: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = sealed.split_first_chunk::<4>()?;
    (crc32fast::hash(bytes) == u32::from_be_bytes(*sum)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size: usize) -> StoredObject {
        let value = (0..size).map(|at| u8::try_from(at % 251).expect("a byte")).collect::<Vec<_>>();
        StoredObject { key: ObjectKey(Bytes::copy_from_slice(key.as_bytes())), value: value.into() }
    }

    fn checkpoint(index: u64, changed: Vec<StoredObject>, removed: &[&str]) -> Checkpoint {
        let removed = removed.iter().map(|key| ObjectKey(Bytes::copy_from_slice(key.as_bytes()))).collect();
        Checkpoint { index, term: 3, conf_state: Bytes::from_static(b"voters"), changed, removed }
    }

    #[test]
    fn checkpoints_add_up_across_restarts() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, state) = CheckpointStore::open(directory.path()).expect("opens");
        assert_eq!(state, None);
        store
            .write(&checkpoint(5, vec![object("a", 10), object("ab", 300_000), object("b", 0)], &[]))
            .expect("written");
        store.write(&checkpoint(9, vec![object("ab", 5), object("c", 70_000)], &["b"])).expect("written");
        drop(store);
        let (store, state) = CheckpointStore::open(directory.path()).expect("opens");
        let state = state.expect("a checkpoint");
        assert_eq!((state.index, state.term, &state.conf_state[..]), (9, 3, &b"voters"[..]));
        assert_eq!(state.objects, [object("a", 10), object("ab", 5), object("c", 70_000)]);
        let other =
            CheckpointState { index: 20, term: 4, conf_state: Bytes::new(), objects: vec![object("z", 1)] };
        store.replace(&other).expect("replaced");
        drop(store);
        assert_eq!(CheckpointStore::open(directory.path()).expect("opens").1, Some(other));
    }
}
