//! The log against a disk whose power is cut: what was not synced survives in any mixture of its sectors.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, DiskFile};
use super::*;

const SECTOR: usize = 512;
const SEGMENT: u64 = 4096;

/// One file: what reads see, and what a power cut leaves for certain.
#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Platter {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Default)]
struct FaultyDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct FaultyFile(Arc<Mutex<Platter>>, usize);

impl FaultyDisk {
    /// The power goes and comes back: unsynced sectors are kept or lost at random, directory changes all or none.
    fn cut(&self, random: &mut StdRng) -> Self {
        let mut platter = self.0.lock().expect("not poisoned").clone();
        for content in &mut platter.files {
            let mut left = content.durable.clone();
            left.resize(content.now.len(), 0);
            for (left, now) in left.chunks_mut(SECTOR).zip(content.now.chunks(SECTOR)) {
                if random.random_bool(0.5) {
                    left.copy_from_slice(now);
                }
            }
            *content = Content { now: left.clone(), durable: left };
        }
        if random.random_bool(0.5) {
            platter.names = platter.durable_names.clone();
        }
        platter.durable_names = platter.names.clone();
        Self(Arc::new(Mutex::new(platter)))
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut platter = self.0.lock().expect("not poisoned");
        let file = platter.names[name];
        edit(&mut platter.files[file].now);
    }

    fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().expect("not poisoned").clone())))
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().expect("not poisoned").names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let file = self.0.lock().expect("not poisoned").names.get(name).copied();
        Ok(FaultyFile(self.0.clone(), file.ok_or(io::ErrorKind::NotFound)?))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<FaultyFile> {
        let mut platter = self.0.lock().expect("not poisoned");
        let zeros = vec![0; usize::try_from(size).expect("small")];
        platter.files.push(Content { now: zeros.clone(), durable: zeros });
        let file = platter.files.len() - 1;
        platter.names.insert(name.to_owned(), file);
        Ok(FaultyFile(self.0.clone(), file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.0.lock().expect("not poisoned");
        let file = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        platter.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0
            .lock()
            .expect("not poisoned")
            .names
            .remove(name)
            .map(|_| ())
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut platter = self.0.lock().expect("not poisoned");
        platter.durable_names = platter.names.clone();
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("not poisoned").files[self.1].now.len() as u64)
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().expect("not poisoned").files[self.1].now.clone())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).expect("small");
        self.0.lock().expect("not poisoned").files[self.1].now[start..start + bytes.len()]
            .copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.0.lock().expect("not poisoned");
        let content = &mut platter.files[self.1];
        content.durable = content.now.clone();
        Ok(())
    }
}

fn open(disk: &FaultyDisk) -> Result<(SegmentLog<FaultyDisk>, Recovered), LogError> {
    SegmentLog::open_on(disk.clone(), SEGMENT)
}

fn entry(index: u64, term: u64) -> LogEntry {
    let length = usize::try_from(index * 37 % 300).expect("small");
    LogEntry { index, term, data: Bytes::from(vec![u8::try_from(index % 251).expect("a byte"); length]) }
}

/// A log of a few segments, everything synced.
fn filled() -> FaultyDisk {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk).expect("a new log");
    for index in 1..=60 {
        let state = Bytes::from(format!("state {index}"));
        log.append(Some(&state), &[entry(index, 1)]).expect("appended");
        log.sync().expect("synced");
    }
    disk
}

#[test]
fn what_was_synced_is_there_after_a_restart() {
    let (_, recovered) = open(&filled()).expect("opens");
    assert_eq!(recovered.entries, (1..=60).map(|index| entry(index, 1)).collect::<Vec<_>>());
    assert_eq!(recovered.hard_state.as_deref(), Some(&b"state 60"[..]));
}

#[test]
fn a_suffix_is_replaced_and_a_reset_forgets_all_entries() {
    let disk = filled();
    let (mut log, _) = open(&disk).expect("opens");
    log.append(None, &[entry(30, 2), entry(31, 2)]).expect("appended");
    log.sync().expect("synced");
    let (mut log, recovered) = open(&disk).expect("opens");
    assert_eq!(
        recovered.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
        (1..=31).collect::<Vec<_>>()
    );
    log.reset(100).expect("reset");
    log.append(None, &[entry(101, 3)]).expect("appended");
    log.sync().expect("synced");
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.entries, [entry(101, 3)]);
    assert_eq!(recovered.hard_state.as_deref(), Some(&b"state 60"[..]));
}

#[test]
fn truncation_drops_whole_segments_and_keeps_the_hard_state() {
    let disk = filled();
    let (mut log, _) = open(&disk).expect("opens");
    let before = disk.list().expect("listed").len();
    log.truncate(60).expect("truncated");
    let after = disk.list().expect("listed").len();
    assert!(before > 2 && after == 1, "{before} segments, then {after}");
    let (_, recovered) = open(&disk).expect("opens");
    assert_eq!(recovered.hard_state.as_deref(), Some(&b"state 60"[..]));
    assert_eq!(recovered.entries.last(), Some(&entry(60, 1)));
}

#[test]
fn a_flipped_byte_anywhere_is_found_or_harmless() {
    let disk = filled();
    let names = disk.list().expect("listed");
    let (_, whole) = open(&disk.copy()).expect("opens");
    for name in &names {
        let size = disk.open(name).expect("there").size().expect("known");
        for at in 0..usize::try_from(size).expect("small") {
            let hurt = disk.copy();
            hurt.edit(name, |bytes| bytes[at] ^= 0x40);
            match open(&hurt) {
                Err(LogError::Damaged { .. }) => {}
                Err(error) => panic!("{name} byte {at}: {error}"),
                Ok((_, recovered)) => {
                    // Only the very last frame can be taken for a torn one.
                    let kept = recovered.entries.len();
                    assert!(kept + 1 >= whole.entries.len(), "{name} byte {at}: {kept} entries");
                    assert_eq!(recovered.entries[..], whole.entries[..kept], "{name} byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_missing_or_truncated_segment_stops_the_manager() {
    let names = filled().list().expect("listed");
    for name in &names[..names.len() - 1] {
        let disk = filled();
        disk.edit(name, |bytes| bytes.truncate(bytes.len() / 2));
        assert!(matches!(open(&disk), Err(LogError::Damaged { .. })), "{name} truncated");
    }
    let disk = filled();
    disk.remove(&names[1]).expect("removed");
    assert!(matches!(open(&disk), Err(LogError::Damaged { .. })));
}

/// Random work with a power cut at a random point, again and again: what was acknowledged is never lost or changed.
#[test]
fn power_cuts_lose_nothing_that_was_synced() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = FaultyDisk::default();
        let mut acknowledged: Vec<LogEntry> = Vec::new();
        let mut state = None;
        for term in 1..6 {
            let (mut log, recovered) =
                open(&disk).unwrap_or_else(|error| panic!("seed {seed} term {term}: {error}"));
            let first = recovered.entries.first().map_or(u64::MAX, |entry| entry.index);
            for entry in acknowledged.iter().filter(|entry| entry.index >= first) {
                assert!(recovered.entries.contains(entry), "seed {seed}: entry {} lost", entry.index);
            }
            assert!(
                acknowledged.is_empty() || first <= acknowledged.last().expect("some").index,
                "seed {seed}"
            );
            assert!(recovered.hard_state >= state, "seed {seed}: {:?} after {state:?}", recovered.hard_state);
            acknowledged = recovered.entries;
            let mut pending = acknowledged.clone();
            // Lowest index that an unsynced batch replaces: from there on nothing is certain.
            let mut certain_below = u64::MAX;
            for step in 0..random.random_range(0..40) {
                let last = pending.last().map_or(0, |entry| entry.index);
                let next = if random.random_bool(0.1) { last.max(2) - 1 } else { last + 1 };
                let batch: Vec<LogEntry> =
                    (next..next + random.random_range(1..4)).map(|index| entry(index, term)).collect();
                pending.retain(|entry| entry.index < next);
                certain_below = certain_below.min(next);
                pending.extend(batch.clone());
                let written = Bytes::from(format!("{term:03} {step:03}"));
                log.append(Some(&written), &batch).expect("appended");
                if random.random_bool(0.6) {
                    log.sync().expect("synced");
                    acknowledged = pending.clone();
                    certain_below = u64::MAX;
                    state = Some(written);
                }
                if random.random_bool(0.05) {
                    log.truncate(acknowledged.last().map_or(0, |entry| entry.index)).expect("truncated");
                    acknowledged = pending.clone();
                    certain_below = u64::MAX;
                    state = log_state(&log);
                }
            }
            acknowledged.retain(|entry| entry.index < certain_below);
            disk = disk.cut(&mut random);
        }
    }
}

fn log_state(log: &SegmentLog<FaultyDisk>) -> Option<Bytes> {
    log.hard_state_for_test()
}
