//! A manager's disk: what was synced survives a crash; of what was not, an arbitrary beginning may, and a torn record. It
//! may rot, too.
//!
//! An append is one record of the log, checkpoints are kept twice, one copy written after the other, and a manager that
//! starts does what the product's shell does: it cuts a torn record off, makes a rotten copy anew from the other one, and
//! refuses to start where that is not enough. That checksums find the damage is proved beside the product's own code.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

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

#[derive(Debug, Default)]
struct Content {
    /// Written in this order.
    copies: [Copy; 2],
    hard_state: Option<Bytes>,
    /// What it was before the last change; for mutations.
    old_hard_state: Option<Bytes>,
    log: BTreeMap<u64, LogEntry>,
    /// Behind the log: what a crash left of a record.
    torn: Option<Persist>,
    /// A record with this entry does not match its checksum.
    rotten_entry: Option<u64>,
}

/// A checkpoint.
#[derive(Debug, Default, Clone)]
struct Copy {
    head: Option<Head>,
    objects: Arc<BTreeMap<ObjectKey, Bytes>>,
    /// It does not match its checksums.
    is_rotten: bool,
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
    /// The first copy of a checkpoint, not the second.
    pub half_checkpoint: bool,
}

/// Why a manager does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Log,
    BothCopies,
}

impl Content {
    fn persist(&mut self, persist: Persist) {
        if let Some(state) = persist.checkpoint {
            let copy = Copy::of(&state);
            self.copies = [copy.clone(), copy];
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

    /// A received snapshot was installed, and the log that it replaces not yet reset.
    fn finish_install(&mut self) {
        let Some(head) = self.copies[0].head.as_ref() else { return };
        let forked = self.log.get(&head.index).is_some_and(|entry| entry.term != head.term);
        if forked || self.log.last_key_value().is_some_and(|(last, _)| *last < head.index) {
            self.log.clear();
        }
    }

    /// The newer of the two copies takes the place of one that is older or rotten.
    fn repair_copies(&mut self) -> Result<(), Damage> {
        let [first, second] = &self.copies;
        let better = match (first.is_rotten, second.is_rotten) {
            (true, true) => return Err(Damage::BothCopies),
            (true, false) => second.clone(),
            (false, true) => first.clone(),
            (false, false) if first.index() >= second.index() => first.clone(),
            (false, false) => second.clone(),
        };
        self.copies = [better.clone(), better];
        Ok(())
    }
}

impl Copy {
    fn of(state: &CheckpointState) -> Self {
        let objects = state.objects.iter().map(|object| (object.key.clone(), object.value.clone()));
        let head = Head { index: state.index, term: state.term, conf_state: state.conf_state.clone() };
        Self { head: Some(head), objects: Arc::new(objects.collect()), is_rotten: false }
    }

    /// What rot there is stays, unless the object is replaced; so it is taken to stay.
    fn add(&mut self, checkpoint: &Checkpoint) {
        let (index, term) = (checkpoint.index, checkpoint.term);
        self.head = Some(Head { index, term, conf_state: checkpoint.conf_state.clone() });
        let objects = Arc::make_mut(&mut self.objects);
        objects.extend(checkpoint.changed.iter().map(|object| (object.key.clone(), object.value.clone())));
        for key in &checkpoint.removed {
            objects.remove(key);
        }
    }

    fn index(&self) -> Option<u64> {
        self.head.as_ref().map(|head| head.index)
    }

    fn rot(&mut self, number: usize) {
        let objects = Arc::make_mut(&mut self.objects);
        let count = objects.len().max(1);
        if let Some((_, value)) = objects.iter_mut().nth(number % count) {
            *value = flip(value);
            self.is_rotten = true;
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
            self.persist(persist);
        }
    }

    fn persist(&mut self, persist: Persist) {
        // A received snapshot waits for the checkpoint that is under way.
        if persist.checkpoint.is_some() {
            self.sync_checkpoint();
        }
        self.durable.persist(persist);
    }

    pub fn write_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.pending_checkpoint = Some(checkpoint);
    }

    pub fn sync_checkpoint(&mut self) {
        if let Some(checkpoint) = self.pending_checkpoint.take() {
            let [first, second] = &mut self.durable.copies;
            first.add(&checkpoint);
            // As long as both are whole they are the same, and share their objects.
            if first.is_rotten || second.is_rotten {
                second.add(&checkpoint)
            } else {
                *second = first.clone()
            }
        }
    }

    pub fn truncate(&mut self, up_to: u64) {
        self.durable.log = self.durable.log.split_off(&(up_to + 1));
        self.durable.rotten_entry = self.durable.rotten_entry.filter(|index| *index > up_to);
    }

    /// The power goes.
    pub fn lose_unsynced(&mut self, spared: Spared) {
        let keep = spared.appends as usize % (self.pending.len() + 1);
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        for persist in pending.by_ref().take(keep) {
            self.persist(persist);
        }
        self.durable.torn = pending.next();
        if let Some(state) = self.durable.torn.as_mut().and_then(|torn| torn.checkpoint.take())
            && spared.half_snapshot
        {
            self.sync_checkpoint();
            // The first copy may be all there is of it.
            self.durable.copies[0] = Copy::of(&state);
            if !spared.half_checkpoint {
                self.durable.copies[1] = Copy::of(&state);
            }
        }
        match self.pending_checkpoint.take() {
            Some(checkpoint) if spared.checkpoint && spared.half_checkpoint => {
                self.durable.copies[0].add(&checkpoint);
            }
            Some(checkpoint) if spared.checkpoint => {
                self.pending_checkpoint = Some(checkpoint);
                self.sync_checkpoint();
            }
            Some(_) | None => {}
        }
    }

    /// What a manager finds that starts.
    ///
    /// # Errors
    /// It must not start.
    pub fn recover(&mut self) -> Result<Recovered, Damage> {
        self.durable.torn = None;
        if self.durable.rotten_entry.is_some() {
            return Err(Damage::Log);
        }
        self.durable.repair_copies()?;
        self.durable.finish_install();
        let content = &self.durable;
        let [copy, _] = &content.copies;
        let object =
            |(key, value): (&ObjectKey, &Bytes)| StoredObject { key: key.clone(), value: value.clone() };
        Ok(Recovered {
            checkpoint: copy.head.clone().map(|head| CheckpointState {
                index: head.index,
                term: head.term,
                conf_state: head.conf_state,
                objects: copy.objects.iter().map(object).collect(),
            }),
            hard_state: content.hard_state.clone(),
            entries: content.log.values().cloned().collect(),
        })
    }

    /// Whether a manager would not start from it, or could not for a little more.
    pub fn is_damaged(&self) -> bool {
        self.durable.rotten_entry.is_some() || self.durable.copies.iter().any(|copy| copy.is_rotten)
    }

    /// An entry of the log rots. `false`: there is none.
    pub fn rot_log(&mut self, number: usize) -> bool {
        let count = self.durable.log.len().max(1);
        let Some((index, entry)) = self.durable.log.iter_mut().nth(number % count) else { return false };
        entry.data = flip(&entry.data);
        self.durable.rotten_entry = Some(*index);
        true
    }

    /// An object of one copy of the checkpoint rots.
    pub fn rot_copy(&mut self, copy: usize, number: usize) {
        self.durable.copies[copy].rot(number);
    }

    /// For mutations: what rots is taken for whole.
    pub fn overlook_rot(&mut self) {
        self.durable.rotten_entry = None;
        for copy in &mut self.durable.copies {
            copy.is_rotten = false;
        }
    }

    /// For mutations: half a record is taken for whole.
    pub fn overlook_tear(&mut self) {
        let Some(mut torn) = self.durable.torn.take() else { return };
        torn.hard_state = None;
        if let Some(last) = torn.entries.last_mut() {
            last.data = last.data.slice(..last.data.len() / 2);
        }
        self.durable.persist(torn);
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

    /// For mutations: a stored object vanishes without a trace.
    pub fn lose_object(&mut self) {
        for copy in &mut self.durable.copies {
            let key = copy.objects.keys().find(|key| key.0.first() == Some(&4)).cloned();
            key.map(|key| Arc::make_mut(&mut copy.objects).remove(&key));
        }
    }
}

fn flip(bytes: &Bytes) -> Bytes {
    let mut flipped = bytes.to_vec();
    let middle = flipped.len() / 2;
    if let Some(byte) = flipped.get_mut(middle) {
        *byte ^= 0x10;
    }
    Bytes::from(flipped)
}
