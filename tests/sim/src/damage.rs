//! Disks that rot or are lost, and the operator who replaces the managers on them: each is removed and its machine joins
//! again as another node, as the product's messages say. Never more at a time than the cluster can do without.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_manager_core::api::Request;
use swarm_model::NodeRole;

use super::disk::Damage;
use super::world::World;

/// Since the operator last changed who is a manager: such changes are through, or will not come.
const ROLES_AT_REST: Duration = Duration::from_secs(2);

impl World {
    /// Something happens to the disk of some manager.
    pub fn damage_some_disk(&mut self) {
        let members: Vec<usize> =
            (0..self.managers.len()).filter(|manager| self.managers[*manager].is_member).collect();
        let (kind, number) = (self.damage_dice.below(6), self.damage_dice.below(1 << 20));
        let Some(manager) = self.damage_dice.pick(&members).copied() else { return };
        match kind {
            0 | 1 => self.rot_one_copy(manager, kind, number),
            _ if !self.may_lose(manager) => {}
            2 => {
                self.tell(&format!("both checkpoints of manager {manager} rot"));
                (0..2).for_each(|copy| self.managers[manager].disk.rot_copy(copy, number));
            }
            3 => {
                if self.managers[manager].disk.rot_log(number) {
                    self.tell(&format!("the log of manager {manager} rots"));
                }
            }
            _ => self.lose_disk(manager),
        }
    }

    /// The other one is enough.
    fn rot_one_copy(&mut self, manager: usize, copy: usize, number: usize) {
        if !self.managers[manager].disk.is_damaged() {
            self.tell(&format!("checkpoint {copy} of manager {manager} rots"));
            self.managers[manager].disk.rot_copy(copy, number);
        }
    }

    fn lose_disk(&mut self, manager: usize) {
        self.tell(&format!("the disk of host {manager} is lost"));
        if self.tamper_loss(manager) {
            return;
        }
        self.wipe(manager);
        self.hosts[manager].is_lost = true;
    }

    pub fn manager_refuses(&mut self, manager: usize, damage: Damage) {
        self.tell(&format!("manager {manager} does not start, its disk is damaged: {damage:?}"));
        self.managers[manager].is_member = false;
        self.hosts[manager].is_lost = true;
    }

    /// The operator gets rid of a node that will not come back.
    pub fn remove_lost(&mut self, host: usize) {
        let node = self.hosts[host].node.to_string();
        self.send(Request::RemoveNode { node, force: true }, false);
    }

    /// Managers that do not come back, or would not if they were started again.
    pub fn has_damage(&self) -> bool {
        self.lost().next().is_some()
    }

    fn lost(&self) -> impl Iterator<Item = usize> {
        (0..self.managers.len()).filter(|manager| {
            let (host, seat) = (&self.hosts[*manager], &self.managers[*manager]);
            host.is_lost || seat.is_member && seat.disk.is_damaged()
        })
    }

    /// A majority of those that vote is left and knows that it is one, and no change is under way that might make it less.
    fn may_lose(&self, manager: usize) -> bool {
        let running = self.managers.iter().filter_map(|it| it.core.as_ref());
        let newest = running.max_by_key(|process| process.core.replica().applied());
        let Some(voters) = newest.map(|process| process.core.voters()) else { return false };
        let managers = self.truth.nodes.values().filter(|node| node.spec.role == NodeRole::Manager);
        let wanted: BTreeSet<u64> = managers.filter_map(|node| node.raft_id).collect();
        let lost: BTreeSet<usize> = self.lost().chain([manager]).collect();
        // Who was not told of the newest voter waits for a majority of those before.
        let knows = |seat: &usize| {
            let core = self.managers[*seat].core.as_ref();
            !lost.contains(seat) && core.is_some_and(|process| process.core.voters() == voters)
        };
        let know = (0..self.managers.len()).filter(knows).count();
        voters == wanted
            && voters.contains(&self.managers[manager].raft_id)
            && lost.len() <= (voters.len() - 1) / 2
            && know > voters.len() / 2
            && self.now.since(self.operator.roles_changed_at) > ROLES_AT_REST
    }
}
