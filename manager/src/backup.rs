//! Backups: the whole state at one index, as a file that `swarm_proto::backup` frames and sums.
//!
//! Where managers are locked, the pieces are encrypted with the unlock key, each bound to the header, to its place and to
//! whether it is the last; else the file holds the key of the cluster's CA in the clear, and its keeper is told so.

use std::time::SystemTime;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use swarm_manager_core::api::Capture;
use swarm_manager_core::door::{ObjectKey, StoredObject};
use swarm_manager_core::recovery::{Salvage, SalvageError};
use swarm_model::NodeRole;
use swarm_proto::backup::{BackupError, PIECE_BYTES, Reader, Writer};
use swarm_proto::v1;

use crate::keys::UnlockKey;

/// Of a whole file: a million tasks at 1 KiB, and three times as much again. It is in memory once.
const MAX_BYTES: usize = 4 << 30;

/// Why nothing can be made of a file. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackupError {
    #[error("the file is no backup that can be restored")]
    File(#[from] BackupError),
    #[error("the backup is larger than {} GiB", MAX_BYTES >> 30)]
    TooLarge,
    #[error(
        "the backup is encrypted with unlock key {wanted}, {}; that key is needed, also where it was rotated since",
        given.as_ref().map_or_else(|| "and none was given".to_owned(), |given| format!("the one given is key {given}"))
    )]
    Key { wanted: String, given: Option<String> },
    #[error("the backup does not hold what it says")]
    Content,
    #[error("the state in the backup cannot be used")]
    State(#[from] SalvageError),
}

/// Makes a backup's bytes; `put` takes them in turn, and false ends it.
pub fn write(capture: &Capture, unlock: Option<&UnlockKey>, put: &mut dyn FnMut(Vec<u8>) -> bool) {
    let taken_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let header = v1::BackupHeader {
        state: Some(summary(capture)),
        taken_at: u64::try_from(taken_at.as_micros()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unlock_key_id: unlock.map(UnlockKey::id).unwrap_or_default(),
    };
    let (writer, begin) = Writer::begin(&header);
    let mut pieces = Pieces { writer, unlock, header: header.encode_to_vec(), number: 0 };
    if !put(begin) {
        return;
    }
    let mut waiting = BytesMut::new();
    for object in capture.objects() {
        for part in [&object.key.0, &object.value] {
            let length = u32::try_from(part.len()).expect("objects are bounded at admission");
            waiting.extend_from_slice(&length.to_be_bytes());
            waiting.extend_from_slice(part);
        }
        // One byte more, so that something is left for the last one.
        while waiting.len() > PIECE_BYTES {
            if !put(pieces.next(&waiting.split_to(PIECE_BYTES), false)) {
                return;
            }
        }
    }
    let _ = put(pieces.next(&waiting, true)) && put(pieces.writer.end());
}

struct Pieces<'a> {
    writer: Writer,
    unlock: Option<&'a UnlockKey>,
    header: Vec<u8>,
    number: u64,
}

impl Pieces<'_> {
    fn next(&mut self, plain: &[u8], last: bool) -> Vec<u8> {
        let piece = match self.unlock {
            Some(unlock) => unlock.seal(&context(&self.header, self.number, last), plain),
            None => plain.to_vec(),
        };
        self.number += 1;
        self.writer.piece(&piece)
    }
}

/// What an encrypted piece is bound to.
fn context(header: &[u8], number: u64, last: bool) -> Vec<u8> {
    [&b"swarm backup 1 "[..], &number.to_be_bytes(), &[u8::from(last)], header].concat()
}

/// What a state holds, for who has to decide about it.
pub fn summary(capture: &Capture) -> v1::StateSummary {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let managers = capture.nodes().filter(|node| node.spec.role == NodeRole::Manager);
    v1::StateSummary {
        cluster_id: capture.cluster().map(|cluster| cluster.id.to_string()).unwrap_or_default(),
        index: capture.index(),
        term: capture.term(),
        at: capture.at().as_micros(),
        nodes: count(capture.nodes().len()),
        services: count(capture.services()),
        tasks: count(capture.tasks()),
        images: count(capture.images().count()),
        managers: managers.map(|node| manager(node)).collect(),
    }
}

/// A manager, for messages.
pub fn manager(node: &swarm_model::Node) -> v1::ManagerSummary {
    v1::ManagerSummary {
        node_id: node.id.to_string(),
        hostname: node.engine.hostname.clone(),
        address: node.manager_address.clone().unwrap_or_default(),
    }
}

/// Takes a file in any cuts.
#[derive(Debug)]
pub struct BackupReader {
    unlock: Option<UnlockKey>,
    file: Reader,
    bytes: usize,
    number: u64,
    /// Whether it is the last one is known with the next.
    waiting: Option<Vec<u8>>,
    plain: BytesMut,
    objects: Vec<StoredObject>,
}

/// A backup that was read and found whole.
#[derive(Debug)]
pub struct Backup {
    pub state: v1::StateSummary,
    pub(crate) salvage: Salvage,
}

impl BackupReader {
    pub fn new(unlock: Option<UnlockKey>) -> Self {
        Self {
            unlock,
            file: Reader::default(),
            bytes: 0,
            number: 0,
            waiting: None,
            plain: BytesMut::new(),
            objects: Vec::new(),
        }
    }

    /// # Errors
    /// It is damaged, too large, or encrypted with another key.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ReadBackupError> {
        self.bytes += bytes.len();
        if self.bytes > MAX_BYTES {
            return Err(ReadBackupError::TooLarge);
        }
        for piece in self.file.push(bytes)? {
            if let Some(before) = self.waiting.replace(piece) {
                self.take(before, false)?;
            }
        }
        Ok(())
    }

    /// All of the file was handed over.
    ///
    /// # Errors
    /// It is not whole, or does not hold what it says.
    pub fn finish(mut self) -> Result<Backup, ReadBackupError> {
        if let Some(last) = self.waiting.take() {
            // The checksum comes first: a cut file is told from a wrong key.
            self.file.clone().finish()?;
            self.take(last, true)?;
        }
        let state = self.file.finish()?.state.ok_or(ReadBackupError::Content)?;
        if !self.plain.is_empty() {
            return Err(ReadBackupError::Content);
        }
        let salvage = Salvage::of_backup(state.index, state.term, &self.objects)?;
        if summary(&salvage.capture()) != state {
            return Err(ReadBackupError::Content);
        }
        Ok(Backup { state, salvage })
    }

    fn take(&mut self, piece: Vec<u8>, last: bool) -> Result<(), ReadBackupError> {
        let header = self.file.header().ok_or(ReadBackupError::Content)?;
        let plain = match (header.unlock_key_id.as_str(), &self.unlock) {
            ("", _) => piece,
            (wanted, given) => {
                let wrong = || ReadBackupError::Key {
                    wanted: wanted.to_owned(),
                    given: given.as_ref().map(UnlockKey::id),
                };
                let context = context(&header.encode_to_vec(), self.number, last);
                given.as_ref().and_then(|key| key.open(&context, &piece)).ok_or_else(wrong)?
            }
        };
        self.number += 1;
        self.plain.extend_from_slice(&plain);
        while let Some(object) = split_object(&mut self.plain) {
            self.objects.push(object);
        }
        Ok(())
    }
}

/// The first object, if all of it is there.
fn split_object(plain: &mut BytesMut) -> Option<StoredObject> {
    let length = |at: usize| {
        let bytes = plain.get(at..at.checked_add(4)?)?;
        bytes.try_into().ok().map(|bytes| u32::from_be_bytes(bytes) as usize)
    };
    let key = length(0)?;
    let value = length(4 + key)?;
    if plain.len() < 8 + key + value {
        return None;
    }
    plain.advance(4);
    let key = Bytes::copy_from_slice(&plain.split_to(key));
    plain.advance(4);
    let value = Bytes::copy_from_slice(&plain.split_to(value));
    Some(StoredObject { key: ObjectKey(key), value })
}
