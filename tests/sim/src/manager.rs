//! Manager processes: what a manager's shell does, with a disk, a clock and peers that fail.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use swarm_agent_core as agent;
use swarm_manager_core::ManagerCore;
use swarm_manager_core::door::{CloseReason, Config, Effect, Event, Leadership, Persist, SessionId};
use swarm_model::{NodeId, Timestamp};

use super::clock::Clock;
use super::disk::{Disk, Spared};
use super::mutation::Mutation;
use super::specs;
use super::streams::Down;
use super::world::{Happening, World};

/// From an event to the end of its batch: what comes meanwhile is one batch.
const BATCH: Duration = Duration::from_micros(20);
/// Until a broken connection to a peer is noticed.
const LOSS_NOTICED: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Manager {
    pub node: NodeId,
    pub raft_id: u64,
    /// It is to run: it was told to be a manager, and has a disk.
    pub is_member: bool,
    pub disk: Disk,
    /// Counts its processes.
    pub life: u32,
    pub core: Option<Box<Process>>,
    /// The term that it leads.
    pub leads: Option<u64>,
    pub paused_until: Timestamp,
    batch_at: Option<Timestamp>,
    /// The disk does one thing after the other.
    disk_free_at: Timestamp,
    /// Peers whose loss is about to be noticed.
    losses: BTreeSet<u64>,
    clock_offset: i64,
}

/// What lives in memory.
pub struct Process {
    pub core: ManagerCore,
    clock: Clock,
    inbox: VecDeque<Event>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

impl Manager {
    pub fn new(host: usize) -> Self {
        let node = specs::node_id(host);
        Self {
            node,
            raft_id: swarm_manager_core::first_raft_id(node),
            is_member: false,
            disk: Disk::default(),
            life: 0,
            core: None,
            leads: None,
            paused_until: Timestamp::ZERO,
            batch_at: None,
            disk_free_at: Timestamp::ZERO,
            losses: BTreeSet::new(),
            clock_offset: 0,
        }
    }
}

impl World {
    pub fn start_manager(&mut self, index: usize) {
        if self.managers[index].core.is_some() || !self.managers[index].is_member {
            return;
        }
        self.jump_clock(index);
        let (skew, drift) = (self.managers[index].clock_offset, self.drift());
        let seed = self.core_dice.seed();
        let now = self.now;
        self.tamper_disk(index);
        let recovered = match self.managers[index].disk.recover() {
            Ok(recovered) => recovered,
            Err(damage) => return self.manager_refuses(index, damage),
        };
        let manager = &mut self.managers[index];
        let paces = Config::new(manager.node, manager.raft_id, seed);
        let config = Config { log: self.plan.log, sweep: self.plan.sweep, ..paces };
        let clock = Clock::start(skew, drift, now);
        let mut effects = Vec::new();
        manager.life += 1;
        match ManagerCore::new(config, recovered, clock.local(now), &mut effects) {
            Ok(core) => {
                manager.core = Some(Box::new(Process { core, clock, inbox: VecDeque::new() }));
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                return self.violate("start", format!("manager {index} cannot start: {error}: {cause}"));
            }
        }
        manager.batch_at = None;
        manager.disk_free_at = now;
        manager.losses.clear();
        self.tell(&format!("manager {index} starts"));
        self.perform_all(index, effects);
        self.plan_batch(index);
    }

    /// Between two processes the wall clock may have been set.
    fn jump_clock(&mut self, index: usize) {
        let skew = self.plan.skew;
        if skew > 0 && self.managers[index].life == 0 || self.fault_dice.per_mille(200) {
            let range = 2 * skew as u64 + 1;
            self.managers[index].clock_offset = self.fault_dice.number(0..range) as i64 - skew;
        }
    }

    pub fn drift(&mut self) -> i64 {
        let drift = self.plan.drift;
        self.core_dice.number(0..2 * drift as u64 + 1) as i64 - drift
    }

    /// Kill -9 and a power cut in one: what was not synced is lost, but for a beginning.
    pub fn crash_manager(&mut self, index: usize) {
        if self.managers[index].core.is_none() {
            return;
        }
        self.tell(&format!("manager {index} crashes"));
        let spared = Spared {
            appends: self.disk_dice.number(0..1 << 32),
            checkpoint: self.disk_dice.coin(),
            half_snapshot: self.disk_dice.coin(),
            half_checkpoint: self.damage_dice.coin(),
        };
        self.managers[index].disk.lose_unsynced(spared);
        self.manager_ended(index);
    }

    /// Its connections break.
    fn manager_ended(&mut self, index: usize) {
        let manager = &mut self.managers[index];
        manager.core = None;
        manager.leads = None;
        manager.life += 1;
        manager.paused_until = Timestamp::ZERO;
        let broken: Vec<u64> =
            self.streams.iter().filter(|(_, it)| it.manager == index).map(|(id, _)| *id).collect();
        for stream in broken {
            self.push_down(stream, Down::Closed(agent::Closed::Failed("connection reset".to_owned())));
        }
        for peer in (0..self.managers.len()).filter(|peer| *peer != index) {
            self.notice_loss(peer, index, Duration::from_millis(1));
        }
        self.operator_lost(index);
    }

    /// `manager` will notice that messages to `peer` were lost.
    fn notice_loss(&mut self, manager: usize, peer: usize, after: Duration) {
        let raft_id = self.managers[peer].raft_id;
        if self.managers[manager].core.is_none() || !self.managers[manager].losses.insert(raft_id) {
            return;
        }
        let life = self.managers[manager].life;
        let event = Event::PeerLost { peer: raft_id };
        self.schedule(after, Happening::ManagerEvent { manager, life, event });
    }

    pub fn tell_manager(&mut self, index: usize, life: u32, event: Event) {
        if self.managers[index].life != life {
            return;
        }
        if let Event::PeerLost { peer } = event {
            self.managers[index].losses.remove(&peer);
        }
        let Some(process) = &mut self.managers[index].core else { return };
        process.inbox.push_back(event);
        let at = self.now + BATCH;
        self.batch_at(index, at);
    }

    fn batch_at(&mut self, index: usize, at: Timestamp) {
        let manager = &mut self.managers[index];
        if manager.batch_at.is_none_or(|planned| planned > at) {
            manager.batch_at = Some(at);
            let life = manager.life;
            self.schedule_at(at, Happening::ManagerBatch { manager: index, life });
        }
    }

    pub fn manager_batch(&mut self, index: usize, life: u32) {
        let now = self.now;
        let manager = &mut self.managers[index];
        if manager.life != life || manager.batch_at != Some(now) {
            return;
        }
        manager.batch_at = None;
        if manager.paused_until > now {
            let at = manager.paused_until;
            return self.batch_at(index, at);
        }
        let Some(process) = &mut manager.core else { return };
        let local = process.clock.local(now);
        let mut effects = Vec::new();
        for event in process.inbox.drain(..).chain([Event::Wakeup]) {
            process.core.handle(local, event, &mut effects);
        }
        self.perform_all(index, effects);
        self.plan_batch(index);
        self.look_at(index);
    }

    fn plan_batch(&mut self, index: usize) {
        let now = self.now;
        let Some(process) = &self.managers[index].core else { return };
        if let Some(due) = process.core.next_wakeup() {
            let at = now + process.clock.until(now, due).max(Duration::from_micros(1));
            self.batch_at(index, at);
        }
    }

    fn perform_all(&mut self, index: usize, effects: Vec<Effect>) {
        let life = self.managers[index].life;
        for effect in effects {
            if self.managers[index].life != life {
                return;
            }
            self.perform(index, effect);
        }
    }

    fn perform(&mut self, index: usize, effect: Effect) {
        let life = self.managers[index].life;
        match effect {
            Effect::Persist(persist) => self.persist(index, persist),
            Effect::Checkpoint(checkpoint) => {
                let done = checkpoint.index;
                let checkpoint = self.tamper_checkpoint(checkpoint.encode());
                self.managers[index].disk.write_checkpoint(checkpoint);
                let after = self.disk_dice.micros(500..20_000);
                self.schedule(after, Happening::CheckpointDone { manager: index, life, index: done });
            }
            Effect::TruncateLog { up_to } => {
                let beyond = self.tampering.beyond(Mutation::TruncateTooMuch, 3);
                self.managers[index].disk.truncate(up_to + beyond);
            }
            Effect::SendRaft { to, message } => self.send_raft(index, to, message),
            Effect::SendSnapshot { to, message, state } => self.send_raft(index, to, state.within(&message)),
            Effect::Reply { id, result } => self.replied(index, id, result),
            Effect::Session { session, message } => {
                let message = self.tamper_down(index, session.0, message);
                self.push_down(session.0, Down::Message(message));
            }
            Effect::CloseSession { session, reason } => self.close_session(session, reason),
            Effect::Publish(publication) => self.published(index, publication),
            Effect::Leadership(leadership) => self.leadership(index, leadership),
            // The world keeps its own book of who may speak to whom, locks no disks, and reads no trail.
            Effect::Members(_)
            | Effect::Removed(_)
            | Effect::Autolock(_)
            | Effect::Operators(_)
            | Effect::Happened(_) => {}
            Effect::Stop { reason } => self.manager_stops(index, &reason),
        }
    }

    fn persist(&mut self, index: usize, persist: Persist) {
        let (life, ready) = (self.managers[index].life, persist.ready);
        let persist = self.tamper_persist(persist);
        let manager = &mut self.managers[index];
        if manager.disk.full {
            manager.disk.refused = true;
            let event = Event::PersistFailed;
            return self.schedule(BATCH, Happening::ManagerEvent { manager: index, life, event });
        }
        manager.disk.write(persist);
        let slow = self.is_chaos && self.disk_dice.per_mille(self.plan.slow_syncs);
        let took = if slow { self.disk_dice.millis(300..3_000) } else { self.disk_dice.micros(100..900) };
        let done = self.managers[index].disk_free_at.max(self.now) + took;
        self.managers[index].disk_free_at = done;
        if self.tampering.is(Mutation::AnswerPersistedEarly) {
            let event = Event::Persisted { ready };
            self.schedule(BATCH, Happening::ManagerEvent { manager: index, life, event });
        }
        let done = done + self.tamper_sync();
        self.schedule_at(done, Happening::DiskDone { manager: index, life, ready });
    }

    pub fn disk_done(&mut self, index: usize, life: u32, ready: u64) {
        if self.managers[index].life != life {
            return;
        }
        if !self.tampering.is(Mutation::SkipSync) {
            self.managers[index].disk.sync(ready);
        }
        if !self.tampering.is(Mutation::AnswerPersistedEarly) {
            self.tell_manager(index, life, Event::Persisted { ready });
        }
    }

    pub fn checkpoint_done(&mut self, index: usize, life: u32, checkpoint: u64) {
        if self.managers[index].life == life {
            if !self.tampering.is(Mutation::SkipCheckpoint) {
                self.managers[index].disk.sync_checkpoint();
            }
            self.tell_manager(index, life, Event::Checkpointed { index: checkpoint });
        }
    }

    fn send_raft(&mut self, from: usize, to: u64, message: Bytes) {
        let Some(peer) = self.manager_with(to) else { return };
        if !self.network.passes(from, peer) || self.managers[peer].core.is_none() || self.network.loses() {
            return self.notice_loss(from, peer, LOSS_NOTICED);
        }
        let Some(message) = self.tamper_raft(message) else { return };
        let copies = if self.network.doubles() { 2 } else { 1 };
        for _ in 0..copies {
            let life = self.managers[peer].life;
            let at = self.network.arrival(from, peer, self.now);
            let event = Event::Raft { message: message.clone() };
            self.schedule_at(at, Happening::ManagerEvent { manager: peer, life, event });
        }
    }

    fn close_session(&mut self, session: SessionId, reason: CloseReason) {
        if self.tampering.is(Mutation::KeepSessionsOfDeposed)
            && matches!(reason, CloseReason::NotLeader { .. })
        {
            return;
        }
        let closed = match &reason {
            CloseReason::NotLeader { leader } => {
                let leader = leader.and_then(|id| self.manager_with(id)).map(specs::address);
                agent::Closed::NotLeader { leader }
            }
            CloseReason::Removed { .. } => agent::Closed::Removed,
            CloseReason::UnknownNode(_)
            | CloseReason::Superseded(_)
            | CloseReason::RoleChanged(_)
            | CloseReason::Silent(_)
            | CloseReason::Stopped => agent::Closed::Failed(reason.to_string()),
        };
        if let Some(stream) = self.streams.get_mut(&session.0) {
            stream.up.deaf = true;
        }
        self.push_down(session.0, Down::Closed(closed));
    }

    fn leadership(&mut self, index: usize, leadership: Leadership) {
        self.tell(&format!("manager {index}: {leadership:?}"));
        self.managers[index].leads = None;
        if let Leadership::Leader { term } = leadership {
            self.managers[index].leads = Some(term);
            let process = (index, self.managers[index].life);
            let other = *self.leaders.entry(term).or_insert(process);
            if other != process {
                let text = format!(
                    "manager {index} leads term {term}, as manager {} did in another process",
                    other.0
                );
                self.violate("one leader", text);
            }
            self.checks.seen.begin(term);
            self.watch_leader(index);
        }
    }

    fn manager_stops(&mut self, index: usize, reason: &str) {
        self.tell(&format!("manager {index} stops: {reason}"));
        if !std::mem::take(&mut self.managers[index].disk.refused) {
            self.violate("stop", format!("manager {index} stopped: {reason}"));
        }
        self.crash_manager(index);
        let after = self.fault_dice.millis(100..2_000);
        self.schedule(after, Happening::StartManager { manager: index });
    }
}
