//! A manager's disk: what was synced survives a crash; of what was not, an arbitrary beginning may. Each append is whole
//! or not there at all, as the log's checksums see to it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use swarm_manager_core::door::{
    Checkpoint, CheckpointState, LogEntry, ObjectKey, Persist, Recovered, StoredObject,
};

#[derive(Debug, Default)]
pub struct Disk {
    durable: Content,
    /// Written, not yet synced, in order.
    pending: VecDeque<Persist>,
    pending_checkpoint: Option<Checkpoint>,
    /// Nothing more can be written.
    pub full: bool,
    /// A write was refused since the manager started.
    pub refused: bool,
}

#[derive(Debug, Default, Clone)]
struct Content {
    checkpoint: Option<Head>,
    objects: BTreeMap<ObjectKey, Bytes>,
    hard_state: Option<Bytes>,
    /// What it was before the last change; for mutations.
    old_hard_state: Option<Bytes>,
    log: BTreeMap<u64, LogEntry>,
}

#[derive(Debug, Clone)]
struct Head {
    index: u64,
    term: u64,
    conf_state: Bytes,
}

/// What a crash spares of the writes that were under way.
#[derive(Debug, Clone, Copy)]
pub struct Spared {
    /// Appends, from the first; modulo how many there are.
    pub appends: u64,
    pub checkpoint: bool,
    /// Of a received snapshot only the first half: the checkpoint store, not the log.
    pub half_snapshot: bool,
}

impl Content {
    fn persist(&mut self, persist: Persist) {
        if let Some(state) = persist.checkpoint {
            self.install(state);
            self.log.clear();
        }
        if let Some(hard_state) = persist.hard_state {
            self.old_hard_state = self.hard_state.replace(hard_state);
        }
        if let Some(first) = persist.entries.first() {
            self.log.split_off(&first.index);
        }
        self.log.extend(persist.entries.into_iter().map(|entry| (entry.index, entry)));
    }

    fn install(&mut self, state: CheckpointState) {
        self.checkpoint = Some(Head { index: state.index, term: state.term, conf_state: state.conf_state });
        self.objects = state.objects.into_iter().map(|object| (object.key, object.value)).collect();
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

    /// The power goes.
    pub fn lose_unsynced(&mut self, spared: Spared) {
        let keep = spared.appends as usize % (self.pending.len() + 1);
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        for persist in pending.by_ref().take(keep) {
            self.durable.persist(persist);
        }
        if let Some(state) = pending.next().and_then(|torn| torn.checkpoint).filter(|_| spared.half_snapshot)
        {
            self.durable.install(state);
        }
        if spared.checkpoint {
            self.sync_checkpoint();
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

    /// For mutations: forgets the newest hard state, as a disk that never had it.
    pub fn forget_hard_state(&mut self) {
        if let Some(old) = self.durable.old_hard_state.take() {
            self.durable.hard_state = Some(old);
        }
    }

    /// For mutations: loses the last entry that was durable.
    pub fn lose_last_entry(&mut self) {
        self.durable.log.pop_last();
    }

    /// For mutations: alters a stored object without a trace.
    pub fn rot_object(&mut self) {
        if let Some((key, _)) = self.durable.objects.iter().find(|(key, _)| key.0.first() == Some(&4)) {
            let key = key.clone();
            self.durable.objects.remove(&key);
        }
    }
}
