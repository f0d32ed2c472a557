//! Certificates of nodes: tells every node which roots to believe, and knows from its report which root issued its own.
//! While the root is replaced, says how far that is, and when it may end: once no node is left that would be shut out.

use std::sync::Arc;

use swarm_model::{Cluster, ManagerMessage, Node, NodeId, NodeState};

use super::Leader;
use crate::api::{RotationView, Waiting};
use crate::door::{Effect, SessionId};
use crate::store::Store;

/// Nodes that are named to the operator.
const MAX_NAMED: usize = 20;

impl Leader {
    /// For a session that begins.
    pub(super) fn trust(&mut self, session: SessionId, store: &Store) -> Option<Effect> {
        let roots = self.roots(store.cluster()?);
        Some(Effect::Session { session, message: ManagerMessage::Trust(roots) })
    }

    /// The text is made once for all sessions.
    fn roots(&mut self, cluster: &Cluster) -> Arc<str> {
        if self.told_roots.is_empty() {
            self.told_roots = cluster.roots().into();
        }
        Arc::clone(&self.told_roots)
    }

    pub(super) fn cluster_changed(&mut self, store: &Store, effects: &mut Vec<Effect>) {
        let Some(cluster) = store.cluster() else { return };
        self.rotation_moved = true;
        let roots: Arc<str> = cluster.roots().into();
        if roots == self.told_roots {
            return;
        }
        self.told_roots = Arc::clone(&roots);
        effects.extend(self.fleet.sessions().map(|session| {
            let message = ManagerMessage::Trust(Arc::clone(&roots));
            Effect::Session { session, message }
        }));
    }

    pub(super) fn certified(&mut self, node: NodeId, root: String) {
        self.certified_by.insert(node, root);
        self.rotation_moved = true;
    }

    /// The digest of the root that may take over now. Answers once for each time that something moved.
    pub fn finished_rotation(&mut self, store: &Store) -> Option<String> {
        if !std::mem::take(&mut self.rotation_moved) {
            return None;
        }
        let rotation = store.cluster()?.rotation.as_ref()?;
        let all = store.nodes().all(|node| self.has_certificate_of(node.id, &rotation.root_digest));
        all.then(|| rotation.root_digest.clone())
    }

    /// The end of a rotation could not be proposed.
    pub fn rotation_unfinished(&mut self) {
        self.rotation_moved = true;
    }

    pub fn rotation(&self, store: &Store) -> Option<RotationView> {
        let rotation = store.cluster()?.rotation.as_ref()?;
        let missing =
            || store.nodes().filter(|node| !self.has_certificate_of(node.id, &rotation.root_digest));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let nodes = store.nodes().len();
        Some(RotationView {
            nodes: count(nodes),
            done: count(nodes - missing().count()),
            waiting: missing().take(MAX_NAMED).map(|node| self.waiting(node)).collect(),
        })
    }

    fn has_certificate_of(&self, node: NodeId, root: &str) -> bool {
        self.certified_by.get(&node).is_some_and(|by| by == root)
    }

    fn waiting(&self, node: &Node) -> Waiting {
        let reason = match self.fleet.state(node.id) {
            NodeState::Down => "it is down; bring it back, or remove it: swarmctl node rm".to_owned(),
            NodeState::Unknown => self.fleet.explain(node.id),
            NodeState::Ready if self.fleet.session(node.id).is_none() => self.fleet.explain(node.id),
            NodeState::Ready => "it has not renewed its certificate yet".to_owned(),
        };
        Waiting { node: node.id, hostname: node.engine.hostname.clone(), reason }
    }
}
