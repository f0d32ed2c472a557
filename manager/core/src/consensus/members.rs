//! The Raft membership: as it is, who of it is reachable, and its changes on their way into the log.

use std::collections::BTreeSet;
use std::time::Duration;

use raft::StateRole;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use swarm_model::Timestamp;

use super::Consensus;
use crate::members::{MemberChange, Membership};

/// A member that was not heard of for so long counts as unreachable: 16 heartbeats.
const SILENCE: Duration = Duration::from_secs(1);
/// Entries that a learner may be behind when it becomes a voter: a moment's writes.
const MAX_BEHIND: u64 = 256;

impl Consensus {
    pub fn membership(&self) -> Membership {
        let conf = self.conf_state();
        Membership {
            voters: conf.voters.iter().chain(&conf.voters_outgoing).copied().collect(),
            learners: conf.learners.iter().chain(&conf.learners_next).copied().collect(),
        }
    }

    pub(super) fn hear(&mut self, peer: u64, now: Timestamp) {
        if self.raw.raft.prs().get(peer).is_some() {
            self.heard.insert(peer, now);
        }
    }

    /// This member, and those that it heard of a moment ago.
    pub fn reachable(&self, now: Timestamp) -> BTreeSet<u64> {
        let heard = self.heard.iter().filter(|(_, at)| now.since(**at) < SILENCE).map(|(peer, _)| *peer);
        heard.chain([self.raw.raft.id]).collect()
    }

    /// Whether a member has nearly all of this leader's log on its disk, and anything at all. Not whether raft-rs replicates
    /// to it eagerly: after a snapshot it does so only with the next entry.
    pub fn has_caught_up(&self, peer: u64) -> bool {
        let last = self.raw.raft.raft_log.last_index();
        let has_enough = |matched: u64| matched > 0 && matched + MAX_BEHIND >= last;
        self.raw.raft.prs().get(peer).is_some_and(|progress| has_enough(progress.matched))
    }

    /// Leads, and neither a change of the membership nor a hand-over is under way.
    pub fn may_change_members(&self) -> bool {
        self.may_decide() && !self.raw.raft.has_pending_conf() && !self.is_handing_over()
    }

    /// Nothing is proposed while another member is asked to take over.
    pub fn is_handing_over(&self) -> bool {
        self.is_leader() && self.raw.raft.lead_transferee.is_some()
    }

    /// Proposes a change. One that is refused, as when too much is under way, is decided again.
    pub fn change_members(&mut self, change: MemberChange) {
        let (change_type, node_id) = match change {
            MemberChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
            MemberChange::Promote(id) => (ConfChangeType::AddNode, id),
            MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let single = ConfChangeSingle { change_type: change_type as i32, node_id };
        let change = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
        let _ = self.raw.propose_conf_change(Vec::new(), change);
    }

    /// Asks a voter to take over; given up after an election timeout.
    pub fn hand_over(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    /// After a change was applied: who left is forgotten, and a leader that left leads no more.
    pub(super) fn membership_changed(&mut self) {
        let raft = &mut self.raw.raft;
        self.heard.retain(|peer, _| raft.prs().get(*peer).is_some());
        if raft.state == StateRole::Leader && !raft.promotable() {
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
        }
        self.election.settle(&mut self.raw);
    }
}
