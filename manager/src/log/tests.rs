//! The log on a disk whose power is cut at every write and every sync, and whose bytes rot.

use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, DiskFile};
use super::faulty::{FaultyDisk, Left};
use super::*;
use crate::keys::DataKey;

const SEGMENT: u64 = 4096;

fn open(disk: &FaultyDisk) -> Result<(SegmentLog<FaultyDisk>, Recovered), LogError> {
    static KEY: LazyLock<DataKey> = LazyLock::new(DataKey::generate);
    SegmentLog::open_on(disk.clone(), SEGMENT, &KEY)
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

/// Every byte, also of the last record, also of the hard state; what is behind the last record holds nothing.
#[test]
fn a_flipped_byte_anywhere_is_found_or_harmless() {
    let disk = filled();
    let (_, whole) = open(&disk.copy()).expect("opens");
    let mut found = 0;
    for name in disk.list().expect("listed") {
        let size = disk.open(&name).expect("there").size().expect("known");
        for at in 0..usize::try_from(size).expect("small") {
            for flip in [0x01, 0xc0] {
                let hurt = disk.copy();
                hurt.edit(&name, |bytes| bytes[at] ^= flip);
                match open(&hurt) {
                    Err(error @ LogError::Damaged { .. }) => {
                        let text = error.to_string();
                        assert!(text.contains(&name) && text.contains("swarmctl node rm"), "{text}");
                        found += 1;
                    }
                    Err(error) => panic!("{name} byte {at}: {error}"),
                    Ok((_, recovered)) => assert!(recovered == whole, "{name} byte {at} xor {flip:#x}"),
                }
            }
        }
    }
    assert!(found > 20_000, "{found}");
}

#[test]
fn a_log_cut_short_anywhere_is_found() {
    let disk = filled();
    for name in disk.list().expect("listed") {
        let size = disk.open(&name).expect("there").size().expect("known");
        for length in 0..usize::try_from(size).expect("small") {
            let hurt = disk.copy();
            hurt.edit(&name, |bytes| bytes.truncate(length));
            assert!(matches!(open(&hurt), Err(LogError::Damaged { .. })), "{name} cut to {length}");
        }
    }
}

/// Whole sectors that became zero look like ones that were never written; what comes after them says otherwise.
#[test]
fn a_lost_sector_of_a_closed_log_is_found_unless_it_is_the_last_one() {
    let disk = filled();
    let (mut log, whole) = open(&disk).expect("opens");
    log.close().expect("closed");
    for name in disk.list().expect("listed") {
        let bytes = disk.open(&name).expect("there").read_all().expect("read");
        let last = bytes.iter().rposition(|byte| *byte != 0).expect("a header") / 512 * 512;
        for at in (0..last).step_by(512) {
            let hurt = disk.copy();
            hurt.edit(&name, |bytes| bytes[at..at + 512].fill(0));
            match open(&hurt) {
                Err(LogError::Damaged { .. }) => {}
                Err(error) => panic!("{name} sector at {at}: {error}"),
                Ok((_, recovered)) => assert!(recovered == whole, "{name} sector at {at}"),
            }
        }
    }
}

#[test]
fn a_log_of_an_earlier_version_is_refused_by_name() {
    for magic in [b"swarmlg1", b"swarmlg2"] {
        let disk = filled();
        let first = disk.list().expect("listed").remove(0);
        disk.edit(&first, |bytes| bytes[..8].copy_from_slice(magic));
        assert!(matches!(open(&disk), Err(LogError::OldFormat { .. })));
    }
}

#[test]
fn a_log_says_nothing_without_its_key_and_is_refused_with_another() {
    let disk = FaultyDisk::default();
    let (mut log, _) = open(&disk).expect("opens");
    let canary = b"a secret of the operator";
    let secret = LogEntry { index: 1, term: 1, data: Bytes::from_static(canary) };
    log.append(Some(&Bytes::from_static(canary)), &[secret]).expect("appended");
    log.close().expect("closed");
    for name in disk.list().expect("listed") {
        let bytes = disk.open(&name).expect("there").read_all().expect("read");
        assert!(!bytes.windows(8).any(|window| window == &canary[..8]), "{name}");
    }
    let error = SegmentLog::open_on(disk, SEGMENT, &DataKey::generate()).expect_err("another key");
    assert!(error.to_string().contains("data key"), "{error}");
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    let disk = filled();
    let (mut log, _) = open(&disk).expect("opens");
    log.append(None, &[entry(61, 1)]).expect("appended");
    disk.fail_syncs();
    assert!(matches!(log.sync(), Err(LogError::Io { action: "sync", .. })));
    assert!(matches!(log.sync(), Err(LogError::Poisoned)));
    assert!(matches!(log.append(None, &[entry(62, 1)]), Err(LogError::Poisoned)));
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

/// What the log was told, and what of that it owes.
#[derive(Debug, Default, Clone)]
struct Promise {
    /// Hard state and entries after each append.
    states: Vec<(Option<Bytes>, Vec<LogEntry>)>,
    /// Those before this one are durable, or replaced.
    synced: usize,
    /// Entries up to this one may be gone.
    truncated: u64,
}

impl Promise {
    fn of(recovered: &Recovered) -> Self {
        Self { states: vec![(recovered.hard_state.clone(), recovered.entries.clone())], ..Self::default() }
    }

    fn last(&self) -> (Option<Bytes>, Vec<LogEntry>) {
        self.states.last().cloned().unwrap_or_default()
    }

    fn append(&mut self, state: Bytes, batch: &[LogEntry]) {
        let (_, mut entries) = self.last();
        entries.retain(|entry| entry.index < batch[0].index);
        entries.extend_from_slice(batch);
        self.states.push((Some(state), entries));
    }

    fn reset(&mut self) {
        let (state, _) = self.last();
        self.states.push((state, Vec::new()));
    }

    fn synced(&mut self) {
        self.synced = self.states.len().saturating_sub(1);
    }

    /// Whether that is one of the states from the last synced one on, but for a truncated beginning.
    fn allows(&self, recovered: &Recovered) -> bool {
        self.states[self.synced..].iter().any(|(state, entries)| {
            let gone = entries.len().saturating_sub(recovered.entries.len());
            *state == recovered.hard_state
                && entries[gone..] == recovered.entries[..]
                && entries[..gone].iter().all(|entry| entry.index <= self.truncated)
        })
    }
}

/// Appends, replaced suffixes, syncs, truncations and resets, until the power goes.
fn work(
    log: &mut SegmentLog<FaultyDisk>,
    promise: &mut Promise,
    random: &mut StdRng,
) -> Result<(), LogError> {
    let term = promise.last().1.last().map_or(1, |entry| entry.term + 1);
    for step in 0..40 {
        let last = promise.last().1.last().map_or(0, |entry| entry.index);
        let next = if random.random_bool(0.15) { last.max(2) - 1 } else { last + 1 };
        let next = next.max(promise.truncated + 1);
        let batch: Vec<LogEntry> =
            (next..next + random.random_range(1..4)).map(|index| entry(index, term)).collect();
        let state = Bytes::from(format!("{term:03} {step:03}"));
        promise.append(state.clone(), &batch);
        log.append(Some(&state), &batch)?;
        if random.random_bool(0.6) {
            log.sync()?;
            promise.synced();
        }
        if random.random_bool(0.1) {
            // The log syncs before it deletes, so all that was appended is durable or the deletion did not begin.
            promise.truncated = promise.last().1.last().map_or(0, |entry| entry.index);
            log.truncate(promise.truncated)?;
            promise.synced();
        }
        if random.random_bool(0.03) {
            promise.reset();
            log.reset(promise.truncated)?;
        }
    }
    log.close()?;
    promise.synced();
    Ok(())
}

/// One run that is cut at that operation, if it comes so far: the disk, and what is owed.
fn run_until(operation: usize, seed: u64, disk: &FaultyDisk, before: &Promise) -> Promise {
    disk.cut_at(operation);
    let mut promise = before.clone();
    let mut random = StdRng::seed_from_u64(seed);
    let result = open(disk).and_then(|(mut log, recovered)| {
        assert!(before.states.is_empty() || before.allows(&recovered), "{recovered:?}");
        let last = recovered.entries.last().map_or(u64::MAX, |entry| entry.index);
        promise = Promise { truncated: before.truncated.min(last), ..Promise::of(&recovered) };
        work(&mut log, &mut promise, &mut random)
    });
    assert!(result.is_ok() || !disk.has_power(), "{result:?}");
    promise
}

fn check_after_cut(disk: &FaultyDisk, promise: &Promise, left: Left<'_>, what: &str) -> FaultyDisk {
    let what = format!("{what}, {left:?} left");
    let after = disk.after_cut(left);
    let (_, recovered) = open(&after.copy()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let owed = promise.states.is_empty() || promise.allows(&recovered);
    assert!(owed, "{what}: not what was synced, or more: {recovered:?}");
    after
}

/// At every write, every sync and every change of the directory, with every way in which the last write can be torn.
#[test]
fn a_power_cut_anywhere_loses_nothing_that_was_synced() {
    for seed in 0..3 {
        let disk = FaultyDisk::default();
        run_until(usize::MAX, seed, &disk, &Promise::default());
        let operations = disk.operations();
        assert!(operations > 80, "{operations}");
        for cut in 0..operations {
            let what = format!("seed {seed}, cut at operation {cut} of {operations}");
            let disk = FaultyDisk::default();
            let promise = run_until(cut, seed, &disk, &Promise::default());
            check_after_cut(&disk, &promise, Left::Nothing, &what);
            check_after_cut(&disk, &promise, Left::Everything, &what);
            let step = if seed == 0 { 1 } else { 17 };
            for bytes in (0..disk.last_write()).step_by(step) {
                check_after_cut(&disk, &promise, Left::TornAt(bytes), &what);
            }
            for mixture in 0..6 {
                let mut random = StdRng::seed_from_u64(mixture);
                check_after_cut(&disk, &promise, Left::Any(&mut random), &what);
            }
        }
    }
}

/// Again and again, also while the log recovers from the last cut, and with processes killed in between.
#[test]
fn power_cuts_while_recovering_lose_nothing_either() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = FaultyDisk::default();
        let mut promise = Promise::default();
        for life in 0..8 {
            let what = format!("seed {seed}, life {life}");
            let last = if random.random_bool(0.3) { 8 } else { 120 };
            let operation = random.random_range(0..last);
            promise = run_until(operation, random.random(), &disk, &promise);
            disk = if random.random_bool(0.2) {
                disk.restart()
            } else {
                check_after_cut(&disk, &promise, Left::Any(&mut random), &what)
            };
        }
    }
}
