//! Actions on nodes.

use std::sync::Arc;

use swarm_model::{EngineDescription, Node, NodeId, NodeSpec};

use super::{ApplyError, Changed, Result, Stamp};
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

    pub(in crate::store) fn put_node(&mut self, node: Arc<Node>) {
        self.indexes.add_node(&node);
        self.unsaved.insert(Key::Node(node.id));
        self.nodes.insert(node.id, node);
    }

    pub(super) fn update_node(&mut self, stamp: Stamp, id: NodeId, base: u64, spec: NodeSpec) -> Result {
        let node = Arc::make_mut(self.nodes.get_mut(&id).ok_or(ApplyError::Gone("node"))?);
        if node.version != base {
            return Err(ApplyError::OutOfSequence { given: base, current: node.version });
        }
        node.spec = spec;
        node.version = stamp.index;
        node.updated_at = stamp.at;
        self.unsaved.insert(Key::Node(id));
        Ok(Changed::Node(id))
    }

    /// What the node says of itself is not the operator's: the version stays.
    pub(super) fn describe_node(&mut self, stamp: Stamp, id: NodeId, engine: EngineDescription) -> Result {
        let mut node = self.nodes.get(&id).ok_or(ApplyError::Gone("node"))?.clone();
        self.indexes.remove_node(&node);
        let changed = Arc::make_mut(&mut node);
        changed.engine = engine;
        changed.updated_at = stamp.at;
        self.put_node(node);
        Ok(Changed::Node(id))
    }

    /// Its tasks stay for the orchestrator to end and replace.
    pub(super) fn remove_node(&mut self, id: NodeId) -> Result {
        let node = self.nodes.remove(&id).ok_or(ApplyError::Gone("node"))?;
        self.indexes.remove_node(&node);
        self.unsaved.insert(Key::Node(id));
        Ok(Changed::NodeRemoved(node))
    }
}
