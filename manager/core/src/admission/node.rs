//! Members: admission, what the operator sets on them, removal.

use swarm_model::{Availability, Cluster, Node, NodeRole, NodeSpec, NodeState, SpecError};

use super::{Admitted, Answer, Desk, MAX_NODE_LABEL_BYTES, MAX_NODE_LABELS, Reserved, Verdict};
use crate::addresses;
use crate::api::{ApiError, Kind, NewNode};
use crate::lookup;
use crate::store::Action;

impl Desk<'_> {
    pub(super) fn admit_node(&mut self, new: NewNode) -> Result<Verdict, ApiError> {
        let pool = self.need_cluster()?.gateway_pool;
        if let Some(known) = self.store.node(new.id) {
            return if known.spec.role == new.role {
                Ok(Verdict::AlreadyDone(Answer::Node(new.id)))
            } else {
                Err(ApiError::FailedPrecondition(format!(
                    "node {} is a member with another role; let it leave before it joins again",
                    new.id
                )))
            };
        }
        let index = self.free_node_index(addresses::node_capacity(pool))?;
        let id = new.id;
        let node = self.new_node(new, index);
        Ok(Verdict::Propose(Admitted {
            actions: vec![Action::CreateNode(Box::new(node))],
            reserved: Reserved { node_index: Some(index), ..Reserved::default() },
            answer: Answer::Node(id),
        }))
    }

    /// The number after the highest one, so that the addresses of a node that left are reused late; else any free one.
    fn free_node_index(&self, capacity: u16) -> Result<u16, ApiError> {
        let highest = self.store.nodes().map(|node| node.index).max().unwrap_or(0);
        (highest.saturating_add(1)..=capacity)
            .chain(1..=capacity)
            .find(|index| !self.store.node_index_taken(*index) && !self.reservations.has_node_index(*index))
            .ok_or(ApiError::TooLarge {
                what: "the number of nodes",
                size: u64::from(capacity) + 1,
                limit: u64::from(capacity),
            })
    }

    pub(super) fn new_node(&self, new: NewNode, index: u16) -> Node {
        Node {
            id: new.id,
            version: 0,
            created_at: self.now,
            updated_at: self.now,
            spec: NodeSpec {
                role: new.role,
                availability: Availability::Active,
                labels: std::collections::BTreeMap::new(),
            },
            engine: new.engine,
            index,
            next_address: Cluster::FIRST_TASK_OFFSET,
            manager_address: new.manager_address,
        }
    }

    pub(super) fn update_node(
        &mut self,
        query: &str,
        version: u64,
        spec: NodeSpec,
    ) -> Result<Verdict, ApiError> {
        let node = lookup::node(self.store, query)?;
        if node.version != version {
            return Err(ApiError::OutOfSequence { kind: Kind::Node, given: version, current: node.version });
        }
        if spec.role != node.spec.role {
            return Err(ApiError::Invalid(SpecError::NotSupported("changing the role of a node")));
        }
        check_labels(&spec)?;
        if spec == node.spec {
            return Ok(Verdict::AlreadyDone(Answer::Node(node.id)));
        }
        Ok(Admitted::one(Action::UpdateNode { node: node.id, base: version, spec }, Answer::Node(node.id)))
    }

    pub(super) fn remove_node(&mut self, query: &str, force: bool) -> Result<Verdict, ApiError> {
        let node = lookup::node(self.store, query)?;
        let name = &node.engine.hostname;
        if node.spec.role == NodeRole::Manager {
            let managers = self.store.nodes().filter(|node| node.spec.role == NodeRole::Manager).count();
            return Err(ApiError::FailedPrecondition(if managers == 1 {
                format!("node {name} is the last manager; without it there is no cluster")
            } else {
                format!("node {name} is a manager, and this version cannot remove one")
            }));
        }
        if !force && (self.node_state)(node.id) != NodeState::Down {
            return Err(ApiError::FailedPrecondition(format!(
                "node {name} is not down; run `swarmctl cluster leave` on it first, or remove it with --force"
            )));
        }
        Ok(Admitted::one(Action::RemoveNode { node: node.id }, Answer::Done))
    }
}

fn check_labels(spec: &NodeSpec) -> Result<(), ApiError> {
    let count = spec.labels.len();
    if count > MAX_NODE_LABELS {
        return Err(ApiError::Invalid(SpecError::TooMany { field: "label", count, limit: MAX_NODE_LABELS }));
    }
    let size = spec.labels.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    if size > MAX_NODE_LABEL_BYTES {
        return Err(ApiError::TooLarge {
            what: "the text of the node's labels",
            size,
            limit: MAX_NODE_LABEL_BYTES,
        });
    }
    Ok(())
}
