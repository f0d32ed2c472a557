//! A manager process: its core while it lives, its disk all the time.

use swarm_manager_core::ManagerCore;
use swarm_manager_core::door::{Config, Effect};
use swarm_model::Timestamp;

use super::disk::Disk;
use super::specs;

pub struct Manager {
    index: usize,
    pub core: Option<ManagerCore>,
    pub disk: Disk,
    /// Counts its processes.
    pub life: u32,
    /// The term that it leads.
    pub leads: Option<u64>,
    /// No message of another manager comes through.
    pub is_cut: bool,
    pub wakeup_at: Option<Timestamp>,
}

impl Manager {
    pub fn new(index: usize) -> Self {
        Self {
            index,
            core: None,
            disk: Disk::default(),
            life: 0,
            leads: None,
            is_cut: false,
            wakeup_at: None,
        }
    }

    pub fn start(&mut self, seed: [u8; 32], now: Timestamp) -> Vec<Effect> {
        let config = Config::new(specs::node_id(self.index), self.index as u64 + 1, seed);
        let mut effects = Vec::new();
        self.core = Some(
            ManagerCore::new(config, self.disk.recover(), now, &mut effects).expect("the disk is whole"),
        );
        self.life += 1;
        self.wakeup_at = None;
        effects
    }

    pub fn crash(&mut self, keep: u64) {
        self.core = None;
        self.leads = None;
        self.life += 1;
        self.disk.lose_unsynced(keep);
    }
}
