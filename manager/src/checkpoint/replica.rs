//! One copy of the checkpoint: a sled database, whose every commit is one atomic batch, a flush, and an `fdatasync`.
//!
//! sled's own flush does not sync (docs/adr/0002). Values are cut into pieces so that sled never moves one into a file
//! that it does not sync. Objects are sealed with the data key, under names that tell nothing. Each carries a checksum, and the checkpoint's record a digest over all of them: no
//! object can be missing, be an older one, or be one too many. What sled does to its file between two syncs is not
//! trusted to survive a power cut; that is why there are two copies (see `super`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use swarm_manager_core::door::{Checkpoint, CheckpointState, ObjectKey, StoredObject};

use super::CheckpointError;
use crate::keys::{DataKey, NAME_BYTES};
use crate::log::disk::{make_directory, sync_directory};

/// Of sled's file. Values above a quarter go to files that sled never syncs; leaves hold about 16 of ours.
pub const SEGMENT_BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 64 << 10;
const CACHE_BYTES: u64 = 8 << 20;
/// Pieces that sled takes in one go. Until it has them all it keeps the node of its tree, 5 KiB, that each of them replaced.
const BATCH_PIECES: usize = if cfg!(test) { 40 } else { 256 };
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// Key of the record that says what the objects are a state of. Objects' keys begin with `o`.
const META_KEY: &[u8] = b"m";
/// That record while a checkpoint of several batches is being written.
const UNFINISHED: &[u8] = b"unfinished";
/// `o`, and a name.
const PREFIX_BYTES: usize = 1 + NAME_BYTES;
/// Index, term, digest.
const META_BYTES: usize = 24;

/// A step of a commit that is done. For proofs.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Written,
    Flushed,
    Synced,
}

#[cfg(test)]
pub type Probe = std::sync::Arc<dyn Fn(&Path, Step) + Send + Sync>;

pub struct Replica {
    path: PathBuf,
    key: DataKey,
    database: sled::Db,
    /// Our own handle of sled's one file, for the sync that sled does not do.
    file: File,
    head: Option<Head>,
    /// Sum over all pieces that are stored.
    digest: u64,
    #[cfg(test)]
    pub probe: Option<Probe>,
}

/// What the objects are a state of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub index: u64,
    pub term: u64,
    pub conf_state: Bytes,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("path", &self.path).field("head", &self.head).finish_non_exhaustive()
    }
}

impl Replica {
    /// Opens the copy in `directory`, which is made if it does not exist, and checks it. Durable when this returns:
    /// sled tidies up when it opens.
    ///
    /// # Errors
    /// The disk refused, or what is stored does not match its checksums.
    pub fn open(directory: &Path, segment_bytes: usize, key: &DataKey) -> Result<Self, CheckpointError> {
        // sled panics on some of what it does not understand.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::try_open(directory, segment_bytes, key)));
        opened.unwrap_or_else(|_| {
            let what = "sled cannot read it (see the panic above)".to_owned();
            Err(CheckpointError::Damaged { path: directory.to_owned(), what })
        })
    }

    fn try_open(directory: &Path, segment_bytes: usize, key: &DataKey) -> Result<Self, CheckpointError> {
        let path = directory.to_owned();
        let io = |action| {
            let path = path.clone();
            move |source| CheckpointError::Io { action, path, source }
        };
        make_directory(directory).map_err(io("create"))?;
        let database = open(directory, segment_bytes).map_err(|source| CheckpointError::Sled {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let file = File::open(directory.join("db")).map_err(io("open"))?;
        let mut replica = Self {
            path: path.clone(),
            key: key.clone(),
            database,
            file,
            head: None,
            digest: 0,
            #[cfg(test)]
            probe: None,
        };
        replica.check()?;
        replica.file.sync_all().and_then(|()| sync_directory(directory)).map_err(io("sync"))?;
        Ok(replica)
    }

    /// Of the last checkpoint; `None`: there never was one.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Adds one checkpoint; durable when this returns.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut change = Change::new(self.digest);
        for key in &checkpoint.removed {
            self.remove(&mut change, &self.prefix(key))?;
        }
        for object in &checkpoint.changed {
            let prefix = self.prefix(&object.key);
            self.remove(&mut change, &prefix)?;
            change.insert(&self.key, &prefix, object);
        }
        let Checkpoint { index, term, conf_state, .. } = checkpoint;
        self.commit(change, Head { index: *index, term: *term, conf_state: conf_state.clone() })
    }

    /// Replaces everything; durable when this returns.
    pub fn replace(&mut self, state: &CheckpointState) -> Result<(), CheckpointError> {
        let mut change = Change::new(self.digest);
        self.remove(&mut change, b"")?;
        for object in &state.objects {
            self.relieve(&mut change)?;
            change.insert(&self.key, &self.prefix(&object.key), object);
        }
        let CheckpointState { index, term, conf_state, .. } = state;
        self.commit(change, Head { index: *index, term: *term, conf_state: conf_state.clone() })
    }

    fn remove(&self, change: &mut Change, prefix: &[u8]) -> Result<(), CheckpointError> {
        self.relieve(change)?;
        for piece in self.database.scan_prefix(prefix) {
            let (key, value) = piece.map_err(|source| self.sled("read", source))?;
            if *key != *META_KEY {
                change.remove(&key, &value);
                self.relieve(change)?;
            }
        }
        Ok(())
    }

    /// Hands to sled what is enough for a batch. From then on, until the commit, the copy is of no use.
    fn relieve(&self, change: &mut Change) -> Result<(), CheckpointError> {
        if change.pieces < BATCH_PIECES {
            return Ok(());
        }
        let mut batch = change.take();
        batch.insert(META_KEY, summed(UNFINISHED));
        self.database.apply_batch(batch).map_err(|source| self.sled("write", source))?;
        #[cfg(test)]
        self.tell(Step::Written);
        Ok(())
    }

    fn commit(&mut self, mut change: Change, head: Head) -> Result<(), CheckpointError> {
        let mut batch = change.take();
        batch.insert(META_KEY, head.encode(&self.key, change.digest));
        self.database.apply_batch(batch).map_err(|source| self.sled("write", source))?;
        #[cfg(test)]
        self.tell(Step::Written);
        self.database.flush().map_err(|source| self.sled("flush", source))?;
        #[cfg(test)]
        self.tell(Step::Flushed);
        let failed = |source| CheckpointError::Io { action: "sync", path: self.path.clone(), source };
        self.file.sync_data().map_err(failed)?;
        #[cfg(test)]
        self.tell(Step::Synced);
        match std::fs::read_dir(self.path.join("blobs")) {
            Ok(mut blobs) => {
                assert!(blobs.next().is_none(), "pieces are below the size at which sled makes blobs");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        self.digest = change.digest;
        self.head = Some(head);
        Ok(())
    }

    #[cfg(test)]
    fn tell(&self, step: Step) {
        if let Some(probe) = &self.probe {
            probe(&self.path, step);
        }
    }

    /// Reads everything once, without keeping it.
    fn check(&mut self) -> Result<(), CheckpointError> {
        let mut meta = None;
        for item in self.database.iter() {
            let (key, value) = item.map_err(|source| self.sled("read", source))?;
            if *key == *META_KEY {
                let sealed = checked(&value).ok_or_else(|| self.damaged("the checkpoint's record"))?;
                if sealed == UNFINISHED {
                    return Err(CheckpointError::Unfinished { path: self.path.clone() });
                }
                let other_key = || CheckpointError::OtherKey { path: self.path.clone() };
                meta = Some(Head::decode(&self.key, sealed).ok_or_else(other_key)?);
            } else {
                self.digest = self.digest.wrapping_add(piece_digest(&key, &value));
            }
        }
        match meta {
            Some((_, digest)) if digest != self.digest => {
                Err(self.damaged("its objects do not match the digest in the checkpoint's record"))
            }
            None if self.digest != 0 => Err(self.damaged("objects without a checkpoint's record")),
            Some((head, _)) => {
                self.head = Some(head);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The checkpoint with all its objects.
    pub fn read(&self) -> Result<Option<CheckpointState>, CheckpointError> {
        let Some(head) = self.head.clone() else { return Ok(None) };
        let mut pieces: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for item in self.database.scan_prefix(b"o") {
            let (key, value) = item.map_err(|source| self.sled("read", source))?;
            let prefix = key.get(..PREFIX_BYTES).filter(|_| key.len() == PREFIX_BYTES + 4);
            let prefix = prefix.ok_or_else(|| self.damaged("a key of an unknown form"))?;
            pieces.entry(prefix.to_vec()).or_default().extend_from_slice(&value);
        }
        let objects = pieces.into_iter().map(|(prefix, value)| {
            let value =
                checked(&value).ok_or_else(|| self.damaged("an object does not match its checksum"))?;
            let plain = self.key.open(&context(&prefix), value).and_then(split_object);
            plain.ok_or_else(|| self.damaged("an object was not written here with this manager's data key"))
        });
        let mut objects = objects.collect::<Result<Vec<_>, _>>()?;
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let Head { index, term, conf_state } = head;
        Ok(Some(CheckpointState { index, term, conf_state, objects }))
    }

    /// `o`, a name for the object's key; a piece's number comes behind.
    fn prefix(&self, key: &ObjectKey) -> Vec<u8> {
        [&b"o"[..], &self.key.name(&key.0)].concat()
    }

    fn sled(&self, action: &'static str, source: sled::Error) -> CheckpointError {
        CheckpointError::Sled { action, path: self.path.clone(), source }
    }

    fn damaged(&self, what: &str) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.clone(), what: what.to_owned() }
    }
}

/// A commit in the making.
struct Change {
    batch: sled::Batch,
    /// In `batch`.
    pieces: usize,
    /// Of the copy as the whole change leaves it.
    digest: u64,
}

impl Change {
    fn new(digest: u64) -> Self {
        Self { batch: sled::Batch::default(), pieces: 0, digest }
    }

    fn take(&mut self) -> sled::Batch {
        self.pieces = 0;
        std::mem::take(&mut self.batch)
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_sub(piece_digest(key, value));
        self.batch.remove(key);
        self.pieces += 1;
    }

    fn insert(&mut self, key: &DataKey, prefix: &[u8], object: &StoredObject) {
        let length = u16::try_from(object.key.0.len()).expect("object keys are ids and names");
        let plain = [&length.to_be_bytes()[..], &object.key.0, &object.value].concat();
        let value = summed(&key.seal(&context(prefix), &plain));
        for (number, piece) in (0u32..).zip(value.chunks(PIECE_BYTES)) {
            let key = [prefix, &number.to_be_bytes()].concat();
            self.digest = self.digest.wrapping_add(piece_digest(&key, piece));
            self.batch.insert(key, piece);
            self.pieces += 1;
        }
    }
}

impl Head {
    fn encode(&self, key: &DataKey, digest: u64) -> Vec<u8> {
        let numbers = [self.index, self.term, digest].map(u64::to_be_bytes).concat();
        summed(&key.seal(&context(META_KEY), &[&numbers[..], &self.conf_state].concat()))
    }

    /// Also the digest.
    fn decode(key: &DataKey, sealed: &[u8]) -> Option<(Self, u64)> {
        let plain = key.open(&context(META_KEY), sealed)?;
        let (numbers, conf_state) = plain.split_at_checked(META_BYTES)?;
        let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
        let conf_state = Bytes::copy_from_slice(conf_state);
        Some((Self { index: number(0), term: number(8), conf_state }, number(16)))
    }
}

/// sled lets go of its lock a moment after it was dropped, on a thread of its own.
fn open(directory: &Path, segment_bytes: usize) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(directory)
        .flush_every_ms(None)
        .segment_size(segment_bytes)
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

/// What a value is bound to: it opens under no other key of the database.
fn context(key: &[u8]) -> Vec<u8> {
    [&b"swarm state 1 "[..], key].concat()
}

/// An object's key and value; `None`: not of that form.
fn split_object(plain: Vec<u8>) -> Option<StoredObject> {
    let mut rest = Bytes::from(plain);
    let length = usize::from(rest.try_get_u16().ok()?);
    (length <= rest.len()).then(|| {
        let key = ObjectKey(rest.split_to(length));
        StoredObject { key, value: rest }
    })
}

/// Two checksums, over key and value in both orders. Never 0, so that no piece goes uncounted.
fn piece_digest(key: &[u8], value: &[u8]) -> u64 {
    let sum = |first: &[u8], second: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(first);
        hasher.update(second);
        u64::from(hasher.finalize())
    };
    (sum(key, value) << 32 | sum(value, key)).max(1)
}

/// The bytes behind their checksum.
fn summed(bytes: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(bytes).to_be_bytes()[..], bytes].concat()
}

fn checked(summed: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = summed.split_first_chunk::<4>()?;
    (crc32fast::hash(bytes) == u32::from_be_bytes(*sum)).then_some(bytes)
}
