//! Where the managers are, told to every node that has a session: one that only knew managers of the past could never come
//! back.

use swarm_model::{ManagerMessage, Node, NodeId};

use super::Leader;
use crate::door::Effect;
use crate::members;
use crate::store::Store;

impl Leader {
    pub(super) fn know_managers(&mut self, store: &Store) {
        self.managers = members::addresses(store);
    }

    pub(super) fn manager_addresses(&self) -> Vec<String> {
        self.managers.values().cloned().collect()
    }

    pub(super) fn follow_manager(&mut self, node: &Node, effects: &mut Vec<Effect>) {
        if self.managers.get(&node.id) != node.manager_address.as_ref() {
            match &node.manager_address {
                Some(address) => self.managers.insert(node.id, address.clone()),
                None => self.managers.remove(&node.id),
            };
            self.tell_managers(effects);
        }
    }

    pub(super) fn forget_manager(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if self.managers.remove(&node).is_some() {
            self.tell_managers(effects);
        }
    }

    fn tell_managers(&self, effects: &mut Vec<Effect>) {
        let managers = self.manager_addresses();
        effects.extend(self.fleet.sessions().map(|session| {
            let message = ManagerMessage::Managers(managers.clone());
            Effect::Session { session, message }
        }));
    }
}
