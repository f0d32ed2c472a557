//! Members: admission, what the operator sets on them, removal.

use swarm_model::{Availability, Cluster, Node, NodeId, NodeRole, NodeSpec, NodeState, SpecError};

use super::{Admitted, Answer, Desk, MAX_NODE_LABEL_BYTES, MAX_NODE_LABELS, Reserved, Verdict};
use crate::addresses;
use crate::api::{ApiError, Kind, NewNode};
use crate::lookup;
use crate::members::{MAX_MANAGERS, first_raft_id, has_quorum, wanted, without};
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
        if self.store.removed_nodes().get(new.id).is_some() {
            return Err(ApiError::FailedPrecondition(format!(
                "node {} was removed from this cluster; it joins again with a new key, and so as a new node",
                new.id
            )));
        }
        if new.role == NodeRole::Manager {
            self.check_manager_count()?;
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
        let highest = self.store.highest_node_index();
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
            raft_id: None,
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
        match (node.spec.role, spec.role) {
            (NodeRole::Worker, NodeRole::Manager) => self.check_manager_count()?,
            (NodeRole::Manager, NodeRole::Worker) => self.check_departure(node)?,
            (NodeRole::Worker, NodeRole::Worker) | (NodeRole::Manager, NodeRole::Manager) => {}
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
            self.check_departure(node)?;
            let reachable = node.raft_id.is_some_and(|id| self.council.reachable.contains(&id));
            if reachable || !force {
                return Err(ApiError::FailedPrecondition(format!(
                    "node {name} is a manager; `swarmctl node demote {name}` first, or if it is lost for good, \
                     `swarmctl node rm --force {name}`"
                )));
            }
        }
        if !force && (self.node_state)(node.id) != NodeState::Down {
            return Err(ApiError::FailedPrecondition(format!(
                "node {name} is not down; run `swarmctl cluster leave` on it first, or remove it with --force"
            )));
        }
        Ok(Admitted::one(Action::RemoveNode { node: node.id }, Answer::Done))
    }
}

impl Desk<'_> {
    /// A promoted node shows up as a manager.
    pub(super) fn seat_manager(&mut self, id: NodeId, address: String) -> Result<Verdict, ApiError> {
        let node = lookup::node(self.store, &id.to_string())?;
        if node.spec.role != NodeRole::Manager {
            return Err(ApiError::FailedPrecondition(format!(
                "node {} is not to be a manager; `swarmctl node promote` makes it one",
                node.engine.hostname
            )));
        }
        if node.raft_id.is_some() {
            return Ok(Verdict::AlreadyDone(Answer::Member(id)));
        }
        let raft_id = first_raft_id(NodeId((self.draw_id)()));
        Ok(Admitted::one(Action::SeatManager { node: id, address, raft_id }, Answer::Member(id)))
    }

    fn check_manager_count(&self) -> Result<(), ApiError> {
        let managers = self.store.managers().filter(|node| node.spec.role == NodeRole::Manager).count();
        if managers < MAX_MANAGERS {
            return Ok(());
        }
        let (size, limit) = (managers as u64 + 1, MAX_MANAGERS as u64);
        Err(ApiError::TooLarge { what: "the number of managers", size, limit })
    }

    /// Refuses what would leave managers without a majority that can be reached: nothing could be changed any more.
    fn check_departure(&self, node: &Node) -> Result<(), ApiError> {
        let name = &node.engine.hostname;
        let managers = self.store.managers().filter(|other| other.spec.role == NodeRole::Manager);
        let others = managers.filter(|other| other.id != node.id && other.raft_id.is_some()).count();
        if others == 0 && node.raft_id.is_some() {
            return Err(ApiError::FailedPrecondition(format!(
                "node {name} is the last manager; without one there is no cluster. Add another manager first: \
                 `swarmctl cluster join-token manager` tells how"
            )));
        }
        let Some(leaving) = node.raft_id.filter(|id| self.council.membership.voters.contains(id)) else {
            return Ok(());
        };
        let staying = self.council.membership.voters.intersection(&wanted(self.store)).copied().collect();
        let staying = without(&staying, leaving);
        if has_quorum(&staying, &self.council.reachable) {
            return Ok(());
        }
        let reachable = staying.intersection(&self.council.reachable).count();
        Err(ApiError::FailedPrecondition(format!(
            "without node {name}, {reachable} of {} managers that vote could be reached, which is no majority: nothing \
             could be changed any more. Bring the others back, or add a manager first; `swarmctl node ls` shows them",
            staying.len()
        )))
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
