//! When this member asks for votes.
//!
//! Election timeouts come from our own generator:
//! raft-rs draws them from the thread's generator whenever it resets, which would make a simulated run unrepeatable. So
//! after every call that may have reset it, its draw is overwritten: by a new one of ours where the term, the role or
//! the leader changed or an election began, by the one before where not.

use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, RawNode, StateRole};
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::log::Log;
use super::{Consensus, ELECTION_TICKS};
use crate::randomness::{self, Purpose};

/// Between the turns of two members after a lost leader: time for two rounds of votes with their syncs.
const TURN_TICKS: usize = 2;
/// What the lost leader sent before it was lost may still arrive for so long; heard then, it would lead again for this
/// member, with a new lease. One that lives is heard again after it.
const DEAF_TICKS: usize = 2;
/// Turns of one member. Who is not elected in them waits for its election timeout as ever.
const MAX_TURNS: u32 = 4;

#[derive(Debug)]
pub(super) struct Election {
    generator: ChaCha12Rng,
    timeout: usize,
    seen: Option<(u64, StateRole, u64)>,
    succession: Option<Succession>,
}

/// The leader's connection broke. All who notice it would ask for votes at the same moment, and none would win: they
/// take turns by their ids. Who does not know yet that the leader is gone keeps to its lease and does not answer, so each
/// asks again.
#[derive(Debug)]
struct Succession {
    /// Who led.
    lost: u64,
    /// Ticks for which that one is not heard.
    deaf: usize,
    /// Members that may be elected, in the order of their ids.
    heirs: usize,
    /// This member's place among them.
    rank: usize,
    /// Ticks until its next turn.
    wait: usize,
    turns_left: u32,
    /// Of the last look. When it rises somebody asks for votes; should that fail, the turns begin anew.
    term: u64,
}

impl Election {
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            generator: randomness::child(seed, Purpose::Election),
            timeout: ELECTION_TICKS,
            seen: None,
            succession: None,
        }
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

impl Consensus {
    /// The leader can no longer be reached: it is forgotten, so that its lease keeps nobody from having this member's
    /// vote, and this member asks for votes when it is its turn.
    pub(super) fn succeed(&mut self, leader: u64) {
        let raft = &mut self.raw.raft;
        let term = raft.term;
        raft.become_follower(term, INVALID_ID);
        let id = self.raw.raft.id;
        let mut heirs = self.membership().voters;
        heirs.remove(&leader);
        let rank = heirs.range(..id).count();
        let (heirs, wait) = (heirs.len(), rank * TURN_TICKS);
        self.election.succession = Some(Succession {
            lost: leader,
            deaf: DEAF_TICKS,
            heirs,
            rank,
            wait,
            turns_left: MAX_TURNS,
            term,
        });
        self.election.settle(&mut self.raw);
        self.take_turn();
    }

    /// Once per tick.
    pub(super) fn advance_succession(&mut self) {
        let raft = &self.raw.raft;
        let (settled, term) = (raft.leader_id != INVALID_ID, raft.term);
        let Some(succession) = &mut self.election.succession else { return };
        if settled || succession.turns_left == 0 {
            self.election.succession = None;
            return;
        }
        if succession.term != term {
            succession.term = term;
            succession.wait = (succession.rank + 1) * TURN_TICKS;
        }
        succession.deaf = succession.deaf.saturating_sub(1);
        succession.wait = succession.wait.saturating_sub(1);
        self.take_turn();
    }

    fn take_turn(&mut self) {
        let Some(succession) = &mut self.election.succession else { return };
        if succession.wait > 0 || succession.turns_left == 0 {
            return;
        }
        succession.wait = succession.heirs * TURN_TICKS;
        succession.turns_left -= 1;
        self.campaign();
    }

    /// Whether a message is the last that was heard of a leader that is lost, and may be dropped: appends and heartbeats
    /// come again, but a snapshot's sender, should it live, waits for the answer.
    pub(super) fn is_of_the_lost(&self, message: &Message) -> bool {
        if message.msg_type == MessageType::MsgSnapshot as i32 {
            return false;
        }
        let lost = self.election.succession.as_ref().filter(|it| it.deaf > 0);
        lost.is_some_and(|it| it.lost == message.from && it.term == message.term)
    }

    /// Who asks for a vote and has less of the log cannot win. Where only one other member can, it need not wait for its
    /// turn.
    pub(super) fn overtake(&mut self, asked: &Message) {
        let asks = asked.msg_type == MessageType::MsgRequestPreVote as i32;
        let raft = &self.raw.raft;
        if asks
            && raft.leader_id == INVALID_ID
            && raft.state == StateRole::Follower
            && !raft.raft_log.is_up_to_date(asked.index, asked.log_term)
            && let Some(succession) = &mut self.election.succession
            && succession.heirs == 2
            && succession.turns_left > 0
        {
            succession.wait = 0;
            self.take_turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::{BufMut, Bytes, BytesMut};
    use prost011::Message as _;
    use raft::eraftpb::{ConfState, Snapshot, SnapshotMetadata};
    use swarm_model::{NodeId, Timestamp};

    use super::*;
    use crate::door::{CheckpointState, Config, Recovered};

    const TERM: u64 = 3;
    const LEADER: u64 = 2;

    /// Member 1 of three, that has applied entry 5.
    fn follower() -> Consensus {
        let config = Config::new(NodeId::from_u128(1), 1, [7; 32]);
        let checkpoint = CheckpointState {
            index: 5,
            term: TERM,
            conf_state: Bytes::from(members().encode_to_vec()),
            objects: Vec::new(),
        };
        let recovered = Recovered { checkpoint: Some(checkpoint), ..Recovered::default() };
        Consensus::recover(&config, recovered, Timestamp::ZERO).expect("a state that fits together")
    }

    fn members() -> ConfState {
        ConfState { voters: vec![1, 2, 3], ..ConfState::default() }
    }

    fn hear(consensus: &mut Consensus, kind: MessageType, state: Bytes) -> Option<u64> {
        let metadata = SnapshotMetadata { conf_state: Some(members()), index: 9, term: TERM };
        let mut message = Message { from: LEADER, to: 1, term: TERM, ..Message::default() };
        message.set_msg_type(kind);
        message.snapshot =
            (!state.is_empty()).then(|| Snapshot { metadata: Some(metadata), ..Snapshot::default() });
        consensus.step(&message.encode_to_vec(), state, Timestamp::ZERO).expect("a message of the leader");
        let mut effects = Vec::new();
        let rounds = std::iter::from_fn(|| consensus.next_round(&mut effects));
        rounds.filter_map(|round| round.install).map(|installed| installed.index).last()
    }

    fn state() -> Bytes {
        let mut object = BytesMut::new();
        for part in [&b"key"[..], b"value"] {
            object.put_u32(part.len() as u32);
            object.put_slice(part);
        }
        object.freeze()
    }

    #[test]
    fn of_a_leader_just_given_up_a_snapshot_is_taken_and_a_heartbeat_is_not() {
        let mut consensus = follower();
        hear(&mut consensus, MessageType::MsgHeartbeat, Bytes::new());
        assert_eq!(consensus.leader(), Some(LEADER));
        consensus.peer_lost(LEADER);
        assert_eq!((consensus.leader(), consensus.term()), (None, TERM), "it asks who would vote for it");
        hear(&mut consensus, MessageType::MsgHeartbeat, Bytes::new());
        assert_eq!(consensus.leader(), None, "what it sent before it was lost makes nobody a leader");
        // Its sender, should it live, sends nothing more until this is answered.
        assert_eq!(hear(&mut consensus, MessageType::MsgSnapshot, state()), Some(9));
    }

    #[test]
    fn a_lost_leader_that_lives_is_heard_again_after_two_ticks() {
        let mut consensus = follower();
        hear(&mut consensus, MessageType::MsgHeartbeat, Bytes::new());
        consensus.peer_lost(LEADER);
        let mut now = Timestamp::ZERO;
        let heard_after = (1..).find(|_| {
            now = now + Duration::from_millis(30);
            consensus.advance_clock(now);
            hear(&mut consensus, MessageType::MsgHeartbeat, Bytes::new());
            consensus.leader().is_some()
        });
        assert_eq!(heard_after, Some(DEAF_TICKS));
    }
}
