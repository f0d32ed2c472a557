//! The log as raft-rs reads it: entries since the last compaction, in memory. The durable copy is the shell's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;
use prost011::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::door::{CheckpointState, LogEntry, Recovered, StoredObject};
use crate::store::Capture;

/// Most that is kept behind a checkpoint for followers that are a little behind.
const KEPT_BYTES: usize = 8 << 20;

/// What the disk held does not fit together. The manager must not start on it.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("log entry {index} cannot be decoded")]
    Entry {
        index: u64,
        #[source]
        source: prost011::DecodeError,
    },
    #[error("log entry {index} has an unknown type, or says that it is entry {says}")]
    BadEntry { index: u64, says: u64 },
    #[error("log entry {found} follows entry {last}: entries between them are missing")]
    Gap { last: u64, found: u64 },
    #[error(
        "the checkpoint is at index {checkpoint}, but the log begins at {first}: entries between them are missing"
    )]
    LogBehind { checkpoint: u64, first: u64 },
    #[error("the hard state or the membership cannot be decoded")]
    State(#[source] prost011::DecodeError),
    #[error("the hard state says that index {commit} is committed, but the log ends at {last}")]
    CommitAhead { commit: u64, last: u64 },
    #[error("raft refused the recovered state")]
    Raft(#[source] raft::Error),
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// The entry before the first one: gone, but its term is known.
    truncated: (u64, u64),
    entries: VecDeque<Entry>,
    hard_state: HardState,
    /// As of the last applied entry.
    conf_state: ConfState,
    /// The conf state that raft-rs starts from belongs to this index.
    checkpoint: u64,
    snapshot_wanted: Cell<bool>,
    snapshot: RefCell<Option<Snapshot>>,
    /// The states that snapshots stand for which were offered and not sent yet.
    offered: Vec<Capture>,
}

impl Log {
    pub fn recover(recovered: Recovered) -> Result<Self, RecoverError> {
        let mut log = Self::default();
        if let Some(bytes) = &recovered.hard_state {
            log.hard_state = HardState::decode(&**bytes).map_err(RecoverError::State)?;
        }
        let mut checkpoint_term = 0;
        if let Some(checkpoint) = &recovered.checkpoint {
            log.conf_state = ConfState::decode(&*checkpoint.conf_state).map_err(RecoverError::State)?;
            log.checkpoint = checkpoint.index;
            checkpoint_term = checkpoint.term;
        }
        log.truncated = (log.checkpoint, checkpoint_term);
        log.load(&recovered.entries)?;
        // The commit index is persisted lazily: what a checkpoint holds was committed.
        log.hard_state.commit = log.hard_state.commit.max(log.checkpoint);
        log.hard_state.term = log.hard_state.term.max(checkpoint_term);
        if log.hard_state.commit > log.last() {
            return Err(RecoverError::CommitAhead { commit: log.hard_state.commit, last: log.last() });
        }
        Ok(log)
    }

    fn load(&mut self, records: &[LogEntry]) -> Result<(), RecoverError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        if first.index > self.checkpoint + 1 {
            return Err(RecoverError::LogBehind { checkpoint: self.checkpoint, first: first.index });
        }
        let at_checkpoint = records.iter().find(|record| record.index == self.checkpoint);
        let forked = at_checkpoint.is_some_and(|record| record.term != self.truncated.1);
        if last.index < self.checkpoint || forked {
            // A snapshot was installed and the log that it replaces not yet deleted.
            return Ok(());
        }
        for (expected, record) in (first.index..).zip(records) {
            let entry = Entry::decode(&*record.data)
                .map_err(|source| RecoverError::Entry { index: record.index, source })?;
            if record.index != expected {
                return Err(RecoverError::Gap { last: expected - 1, found: record.index });
            }
            if entry.index != record.index || EntryType::from_i32(entry.entry_type).is_none() {
                return Err(RecoverError::BadEntry { index: record.index, says: entry.index });
            }
            self.entries.push_back(entry);
        }
        if first.index <= self.checkpoint {
            // The term before the first record is unknown, so the first one serves as the mark of what is gone.
            let mark = self.entries.pop_front().map_or(self.truncated, |entry| (entry.index, entry.term));
            self.truncated = mark;
        }
        Ok(())
    }

    pub fn checkpoint_index(&self) -> u64 {
        self.checkpoint
    }

    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// The last entry that is gone, because a checkpoint or a snapshot covers it.
    pub fn truncated_index(&self) -> u64 {
        self.truncated.0
    }

    fn first(&self) -> u64 {
        self.truncated.0 + 1
    }

    fn last(&self) -> u64 {
        self.truncated.0 + self.entries.len() as u64
    }

    /// Replaces the suffix from the first new index on.
    pub fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.checked_sub(self.first()).expect("raft never overwrites what is compacted");
        assert!(keep <= self.entries.len() as u64, "raft never leaves a gap");
        self.entries.truncate(keep as usize);
        self.entries.extend(entries);
    }

    /// Starts again from a snapshot of the leader, which stands for `objects`.
    pub fn install(&mut self, snapshot: &Snapshot, objects: Vec<StoredObject>) -> CheckpointState {
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        self.truncated = (metadata.index, metadata.term);
        self.entries.clear();
        self.conf_state = metadata.conf_state.clone().unwrap_or_default();
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        CheckpointState {
            index: metadata.index,
            term: metadata.term,
            conf_state: Bytes::from(self.conf_state.encode_to_vec()),
            objects,
        }
    }

    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        let position = index.checked_sub(self.first())?;
        self.entries.get(position as usize).map(|entry| entry.term)
    }

    /// Drops what a durable checkpoint covers, but for a tail of at most `keep` entries; answers the last index that is gone.
    pub fn compact(&mut self, checkpoint: u64, keep: usize) -> Option<u64> {
        let covered = checkpoint.saturating_sub(self.truncated.0).min(self.entries.len() as u64) as usize;
        let mut bytes = 0;
        let kept = self
            .entries
            .range(..covered)
            .rev()
            .take(keep)
            .take_while(|entry| {
                bytes += entry.data.len();
                bytes <= KEPT_BYTES
            })
            .count();
        let gone = self.entries.drain(..covered - kept).next_back()?;
        self.truncated = (gone.index, gone.term);
        Some(gone.index)
    }

    pub fn wants_snapshot(&self) -> bool {
        self.snapshot_wanted.get() && self.snapshot.borrow().is_none()
    }

    /// For the follower that needs one: raft-rs learns nothing of the state but its index.
    pub fn offer_snapshot(&mut self, state: Capture) {
        let metadata = SnapshotMetadata {
            conf_state: Some(self.conf_state.clone()),
            index: state.index(),
            term: state.term(),
        };
        *self.snapshot.borrow_mut() = Some(Snapshot { data: Vec::new(), metadata: Some(metadata) });
        self.offered.push(state);
    }

    /// The state that a snapshot at `index` stands for. One that was offered before it is not sent any more.
    pub fn take_offered(&mut self, index: u64) -> Option<Capture> {
        let at = self.offered.iter().position(|state| state.index() == index)?;
        self.offered.drain(..=at).next_back()
    }

    /// Who leads no more sends no snapshots.
    pub fn withdraw_snapshot(&mut self) {
        self.snapshot.borrow_mut().take();
        self.snapshot_wanted.set(false);
        self.offered.clear();
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let range = (low - self.first()) as usize..(high - self.first()) as usize;
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        for entry in self.entries.range(range) {
            let size = entry.encoded_len() as u64;
            if size > room && !entries.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing =
            if index < self.truncated.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_at(index).ok_or(raft::Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Handed out once: the next follower gets a newer one. Made by the core between two rounds. A member takes none of before
    /// it was one.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let offered = self.snapshot.borrow_mut().take();
        match offered.filter(|snapshot| is_of_use(snapshot, request_index, to)) {
            Some(snapshot) => {
                self.snapshot_wanted.set(false);
                Ok(snapshot)
            }
            None => {
                self.snapshot_wanted.set(true);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

fn is_of_use(snapshot: &Snapshot, index: u64, to: u64) -> bool {
    snapshot.metadata.as_ref().is_some_and(|metadata| {
        let members = metadata.conf_state.as_ref();
        let has = |members: &ConfState| members.voters.contains(&to) || members.learners.contains(&to);
        metadata.index >= index && members.is_some_and(has)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn record(index: u64, term: u64) -> LogEntry {
        let data = Entry { index, term, ..Entry::default() }.encode_to_vec().into();
        LogEntry { index, term, data }
    }

    fn checkpoint(index: u64, term: u64) -> CheckpointState {
        let conf_state = ConfState { voters: vec![1], ..ConfState::default() }.encode_to_vec().into();
        CheckpointState { index, term, conf_state, objects: Vec::new() }
    }

    fn check(
        checkpoint: Option<CheckpointState>,
        entries: std::ops::RangeInclusive<u64>,
        commit: u64,
        expect: &str,
    ) {
        let hard_state = HardState { term: 3, vote: 1, commit }.encode_to_vec().into();
        let entries = entries.map(|index| record(index, 2)).collect();
        let shown = match Log::recover(Recovered { checkpoint, hard_state: Some(hard_state), entries }) {
            Ok(log) => format!("{}..={} commit {}", log.first(), log.last(), log.hard_state.commit),
            Err(error) => error.to_string(),
        };
        assert!(shown.contains(expect), "{shown}, expected {expect}");
    }

    #[test]
    fn what_the_disk_held_fits_together_or_is_refused() {
        check(None, 1..=5, 3, "1..=5 commit 3");
        check(Some(checkpoint(4, 2)), 5..=9, 4, "5..=9 commit 4");
        check(Some(checkpoint(4, 2)), 2..=9, 3, "3..=9 commit 4");
        check(Some(checkpoint(9, 2)), 2..=6, 6, "10..=9 commit 9");
        check(Some(checkpoint(4, 3)), 2..=9, 3, "5..=4 commit 4");
        check(Some(checkpoint(4, 2)), 6..=9, 4, "at index 4, but the log begins at 6");
        check(None, 2..=3, 2, "at index 0, but the log begins at 2");
        check(None, 1..=3, 4, "index 4 is committed, but the log ends at 3");
    }

    #[test]
    fn a_gap_and_a_record_that_lies_about_its_index_are_refused() {
        let refused = |entries: Vec<LogEntry>| {
            Log::recover(Recovered { entries, ..Recovered::default() }).unwrap_err().to_string()
        };
        assert!(refused(vec![record(1, 1), record(3, 1)]).contains("entry 3 follows entry 1"));
        let lie = LogEntry { index: 2, ..record(7, 1) };
        assert!(refused(vec![record(1, 1), lie]).contains("says that it is entry 7"));
    }

    #[test]
    fn nobody_is_sent_a_snapshot_of_before_it_was_a_member() {
        let state = || Store::default().capture(2);
        let mut log = Log::recover(Recovered::default()).unwrap();
        log.set_conf_state(ConfState { voters: vec![1], ..ConfState::default() });
        assert!(log.snapshot(0, 2).is_err() && log.wants_snapshot());
        log.offer_snapshot(state());
        log.set_conf_state(ConfState { voters: vec![1], learners: vec![2], ..ConfState::default() });
        assert!(log.snapshot(0, 2).is_err() && log.wants_snapshot());
        log.offer_snapshot(state());
        assert!(log.snapshot(1, 2).is_err() && log.wants_snapshot(), "it does not reach so far");
        log.offer_snapshot(state());
        assert!(log.snapshot(0, 2).is_ok());
    }

    #[test]
    fn compaction_keeps_a_tail_and_the_term_before_it() {
        let entries = (1..=2_000).map(|index| record(index, 1 + index / 1_000)).collect();
        let hard_state = HardState { term: 3, vote: 0, commit: 2_000 }.encode_to_vec().into();
        let mut log =
            Log::recover(Recovered { checkpoint: None, hard_state: Some(hard_state), entries }).unwrap();
        assert_eq!(log.compact(1_600, 500), Some(1_100));
        assert_eq!((log.first(), log.last()), (1_101, 2_000));
        assert_eq!((log.term_at(1_100), log.term_at(1_099)), (Some(2), None));
        assert_eq!(log.compact(1_600, 500), None);
    }
}
