//! The disk protocol: what of a ready must be durable, and what waits until it is.

use raft::Ready;
use raft::eraftpb::{EntryType, Message};

use super::{Consensus, Round, encode, send};
use crate::door::{Effect, LogEntry, Persist};

/// A ready that is not yet durable, and the messages that wait for it.
#[derive(Debug)]
pub(super) struct InFlight {
    pub number: u64,
    pub needs_disk: bool,
    pub messages: Vec<Message>,
    /// Index of a snapshot that it installs.
    pub snapshot: Option<u64>,
}

impl Consensus {
    /// What of this ready must reach the disk. A commit index alone rides with the next write: it is learnt again. But not
    /// that of a change of members: who forgets it counts on voters that were replaced, and may wait for them forever.
    pub(super) fn persist(&mut self, ready: &mut Ready, round: &mut Round) -> Option<Persist> {
        let hard_state = ready.hs().cloned();
        let log = self.raw.mut_store();
        if let Some(hard_state) = hard_state {
            log.set_hard_state(hard_state);
        }
        if !ready.snapshot().is_empty() {
            let received = self.received.take().expect("raft hands out only what was received");
            round.install = Some(self.raw.mut_store().install(ready.snapshot(), received.objects));
        }
        let log = self.raw.mut_store();
        let entries = ready.take_entries();
        let records = entries
            .iter()
            .map(|entry| LogEntry { index: entry.index, term: entry.term, data: encode(entry) })
            .collect();
        log.append(entries);
        let members_change =
            ready.committed_entries().iter().any(|it| it.entry_type != EntryType::EntryNormal as i32);
        (ready.must_sync() || members_change).then(|| Persist {
            ready: ready.number(),
            checkpoint: round.install.clone(),
            entries: records,
            hard_state: Some(encode(log.hard_state())),
            must_sync: true,
        })
    }

    /// The disk has everything up to and including `ready`.
    pub fn persisted(&mut self, ready: u64, effects: &mut Vec<Effect>) {
        self.settle_disk(ready, effects);
    }

    /// Lets go of readies in order: those that are durable, and those that never needed the disk.
    pub(super) fn settle_disk(&mut self, durable: u64, effects: &mut Vec<Effect>) {
        while self.in_flight.front().is_some_and(|first| first.number <= durable || !first.needs_disk) {
            let Some(done) = self.in_flight.pop_front() else { return };
            self.raw.on_persist_ready(done.number);
            if let Some(index) = done.snapshot {
                self.raw.advance_apply_to(index);
            }
            send(done.messages, effects);
        }
    }
}
