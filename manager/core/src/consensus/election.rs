//! Election timeouts from our own generator.
//!
//! raft-rs draws them from the thread's generator whenever it resets, which would make a simulated run unrepeatable. So
//! after every call that may have reset it, its draw is overwritten: by a new one of ours where the term, the role or
//! the leader changed or an election began, by the one before where not.

use raft::{RawNode, StateRole};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::ELECTION_TICKS;
use super::log::Log;
use crate::randomness::{self, Purpose};

#[derive(Debug)]
pub(super) struct Election {
    generator: ChaCha12Rng,
    timeout: usize,
    seen: Option<(u64, StateRole, u64)>,
}

impl Election {
    pub fn new(seed: [u8; 32]) -> Self {
        Self { generator: randomness::child(seed, Purpose::Election), timeout: ELECTION_TICKS, seen: None }
    }

    pub fn settle(&mut self, raw: &mut RawNode<Log>) {
        let raft = &mut raw.raft;
        let now = Some((raft.term, raft.state, raft.leader_id));
        let retried = raft.election_elapsed == 0
            && matches!(raft.state, StateRole::PreCandidate | StateRole::Candidate);
        if self.seen != now || retried {
            self.timeout = self.generator.random_range(ELECTION_TICKS..2 * ELECTION_TICKS);
            self.seen = now;
        }
        raft.set_randomized_election_timeout(self.timeout);
    }
}
