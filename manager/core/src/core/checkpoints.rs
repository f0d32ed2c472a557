//! When the applied state is made durable, so that the log can be cut.

use std::time::Duration;

use swarm_model::Timestamp;

use crate::core::ManagerCore;
use crate::door::{CheckpointCut, Effect};

/// Between two checkpoints that are cut because of the count of entries. What is written often is saved once in this time,
/// not with each write: at a few thousand writes per second, saving each second was more than half of a follower's work.
const AT_LEAST: Duration = Duration::from_secs(5);
/// Entries between two checkpoints at most: replaying them takes some hundred milliseconds.
const MAX_ENTRIES: u64 = 20_000;
/// Bytes of entries between two checkpoints: they are held in memory until then.
const EVERY_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Index of the last one that was cut.
    last: u64,
    /// When that was.
    at: Timestamp,
    /// Applied since.
    bytes: usize,
    under_way: bool,
}

impl Checkpoints {
    pub fn new(last: u64) -> Self {
        Self { last, at: Timestamp::ZERO, bytes: 0, under_way: false }
    }

    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The whole state was replaced by a snapshot, which is a checkpoint itself.
    pub fn replaced(&mut self, index: u64) {
        *self = Self { last: index, bytes: 0, ..*self };
    }
}

impl ManagerCore {
    pub(super) fn cut_checkpoint(&mut self, effects: &mut Vec<Effect>) {
        let index = self.store.applied();
        let checkpoints = &self.checkpoints;
        let entries = index - checkpoints.last;
        let is_due = entries >= MAX_ENTRIES
            || checkpoints.bytes >= EVERY_BYTES
            || (entries >= self.config.log.checkpoint_every && self.now.since(checkpoints.at) >= AT_LEAST);
        if checkpoints.under_way || !is_due {
            return;
        }
        let unsaved = self.store.take_unsaved();
        self.checkpoints = Checkpoints { last: index, at: self.now, bytes: 0, under_way: true };
        let term = self.consensus.term_at(index);
        let conf_state = self.conf_state();
        effects.push(Effect::Checkpoint(Box::new(CheckpointCut { index, term, conf_state, unsaved })));
    }

    pub(super) fn checkpointed(&mut self, index: u64, effects: &mut Vec<Effect>) {
        self.checkpoints.under_way = false;
        let gone = self.consensus.compact(index, self.config.log.kept);
        effects.extend(gone.map(|up_to| Effect::TruncateLog { up_to }));
    }

    /// A follower is so far behind that the log does not reach back to it.
    pub(super) fn offer_snapshot(&mut self) {
        if self.consensus.wants_snapshot() {
            let index = self.store.applied();
            self.consensus.offer_snapshot(self.store.capture(self.consensus.term_at(index)));
        }
    }
}
