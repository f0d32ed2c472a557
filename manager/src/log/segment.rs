//! The log in segments: preallocated files that are overwritten, one `fdatasync` per group commit.
//!
//! At open every segment is read and checked. A torn tail of the last one is cut; anything else that is not whole stops
//! the manager.

use std::path::Path;

use bytes::Bytes;
use swarm_manager_core::door::LogEntry;

use super::disk::{Directory, Disk, DiskFile};
use super::frame::{self, Found, Record, SEGMENT_HEADER, SegmentHeader};
use super::{LogError, LogStore, Recovered};
use crate::keys::DataKey;

/// Size of a segment; a larger frame gets a segment of its own size.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Largest append. The core bounds its batches far below.
const MAX_FRAME_BYTES: u64 = 256 << 20;
const TEMPORARY: &str = "next.tmp";

/// A [`LogStore`] in a directory.
#[derive(Debug)]
pub struct SegmentLog<D: Disk = Directory> {
    disk: D,
    key: DataKey,
    segment_bytes: u64,
    /// Older segments, oldest first: number and highest index in them.
    sealed: Vec<(u64, u64)>,
    current: Current<D::File>,
    hard_state: Option<Bytes>,
    poisoned: bool,
}

#[derive(Debug)]
struct Current<F> {
    number: u64,
    file: F,
    size: u64,
    end: u64,
    durable: u64,
    /// Up to here nothing needs to be vouched for.
    vouched: u64,
    last_index: u64,
}

impl SegmentLog {
    /// Opens the log in `directory`, which is made if it does not exist, and is encrypted with `key`.
    ///
    /// # Errors
    /// The disk refused, or the log is damaged; in both cases nothing was changed that mattered.
    pub fn open(directory: &Path, key: &DataKey) -> Result<(Self, Recovered), LogError> {
        Self::open_on(open_directory(directory)?, SEGMENT_BYTES, key)
    }

    /// Whether anything was ever written there.
    ///
    /// # Errors
    /// The disk refused.
    pub fn exists(directory: &Path) -> Result<bool, LogError> {
        Ok(!segments(&open_directory(directory)?)?.is_empty())
    }
}

impl<D: Disk> SegmentLog<D> {
    pub(crate) fn open_on(disk: D, segment_bytes: u64, key: &DataKey) -> Result<(Self, Recovered), LogError> {
        let numbers = segments(&disk)?;
        let mut replay = Replay::default();
        let mut sealed = Vec::new();
        let mut current: Option<Current<D::File>> = None;
        for &number in &numbers {
            if let Some(before) = current.take() {
                sealed.push((before.number, before.last_index));
                let before = (before.number, before.end);
                current = Some(load(&disk, key, number, Some(before), &mut replay)?);
            } else {
                current = Some(load(&disk, key, number, None, &mut replay)?);
            }
        }
        let hard_state = replay.hard_state.clone();
        let current = match current {
            Some(current) => current,
            None => make(&disk, 1, 0, segment_bytes)?,
        };
        let key = key.clone();
        let mut log = Self { disk, key, segment_bytes, sealed, current, hard_state, poisoned: false };
        log.settle()?;
        log.wipe_tail()?;
        log.vouch()?;
        Ok((log, Recovered { hard_state: replay.hard_state, entries: replay.entries }))
    }

    /// What was read may not be durable: a process that was killed had written and not yet synced it.
    fn settle(&mut self) -> Result<(), LogError> {
        let current = &mut self.current;
        current.file.sync().map_err(|source| io(&self.disk, "sync", &name(current.number), source))?;
        self.disk.sync_directory().map_err(|source| io(&self.disk, "sync", "", source))
    }

    /// Overwrites what is left of torn frames, so that no later crash can make it look like one of ours. The first
    /// one's header loses its mark before all else: a power cut in the middle must not make it look rotten.
    fn wipe_tail(&mut self) -> Result<(), LogError> {
        let current = &mut self.current;
        let name = name(current.number);
        let bytes = current.file.read_all().map_err(|source| io(&self.disk, "read", &name, source))?;
        let tail = bytes.get(usize::try_from(current.end).unwrap_or(usize::MAX)..).unwrap_or_default();
        let Some(dirty) = tail.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
        let mark = frame::header_mark(current.end);
        let mut wipe = || {
            if mark < bytes.len() as u64 {
                current.file.write_at(&[0], mark)?;
                current.file.sync()?;
            }
            current.file.write_at(&vec![0; dirty + 1], current.end)?;
            current.file.sync()
        };
        wipe().map_err(|source| io(&self.disk, "repair", &name, source))
    }

    /// An empty frame behind the last one, which says that all before it is durable. Where it crosses into another
    /// sector, a second one does not: with one lost sector, either what they vouch for is whole or one of them is.
    fn vouch(&mut self) -> Result<(), LogError> {
        let current = &self.current;
        let begin = current.end;
        if current.durable <= current.vouched || begin + 2 * frame::room(0) > current.size {
            return Ok(());
        }
        self.try_write(&[])?;
        let sector = |at: u64| at / frame::SECTOR as u64;
        if sector(begin) != sector(self.current.end - 1) {
            self.try_write(&[])?;
        }
        self.try_sync()?;
        self.current.vouched = self.current.end;
        Ok(())
    }

    fn write(&mut self, records: &[Record]) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let written = self.try_write(records);
        self.poisoned = written.is_err();
        written
    }

    fn try_write(&mut self, records: &[Record]) -> Result<(), LogError> {
        let payload: u64 = records.iter().map(frame::record_bytes).sum();
        if payload > MAX_FRAME_BYTES {
            return Err(LogError::TooLarge { bytes: payload, limit: MAX_FRAME_BYTES });
        }
        if self.current.end + frame::room(payload) > self.current.size {
            self.roll(payload)?;
        }
        let current = &mut self.current;
        let bytes = frame::encode(&self.key, current.number, current.end, current.durable, records);
        current
            .file
            .write_at(&bytes, current.end)
            .map_err(|source| io(&self.disk, "write", &name(current.number), source))?;
        current.end += bytes.len() as u64;
        for record in records {
            match record {
                Record::Entry(entry) => current.last_index = current.last_index.max(entry.index),
                Record::HardState(state) => self.hard_state = Some(state.clone()),
                Record::Reset(_) => {}
            }
        }
        Ok(())
    }

    /// Begins a segment, with the hard state in front so that older ones can go.
    fn roll(&mut self, payload: u64) -> Result<(), LogError> {
        // The next segment's header vouches for the end of this one, so this one must be durable first.
        self.try_sync()?;
        let state = self.hard_state.clone();
        let state_bytes = state.clone().map_or(0, |state| frame::record_bytes(&Record::HardState(state)));
        let room = SEGMENT_HEADER + frame::room(payload) + frame::room(state_bytes);
        let next = make(&self.disk, self.current.number + 1, self.current.end, self.segment_bytes.max(room))?;
        let old = std::mem::replace(&mut self.current, next);
        self.sealed.push((old.number, old.last_index));
        match state {
            Some(state) => self.try_write(&[Record::HardState(state)]),
            None => Ok(()),
        }
    }

    fn try_sync(&mut self) -> Result<(), LogError> {
        let current = &mut self.current;
        if current.durable < current.end {
            current.file.sync().map_err(|source| io(&self.disk, "sync", &name(current.number), source))?;
            current.durable = current.end;
        }
        Ok(())
    }
}

impl<D: Disk> LogStore for SegmentLog<D> {
    fn append(&mut self, hard_state: Option<&Bytes>, entries: &[LogEntry]) -> Result<(), LogError> {
        let entries = entries.iter().cloned().map(Record::Entry);
        let records: Vec<Record> = entries.chain(hard_state.cloned().map(Record::HardState)).collect();
        if records.is_empty() { Ok(()) } else { self.write(&records) }
    }

    fn reset(&mut self, index: u64) -> Result<(), LogError> {
        self.write(&[Record::Reset(index)])
    }

    fn sync(&mut self) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        let synced = self.try_sync();
        self.poisoned = synced.is_err();
        synced
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let vouched = self.vouch();
        self.poisoned = vouched.is_err();
        vouched
    }

    /// Deletes whole segments, oldest first; never the current one.
    fn truncate(&mut self, up_to: u64) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        // A hard state that only an older segment has durably would go with it.
        self.sync()?;
        let count = self.sealed.iter().take_while(|(_, last_index)| *last_index <= up_to).count();
        for (number, _) in self.sealed.drain(..count) {
            let name = name(number);
            self.disk.remove(&name).map_err(|source| io(&self.disk, "remove", &name, source))?;
            // One by one: a crash must never leave a gap in the middle.
            self.disk.sync_directory().map_err(|source| io(&self.disk, "sync", "", source))?;
        }
        Ok(())
    }
}

fn open_directory(path: &Path) -> Result<Directory, LogError> {
    Directory::open(path).map_err(|source| LogError::Io { action: "open", path: path.to_owned(), source })
}

/// Reads and checks one segment; `before` is number and end of the one before it.
fn load<D: Disk>(
    disk: &D,
    key: &DataKey,
    number: u64,
    before: Option<(u64, u64)>,
    replay: &mut Replay,
) -> Result<Current<D::File>, LogError> {
    let name = name(number);
    let file = disk.open(&name).map_err(|source| io(disk, "open", &name, source))?;
    let bytes = Bytes::from(file.read_all().map_err(|source| io(disk, "read", &name, source))?);
    let damaged = |offset, what: String| LogError::Damaged { path: disk.path(&name), offset, what };
    let Some(header) = SegmentHeader::decode(&bytes).filter(|header| header.number == number) else {
        if SegmentHeader::is_of_old_version(&bytes) {
            return Err(LogError::OldFormat { path: disk.path(&name) });
        }
        return Err(damaged(0, "the segment's header is not valid".to_owned()));
    };
    if header.size != bytes.len() as u64 {
        let what = format!("the file has {} bytes, and was made with {}", bytes.len(), header.size);
        return Err(damaged(bytes.len() as u64, what));
    }
    if let Some((before, end)) = before
        && (before + 1 != number || end != header.previous_end)
    {
        return Err(damaged(0, format!("segment {} does not end where this one begins", number - 1)));
    }
    let mut end = SEGMENT_HEADER;
    let mut vouched = end;
    let mut last_index = 0;
    loop {
        let after = || format!("the record after {}", replay.position());
        match frame::decode(number, &bytes, end) {
            Found::Frame(found) => {
                let records = found.records(key, number, end).ok_or_else(|| {
                    damaged(end, format!("{} was not written here with this manager's data key", after()))
                })?;
                if records.is_empty() {
                    vouched = found.end;
                }
                for record in records {
                    last_index = replay.apply(record).map_err(|what| damaged(end, what))?.max(last_index);
                }
                end = found.end;
            }
            Found::Unfinished if frame::was_durable(number, &bytes, end) => {
                return Err(damaged(end, format!("{} was durable, and is lost", after())));
            }
            Found::Unfinished => break,
            Found::Rotten => {
                return Err(damaged(end, format!("{} does not match its checksum", after())));
            }
        }
    }
    Ok(Current { number, file, size: header.size, end, durable: end, vouched, last_index })
}

/// Entries and hard state as the records make them, in order.
#[derive(Debug, Default)]
struct Replay {
    hard_state: Option<Bytes>,
    entries: Vec<LogEntry>,
}

impl Replay {
    /// The entry's index, 0 for other records.
    fn apply(&mut self, record: Record) -> Result<u64, String> {
        match record {
            Record::HardState(state) => self.hard_state = Some(state),
            Record::Reset(_) => self.entries.clear(),
            Record::Entry(entry) => {
                let index = entry.index;
                if let Some(first) = self.entries.first().map(|entry| entry.index) {
                    let keep = index.checked_sub(first).and_then(|keep| usize::try_from(keep).ok());
                    match keep {
                        Some(keep) if keep <= self.entries.len() => self.entries.truncate(keep),
                        Some(_) => return Err(format!("entry {index} follows a gap")),
                        None => self.entries.clear(),
                    }
                }
                self.entries.push(entry);
                return Ok(index);
            }
        }
        Ok(0)
    }

    /// For messages.
    fn position(&self) -> String {
        match self.entries.last() {
            Some(entry) => format!("entry {} of term {}", entry.index, entry.term),
            None => "the beginning".to_owned(),
        }
    }
}

fn segments<D: Disk>(disk: &D) -> Result<Vec<u64>, LogError> {
    let names = disk.list().map_err(|source| io(disk, "list", "", source))?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".log"))
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.sort_unstable();
    if names.iter().any(|name| name == TEMPORARY) {
        disk.remove(TEMPORARY).map_err(|source| io(disk, "remove", TEMPORARY, source))?;
    }
    Ok(numbers)
}

/// Makes a segment durably: under another name first, so that a segment that exists has its header.
fn make<D: Disk>(disk: &D, number: u64, previous_end: u64, size: u64) -> Result<Current<D::File>, LogError> {
    let name = name(number);
    let made = || {
        let mut file = disk.create(TEMPORARY, size)?;
        file.write_at(&SegmentHeader { number, previous_end, size }.encode(), 0)?;
        file.sync()?;
        disk.rename(TEMPORARY, &name)?;
        disk.sync_directory()?;
        Ok(file)
    };
    let file = made().map_err(|source| io(disk, "create", &name, source))?;
    let end = SEGMENT_HEADER;
    Ok(Current { number, file, size, end, durable: end, vouched: end, last_index: 0 })
}

fn name(number: u64) -> String {
    format!("{number:020}.log")
}

fn io<D: Disk>(disk: &D, action: &'static str, name: &str, source: std::io::Error) -> LogError {
    LogError::Io { action, path: disk.path(name), source }
}
