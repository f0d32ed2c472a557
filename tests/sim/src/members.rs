//! Nodes that become managers, stop being managers, leave and come again: what their shells do about it, once they can
//! hear of it.

use std::time::Duration;

use swarm_manager_core::api::Request;
use swarm_model::{Node, NodeRole};

use super::disk::Disk;
use super::specs;
use super::world::{Happening, World};

/// Between two looks at what the managers say that a node is to be.
const EVERY: Duration = Duration::from_millis(100);

impl World {
    pub fn look_at_members(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hears_leader(host) {
                self.follow_membership(host);
            }
        }
        self.schedule(EVERY, Happening::Members);
    }

    fn hears_leader(&self, host: usize) -> bool {
        self.leader()
            .is_some_and(|leader| self.network.passes(host, leader) && self.network.passes(leader, host))
    }

    fn follow_membership(&mut self, host: usize) {
        let node = self.truth.nodes.get(&self.hosts[host].node).cloned();
        match node {
            Some(_) if self.hosts[host].is_lost => self.remove_lost(host),
            None if self.hosts[host].is_lost => {
                self.hosts[host].is_lost = false;
                self.hosts[host].joins_as_manager = true;
                self.come_anew(host);
            }
            Some(_) if self.hosts[host].is_removed => {
                self.hosts[host].is_removed = false;
                self.hosts[host].joins_as_manager = false;
                self.power_on(host);
            }
            Some(node) if self.hosts[host].is_on => self.follow_role(host, &node),
            Some(_) => {}
            // It was admitted and removed again before it heard of that.
            None if self.checks.removed.contains(&self.hosts[host].node) => self.come_anew(host),
            None if self.hosts[host].is_removed => {
                let admit = specs::new_node(host, self.number_of(host), self.hosts[host].joins_as_manager);
                self.send(Request::AdmitNode(admit), false);
            }
            None => self.come_anew(host),
        }
    }

    /// The node was removed: its machine is wiped, and asks to be another node.
    fn come_anew(&mut self, host: usize) {
        self.wipe(host);
        let node = specs::node_id(self.nodes_joined);
        self.nodes_joined += 1;
        self.hosts[host].node = node;
        self.managers[host].node = node;
    }

    fn number_of(&self, host: usize) -> usize {
        self.hosts[host].node.as_u128() as usize - 1
    }

    fn follow_role(&mut self, host: usize, node: &Node) {
        let is_seated = self.managers[host].is_member;
        match (node.spec.role, node.raft_id) {
            (NodeRole::Manager, None) => {
                let seat = Request::SeatManager { node: node.id, address: specs::address(host) };
                self.send(seat, false);
            }
            (NodeRole::Manager, Some(raft_id)) if !is_seated || self.managers[host].raft_id != raft_id => {
                self.unseat(host);
                self.tell(&format!("host {host} becomes a manager"));
                self.managers[host].raft_id = raft_id;
                self.managers[host].is_member = true;
                self.start_manager(host);
            }
            (NodeRole::Worker, None) if is_seated => self.unseat(host),
            (NodeRole::Manager | NodeRole::Worker, _) => {}
        }
    }

    /// A manager that was taken out never goes on with its log.
    fn unseat(&mut self, host: usize) {
        self.crash_manager(host);
        self.managers[host].is_member = false;
        self.managers[host].disk = Disk::default();
    }

    /// What is not as the nodes are to be, if anything.
    pub fn missing_member(&self) -> Option<String> {
        (0..self.hosts.len()).find_map(|host| {
            let Some(node) = self.truth.nodes.get(&self.hosts[host].node) else {
                return Some(format!("host {host} is not in the cluster"));
            };
            let is_manager = node.spec.role == NodeRole::Manager;
            let is_seated = self.managers[host].is_member && node.raft_id.is_some();
            (is_manager != is_seated).then(|| format!("host {host} is to be {:?}", node.spec.role))
        })
    }
}
