//! Actions on nodes.

use std::sync::Arc;

use swarm_model::{EngineDescription, Node, NodeId, NodeRole, NodeSpec, RemovedNode};

use super::{ApplyError, Changed, Result, Stamp};
use crate::members;
use crate::store::Store;
use crate::store::object::Key;

impl Store {
    pub(super) fn create_node(&mut self, stamp: Stamp, node: Node) -> Result {
        if self.nodes.contains_key(&node.id) {
            return Err(ApplyError::IdTaken("node"));
        }
        if self.node_index_taken(node.index) {
            return Err(ApplyError::NodeIndexTaken(node.index));
        }
        let id = node.id;
        self.put_node(Arc::new(Node {
            version: stamp.index,
            created_at: stamp.at,
            updated_at: stamp.at,
            ..node
        }));
        Ok(Changed::Node(id))
    }

    pub(in crate::store) fn put_node(&mut self, mut node: Arc<Node>) {
        if node.spec.role == NodeRole::Manager && node.manager_address.is_some() && node.raft_id.is_none() {
            Arc::make_mut(&mut node).raft_id = Some(members::first_raft_id(node.id));
        }
        match self.nodes.get(&node.id) {
            Some(old) => self.indexes.replace_node(old, &node),
            None => self.indexes.add_node(&node),
        }
        self.unsaved.insert(Key::Node(node.id));
        self.nodes.insert(node.id, node);
    }

    pub(super) fn update_node(&mut self, stamp: Stamp, id: NodeId, base: u64, spec: NodeSpec) -> Result {
        let node = self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?;
        if node.version != base {
            return Err(ApplyError::OutOfSequence { given: base, current: node.version });
        }
        if spec.role == NodeRole::Worker && self.is_last_manager(node) {
            return Err(ApplyError::LastManager);
        }
        self.change_node(id, |node| {
            node.spec = spec;
            node.version = stamp.index;
            node.updated_at = stamp.at;
        })
    }

    pub(super) fn seat_manager(&mut self, stamp: Stamp, id: NodeId, address: String, raft_id: u64) -> Result {
        let node = self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?;
        let taken = self.managers().any(|other| other.raft_id == Some(raft_id));
        if node.spec.role != NodeRole::Manager || node.raft_id.is_some() || taken {
            return Err(ApplyError::NotSeatable);
        }
        self.change_node(id, |node| {
            node.manager_address = Some(address);
            node.raft_id = Some(raft_id);
            node.updated_at = stamp.at;
        })
    }

    pub(super) fn unseat_manager(&mut self, stamp: Stamp, id: NodeId, raft_id: u64) -> Result {
        let node = self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?;
        if node.spec.role == NodeRole::Manager || node.raft_id != Some(raft_id) {
            return Err(ApplyError::NotSeatable);
        }
        self.change_node(id, |node| {
            node.manager_address = None;
            node.raft_id = None;
            node.updated_at = stamp.at;
        })
    }

    /// Changes a node that exists.
    fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) -> Result {
        let mut node = self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?.clone();
        change(Arc::make_mut(&mut node));
        self.put_node(node);
        Ok(Changed::Node(id))
    }

    /// Without it, nobody would be left to decide.
    fn is_last_manager(&self, node: &Node) -> bool {
        let is_one = |node: &Node| node.spec.role == NodeRole::Manager && node.raft_id.is_some();
        is_one(node) && self.managers().filter(|other| is_one(other)).count() == 1
    }

    /// What the node says of itself is not the operator's: the version stays.
    pub(super) fn describe_node(&mut self, stamp: Stamp, id: NodeId, engine: EngineDescription) -> Result {
        self.change_node(id, |node| {
            node.engine = engine;
            node.updated_at = stamp.at;
        })
    }

    /// Its tasks stay for the orchestrator to end and replace.
    pub(super) fn remove_node(&mut self, stamp: Stamp, id: NodeId) -> Result {
        if self.is_last_manager(self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?) {
            return Err(ApplyError::LastManager);
        }
        let node = self.nodes.remove(&id).ok_or(ApplyError::Gone("node"))?;
        self.indexes.remove_node(&node);
        self.unsaved.insert(Key::Node(id));
        self.removed.insert(id, RemovedNode::new(stamp.at));
        self.unsaved.insert(Key::RemovedNode(id));
        self.unsaved.extend(self.removed.expire(stamp.at).into_iter().map(Key::RemovedNode));
        Ok(Changed::NodeRemoved(node))
    }
}
