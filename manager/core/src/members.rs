//! Who is to be a Raft member: brings the membership in line with the nodes that are to be managers, one change at a time.
//!
//! Level-triggered: a function of the replicated nodes, of the membership, and of who is reachable, so a new leader goes
//! on where the old one stopped. A manager enters as a learner, becomes a voter once it has the log, and leaves in one
//! step. No change is made that would leave the voters without a majority that can be reached.
//!
//! It changes nothing itself: `core/members.rs` looks around for it and takes its steps.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{NodeId, NodeRole};

use crate::api::ManagerStatus;
use crate::door::Member;
use crate::store::Store;

/// Managers of one cluster. More cost every write more, and protect no better.
pub(crate) const MAX_MANAGERS: usize = 15;

/// The number among the Raft members of a node that has never been one before: of its id, so that a manager knows its
/// own before it knows anything else.
pub fn first_raft_id(node: NodeId) -> u64 {
    let id = node.as_u128();
    let folded = (id >> 64 ^ id) & u128::from(u64::MAX);
    u64::try_from(folded).expect("masked to 64 bits").max(1)
}

/// `host:port` of every manager.
pub(crate) fn addresses(store: &Store) -> BTreeMap<NodeId, String> {
    store.nodes().filter_map(|node| Some((node.id, node.manager_address.clone()?))).collect()
}

/// The Raft membership as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
}

/// What is known of the managers as Raft members.
#[derive(Debug, Default)]
pub(crate) struct Council {
    pub membership: Membership,
    pub reachable: BTreeSet<u64>,
    /// As last told to the shell.
    pub told: Vec<Member>,
    /// An action about a member that left is under way.
    pub unseating: bool,
}

impl Council {
    pub fn status(&self, raft_id: Option<u64>, role: NodeRole, leader: u64) -> Option<ManagerStatus> {
        let Some(id) = raft_id else {
            return (role == NodeRole::Manager).then_some(ManagerStatus::Joining);
        };
        Some(match (role, self.membership.voters.contains(&id)) {
            (NodeRole::Worker, _) => ManagerStatus::Leaving,
            (NodeRole::Manager, _) if id == leader => ManagerStatus::Leader,
            (NodeRole::Manager, _) if !self.reachable.contains(&id) => ManagerStatus::Unreachable,
            (NodeRole::Manager, true) => ManagerStatus::Reachable,
            (NodeRole::Manager, false) => ManagerStatus::Joining,
        })
    }
}

/// Raft ids of the nodes that are to be managers and can be.
pub(crate) fn wanted(store: &Store) -> BTreeSet<u64> {
    let managers = store.managers().filter(|node| node.spec.role == NodeRole::Manager);
    managers.filter_map(|node| node.raft_id).collect()
}

/// One change of the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberChange {
    AddLearner(u64),
    Promote(u64),
    Remove(u64),
}

/// What the leader does next about the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Change(MemberChange),
    /// This leader is to be no manager: another one removes it.
    HandOver {
        to: u64,
    },
}

/// What is decided from.
pub(crate) struct Situation<'a> {
    pub own: u64,
    pub membership: &'a Membership,
    /// Who is to be a member.
    pub wanted: &'a BTreeSet<u64>,
    /// Heard of within the last moments, this manager included.
    pub reachable: &'a BTreeSet<u64>,
    /// Members that have nearly all of the log.
    pub caught_up: &'a dyn Fn(u64) -> bool,
}

impl Situation<'_> {
    /// `None`: all is as wanted, or it has to wait.
    pub fn next_step(&self) -> Option<Step> {
        // Nobody wanted: this manager does not know its cluster yet.
        if self.wanted.is_empty() {
            return None;
        }
        let Membership { voters, learners } = self.membership;
        let change = |change| Some(Step::Change(change));
        if let Some(id) = learners.iter().find(|id| !self.wanted.contains(id)) {
            return change(MemberChange::Remove(*id));
        }
        if voters.contains(&self.own) && !self.wanted.contains(&self.own) {
            return self.successor().map(|to| Step::HandOver { to });
        }
        let leaving = voters.iter().filter(|id| !self.wanted.contains(id));
        if let Some(id) = leaving.copied().find(|id| self.keeps_quorum(&without(voters, *id))) {
            return change(MemberChange::Remove(id));
        }
        let is_member = |id: &u64| voters.contains(id) || learners.contains(id);
        if let Some(id) = self.wanted.iter().find(|id| !is_member(id)) {
            return change(MemberChange::AddLearner(*id));
        }
        // One that was never started has as much of a short log as it needs, and would only be missing when votes are counted.
        let alive = learners.intersection(self.reachable).copied();
        let ready = alive.filter(|id| (self.caught_up)(*id));
        let mut ready = ready.filter(|id| self.keeps_quorum(&with(voters, *id)));
        ready.next().and_then(|id| change(MemberChange::Promote(id)))
    }

    /// Who may lead instead of this manager.
    fn successor(&self) -> Option<u64> {
        let candidates = self.membership.voters.intersection(self.wanted).copied();
        candidates
            .filter(|id| self.reachable.contains(id) && (self.caught_up)(*id))
            .find(|id| *id != self.own)
    }

    fn keeps_quorum(&self, voters: &BTreeSet<u64>) -> bool {
        has_quorum(voters, self.reachable)
    }
}

/// Whether a majority of `voters` can be reached.
pub(crate) fn has_quorum(voters: &BTreeSet<u64>, reachable: &BTreeSet<u64>) -> bool {
    voters.intersection(reachable).count() > voters.len() / 2
}

pub(crate) fn without(voters: &BTreeSet<u64>, id: u64) -> BTreeSet<u64> {
    voters.iter().copied().filter(|voter| *voter != id).collect()
}

fn with(voters: &BTreeSet<u64>, id: u64) -> BTreeSet<u64> {
    voters.iter().copied().chain([id]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leader is 1; `members` as "1 2 +3" (a plus marks a learner).
    fn check(members: &str, wanted: &[u64], reachable: &[u64], behind: &[u64], expect: &str) {
        let mut membership = Membership::default();
        for word in members.split_whitespace() {
            match word.strip_prefix('+') {
                Some(learner) => membership.learners.insert(learner.parse().unwrap()),
                None => membership.voters.insert(word.parse().unwrap()),
            };
        }
        let situation = Situation {
            own: 1,
            membership: &membership,
            wanted: &wanted.iter().copied().collect(),
            reachable: &reachable.iter().copied().collect(),
            caught_up: &|id| !behind.contains(&id),
        };
        let step = situation.next_step().map_or("nothing".to_owned(), |step| format!("{step:?}"));
        assert_eq!(step, expect, "{members} wanted {wanted:?} reachable {reachable:?} behind {behind:?}");
    }

    #[test]
    fn a_manager_learns_before_it_votes() {
        check("1", &[1], &[1], &[], "nothing");
        check("1", &[1, 2, 3], &[1], &[], "Change(AddLearner(2))");
        check("1 +2", &[1, 2, 3], &[1, 2], &[2], "Change(AddLearner(3))");
        check("1 +2 +3", &[1, 2, 3], &[1, 2, 3], &[2], "Change(Promote(3))");
        check("1 +2 3", &[1, 2, 3], &[1, 2, 3], &[2], "nothing");
        check("1 2 3", &[1, 2, 3], &[1, 2, 3], &[], "nothing");
    }

    #[test]
    fn who_is_not_wanted_leaves_and_the_leader_hands_over_first() {
        check("1 2 3", &[1, 2], &[1, 2, 3], &[], "Change(Remove(3))");
        check("1 2 3", &[1, 2], &[1, 2], &[], "Change(Remove(3))");
        check("1 2 3", &[2, 3], &[1, 2, 3], &[2], "HandOver { to: 3 }");
        check("1 2 3", &[2, 3], &[1], &[], "nothing");
        check("1 2 +3", &[1, 2], &[1, 2], &[], "Change(Remove(3))");
        check("1 2", &[1], &[1], &[], "Change(Remove(2))");
    }

    #[test]
    fn nothing_is_done_that_loses_quorum() {
        check("1 2 3", &[1, 2], &[1, 3], &[], "nothing");
        check("1 +2", &[1, 2], &[1], &[], "nothing");
        check("1 2 +3", &[1, 2, 3], &[1, 2], &[], "nothing");
        check("1 2 +3", &[1, 2, 3], &[1, 3], &[], "Change(Promote(3))");
        check("1 2 3", &[], &[1, 2, 3], &[], "nothing");
    }

    #[test]
    fn raft_ids_are_never_zero() {
        assert_eq!(first_raft_id(NodeId::from_u128(0)), 1);
        assert_eq!(first_raft_id(NodeId::from_u128(5 << 64 | 5)), 1);
        assert_ne!(first_raft_id(NodeId::from_u128(1 << 64)), first_raft_id(NodeId::from_u128(2)));
    }
}
