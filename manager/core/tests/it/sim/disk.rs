//! A disk: what was synced survives, of what was not an arbitrary beginning may.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use swarm_manager_core::door::{
    Checkpoint, CheckpointState, LogEntry, ObjectKey, Persist, Recovered, StoredObject,
};

#[derive(Default)]
pub struct Disk {
    durable: Content,
    /// Written, not yet synced, in order.
    pending: VecDeque<Persist>,
    pending_checkpoint: Option<Checkpoint>,
}

#[derive(Default, Clone)]
struct Content {
    checkpoint: Option<Head>,
    objects: BTreeMap<ObjectKey, Bytes>,
    hard_state: Option<Bytes>,
    log: BTreeMap<u64, LogEntry>,
}

#[derive(Clone)]
struct Head {
    index: u64,
    term: u64,
    conf_state: Bytes,
}

impl Content {
    fn persist(&mut self, persist: Persist) {
        if let Some(state) = persist.checkpoint {
            self.install(state);
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = Some(hard_state);
        }
        if let Some(first) = persist.entries.first() {
            self.log.split_off(&first.index);
        }
        self.log.extend(persist.entries.into_iter().map(|entry| (entry.index, entry)));
    }

    fn install(&mut self, state: CheckpointState) {
        self.checkpoint = Some(Head { index: state.index, term: state.term, conf_state: state.conf_state });
        self.objects = state.objects.into_iter().map(|object| (object.key, object.value)).collect();
        self.log.clear();
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.checkpoint =
            Some(Head { index: checkpoint.index, term: checkpoint.term, conf_state: checkpoint.conf_state });
        self.objects.extend(checkpoint.changed.into_iter().map(|object| (object.key, object.value)));
        for key in checkpoint.removed {
            self.objects.remove(&key);
        }
    }
}

impl Disk {
    pub fn write(&mut self, persist: Persist) {
        self.pending.push_back(persist);
    }

    pub fn sync(&mut self, ready: u64) {
        while self.pending.front().is_some_and(|first| first.ready <= ready) {
            let Some(persist) = self.pending.pop_front() else { return };
            self.durable.persist(persist);
        }
    }

    pub fn write_checkpoint(&mut self, checkpoint: Checkpoint) {
        assert!(self.pending_checkpoint.is_none(), "at most one checkpoint is under way");
        self.pending_checkpoint = Some(checkpoint);
    }

    pub fn sync_checkpoint(&mut self) {
        if let Some(checkpoint) = self.pending_checkpoint.take() {
            self.durable.checkpoint(checkpoint);
        }
    }

    pub fn truncate(&mut self, up_to: u64) {
        self.durable.log = self.durable.log.split_off(&(up_to + 1));
    }

    /// The power goes. Of the writes under way the first few may have made it.
    pub fn lose_unsynced(&mut self, keep: u64) {
        let keep = keep as usize % (self.pending.len() + 1);
        for persist in self.pending.drain(..).take(keep).collect::<Vec<_>>() {
            self.durable.persist(persist);
        }
        self.pending_checkpoint = None;
    }

    pub fn recover(&self) -> Recovered {
        let content = self.durable.clone();
        Recovered {
            checkpoint: content.checkpoint.map(|head| CheckpointState {
                index: head.index,
                term: head.term,
                conf_state: head.conf_state,
                objects: content
                    .objects
                    .into_iter()
                    .map(|(key, value)| StoredObject { key, value })
                    .collect(),
            }),
            hard_state: content.hard_state,
            entries: content.log.into_values().collect(),
        }
    }
}
