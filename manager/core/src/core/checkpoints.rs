//! When the applied state is made durable, so that the log can be cut.

use crate::core::ManagerCore;
use crate::door::{Checkpoint, CheckpointState, Effect};

/// Entries between two checkpoints: replaying them at start takes some ten milliseconds.
const EVERY_ENTRIES: u64 = 1_000;
/// Bytes of entries between two checkpoints: they are held in memory until then.
const EVERY_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Index of the last one that was cut.
    last: u64,
    /// Applied since.
    bytes: usize,
    under_way: bool,
}

impl Checkpoints {
    pub fn new(last: u64) -> Self {
        Self { last, bytes: 0, under_way: false }
    }

    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The whole state was replaced by a snapshot, which is a checkpoint itself.
    pub fn replaced(&mut self, index: u64) {
        *self = Self { last: index, bytes: 0, under_way: self.under_way };
    }
}

impl ManagerCore {
    pub(super) fn cut_checkpoint(&mut self, effects: &mut Vec<Effect>) {
        let index = self.store.applied();
        let checkpoints = &self.checkpoints;
        let due = index - checkpoints.last >= EVERY_ENTRIES || checkpoints.bytes >= EVERY_BYTES;
        if checkpoints.under_way || !due {
            return;
        }
        let (changed, removed) = self.store.take_unsaved();
        self.checkpoints = Checkpoints { last: index, bytes: 0, under_way: true };
        let term = self.consensus.term_at(index);
        effects.push(Effect::Checkpoint(Checkpoint {
            index,
            term,
            conf_state: self.conf_state(),
            changed,
            removed,
        }));
    }

    pub(super) fn checkpointed(&mut self, index: u64, effects: &mut Vec<Effect>) {
        self.checkpoints.under_way = false;
        effects.extend(self.consensus.compact(index).map(|up_to| Effect::TruncateLog { up_to }));
    }

    /// A follower is so far behind that the log does not reach back to it.
    pub(super) fn offer_snapshot(&mut self) {
        if self.consensus.wants_snapshot() {
            let index = self.store.applied();
            let state = CheckpointState {
                index,
                term: self.consensus.term_at(index),
                conf_state: self.conf_state(),
                objects: self.store.export(),
            };
            self.consensus.offer_snapshot(&state);
        }
    }
}
