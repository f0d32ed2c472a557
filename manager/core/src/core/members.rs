//! Takes the steps of [`crate::members`], and tells the shell who the members are and whom to refuse. Decides nothing.

use swarm_model::NodeRole;

use crate::core::ManagerCore;
use crate::core::writes::Proposer;
use crate::door::{Effect, Member};
use crate::members::{Membership, Situation, Step, wanted};
use crate::store::Action;

impl ManagerCore {
    /// Before requests are admitted and views are shown: they look at it.
    pub(super) fn look_around(&mut self) {
        let membership = self.consensus.membership();
        let reachable = self.consensus.reachable(self.now);
        if membership == self.council.membership && reachable == self.council.reachable {
            return;
        }
        self.council.membership = membership;
        self.council.reachable = reachable;
        for node in self.store.managers() {
            self.watch.node(node.id);
        }
    }

    /// One step towards the membership that is wanted.
    pub(super) fn steer_members(&mut self) {
        if self.leader.is_none() || !self.consensus.may_change_members() {
            return;
        }
        let wanted = wanted(&self.store);
        let consensus = &self.consensus;
        let situation = Situation {
            own: self.config.raft_id,
            membership: &self.council.membership,
            wanted: &wanted,
            reachable: &self.council.reachable,
            caught_up: &|id| consensus.has_caught_up(id),
        };
        match situation.next_step() {
            Some(Step::Change(change)) => {
                tracing::info!(?change, "changing the members");
                self.consensus.change_members(change);
            }
            Some(Step::HandOver { to }) => {
                tracing::info!(raft.to = to, "handing leadership over: this node is to be no manager");
                self.consensus.hand_over(to);
            }
            None => self.unseat(),
        }
    }

    /// Lets a new root take over once every node has a certificate of it.
    pub(super) fn steer_rotation(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let Some(root_digest) = leader.finished_rotation(&self.store) else { return };
        match self.propose(None, vec![Action::FinishRootRotation { root_digest }]) {
            Ok(proposal) => self.writes.add(proposal, Proposer::Rotation),
            Err(_) => {
                if let Some(leader) = &mut self.leader {
                    leader.rotation_unfinished();
                }
            }
        }
    }

    /// Nodes that were demoted and have left are told so by the store.
    fn unseat(&mut self) {
        let Membership { voters, learners } = &self.council.membership;
        let is_member = |id: &u64| voters.contains(id) || learners.contains(id);
        let left = self.store.managers().filter(|node| node.spec.role == NodeRole::Worker);
        let left = left.filter_map(|node| Some((node.id, node.raft_id.filter(|id| !is_member(id))?)));
        let actions: Vec<_> = left.map(|(node, raft_id)| Action::UnseatManager { node, raft_id }).collect();
        if actions.is_empty() || self.council.unseating {
            return;
        }
        if let Ok(proposal) = self.propose(None, actions) {
            self.council.unseating = true;
            self.writes.add(proposal, Proposer::Unseat);
        }
    }

    pub(super) fn unseated(&mut self) {
        self.council.unseating = false;
    }

    /// Whom the shell may meet as managers.
    pub(super) fn tell_members(&mut self, effects: &mut Vec<Effect>) {
        let managers = self.store.managers();
        let seated = managers.filter_map(|node| {
            Some(Member { raft_id: node.raft_id?, node: node.id, address: node.manager_address.clone()? })
        });
        let members: Vec<Member> = seated.collect();
        if members != self.council.told {
            self.council.told.clone_from(&members);
            effects.push(Effect::Members(members));
        }
    }
}

impl ManagerCore {
    /// Whom the shell is to refuse.
    pub(super) fn tell_removed(&mut self, effects: &mut Vec<Effect>) {
        let removed = self.store.removed_nodes();
        if !removed.is_same(&self.told_removed) {
            self.told_removed = removed.clone();
            effects.push(Effect::Removed(removed.clone()));
        }
        let operators = self.store.operators();
        if !operators.is_same(&self.told_operators) {
            self.told_operators = operators.clone();
            effects.push(Effect::Operators(operators.clone()));
        }
    }
}

impl ManagerCore {
    /// How the shell is to keep the key of its disk. Nothing is known before there is a cluster.
    pub(super) fn tell_autolock(&mut self, effects: &mut Vec<Effect>) {
        let Some(cluster) = self.store.cluster() else { return };
        if self.told_autolock.as_ref() != Some(&cluster.autolock) {
            self.told_autolock = Some(cluster.autolock.clone());
            effects.push(Effect::Autolock(cluster.autolock.clone()));
        }
    }
}
