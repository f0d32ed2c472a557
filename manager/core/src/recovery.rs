//! Makes one manager the only one of its cluster: from what its own disk holds after the quorum was lost, or from a backup.
//!
//! Both are the same: a state, every other manager removed from it, at an index and in a term far above all that the
//! cluster may have reached since. So agents obey the new manager and nobody before it, no version of an object is given
//! twice, and the managers that were dropped are refused as removed nodes when they come back. Entries that are not known
//! to be committed are kept: they may have been acknowledged.

use bytes::Bytes;
use prost011::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState};
use swarm_model::{Availability, Cluster, Node, NodeId, NodeRole, NodeSpec, Timestamp};

use crate::addresses;
use crate::api::{Capture, NewNode};
use crate::door::{CheckpointState, Recovered, StoredObject};
use crate::store::{Action, ApplyError, DecodeError, Payload, PayloadError, Store};

/// What index and term rise by: more than the entries and elections that can have happened since. One election every
/// 0.3 s takes 40 years to come so far, 10,000 entries a second five days of which the state knows nothing.
const LEAP: u64 = 1 << 32;

/// What the log of one manager, or a backup, holds.
#[derive(Debug)]
pub struct Salvage {
    store: Store,
    term: u64,
    /// Entries that are not known to be committed.
    pub uncommitted: u64,
}

/// Whom the cluster goes on with.
#[derive(Debug, Clone)]
pub enum Survivor {
    /// A manager of it.
    Member(NodeId),
    /// A new one.
    Newcomer(Box<NewNode>),
}

/// What a manager starts from.
#[derive(Debug)]
pub struct Refounded {
    pub state: CheckpointState,
    /// Goes with it, in place of any other.
    pub hard_state: Bytes,
    pub raft_id: u64,
}

/// Nothing can be made of it.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error("the state cannot be read")]
    State(#[from] DecodeError),
    #[error("log entry {index} cannot be read")]
    Payload {
        index: u64,
        #[source]
        source: PayloadError,
    },
    #[error("log entry {index} or the hard state cannot be decoded")]
    Raft {
        index: u64,
        #[source]
        source: prost011::DecodeError,
    },
    #[error("log entry {found} follows entry {last}: entries between them are missing")]
    Gap { last: u64, found: u64 },
    #[error("there is no cluster in it")]
    NoCluster,
    #[error("node {0} is no manager in it, so its cluster cannot go on with it")]
    NotAManager(NodeId),
    #[error("the cluster has no room for another node")]
    Full,
    #[error("the other managers cannot be taken out")]
    Apply(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Salvage {
    /// From what the disk held when the manager last ran.
    ///
    /// # Errors
    /// It cannot be read, or there is no cluster in it.
    pub fn of_disk(recovered: &Recovered) -> Result<Self, SalvageError> {
        let undecodable = |index| move |source| SalvageError::Raft { index, source };
        let hard_state = recovered.hard_state.as_deref().unwrap_or_default();
        let hard_state = HardState::decode(hard_state).map_err(undecodable(0))?;
        let (mut store, mut term) = match &recovered.checkpoint {
            Some(checkpoint) => (Store::restore(checkpoint.index, &checkpoint.objects)?, checkpoint.term),
            None => (Store::default(), 0),
        };
        term = term.max(hard_state.term);
        let committed = hard_state.commit.max(store.applied());
        for record in &recovered.entries {
            term = term.max(record.term);
            if record.index <= store.applied() {
                continue;
            }
            if record.index != store.applied() + 1 {
                return Err(SalvageError::Gap { last: store.applied(), found: record.index });
            }
            let entry = Entry::decode(&*record.data).map_err(undecodable(record.index))?;
            let is_change = entry.entry_type != raft::eraftpb::EntryType::EntryNormal as i32;
            if is_change || entry.data.is_empty() {
                store.skip_to(record.index);
                continue;
            }
            let payload = Payload::decode(&entry.data)
                .map_err(|source| SalvageError::Payload { index: record.index, source })?;
            store.apply(record.index, payload);
        }
        let uncommitted = store.applied() - committed.min(store.applied());
        Self::of(store, term, uncommitted)
    }

    /// From the objects of a backup, which was taken at `index` in `term`.
    ///
    /// # Errors
    /// As [`Self::of_disk`].
    pub fn of_backup(index: u64, term: u64, objects: &[StoredObject]) -> Result<Self, SalvageError> {
        Self::of(Store::restore(index, objects)?, term, 0)
    }

    fn of(store: Store, term: u64, uncommitted: u64) -> Result<Self, SalvageError> {
        match store.cluster() {
            Some(_) => Ok(Self { store, term, uncommitted }),
            None => Err(SalvageError::NoCluster),
        }
    }

    pub fn cluster(&self) -> &Cluster {
        self.store.cluster().expect("looked at when it was made")
    }

    /// The state as it was found.
    pub fn capture(&self) -> Capture {
        self.store.capture(self.term)
    }

    /// Managers that have a place among the members.
    pub fn managers(&self) -> impl Iterator<Item = &Node> {
        self.store.managers().filter(|node| node.raft_id.is_some()).map(|node| &**node)
    }

    /// The state with that manager alone.
    ///
    /// # Errors
    /// It is no manager, or there is no room for it.
    pub fn refound(mut self, survivor: &Survivor, now: Timestamp) -> Result<Refounded, SalvageError> {
        let (id, mut actions) = match survivor {
            Survivor::Member(id) => (*id, Vec::new()),
            Survivor::Newcomer(new) => (new.id, vec![Action::CreateNode(Box::new(self.newcomer(new, now)?))]),
        };
        let others = self.managers().filter(|node| node.id != id).map(|node| node.id);
        actions.extend(others.map(|node| Action::RemoveNode { node }));
        let index = self.store.applied() + LEAP;
        let applied = self.store.apply(index, Payload { at: now, by: None, actions });
        if let Some((_, error)) = applied.errors.into_iter().next() {
            return Err(match error {
                // Every manager was to go.
                ApplyError::LastManager => SalvageError::NotAManager(id),
                error => SalvageError::Apply(Box::new(error)),
            });
        }
        let own = self.store.node(id).filter(|node| node.spec.role == NodeRole::Manager);
        let raft_id = own.and_then(|node| node.raft_id).ok_or(SalvageError::NotAManager(id))?;
        let term = self.term + LEAP;
        let conf_state = ConfState { voters: vec![raft_id], ..ConfState::default() };
        let hard_state = HardState { term, vote: 0, commit: index };
        Ok(Refounded {
            state: CheckpointState {
                index,
                term,
                conf_state: conf_state.encode_to_vec().into(),
                objects: self.store.export(),
            },
            hard_state: hard_state.encode_to_vec().into(),
            raft_id,
        })
    }

    fn newcomer(&self, new: &NewNode, now: Timestamp) -> Result<Node, SalvageError> {
        let capacity = addresses::node_capacity(self.cluster().gateway_pool);
        let highest = self.store.nodes().map(|node| node.index).max().unwrap_or(0);
        let mut indexes = (highest.saturating_add(1)..=capacity).chain(1..=capacity);
        let index = indexes.find(|index| !self.store.node_index_taken(*index)).ok_or(SalvageError::Full)?;
        Ok(Node {
            id: new.id,
            version: 0,
            created_at: now,
            updated_at: now,
            spec: NodeSpec {
                role: NodeRole::Manager,
                availability: Availability::Active,
                labels: std::collections::BTreeMap::new(),
            },
            engine: new.engine.clone(),
            index,
            next_address: Cluster::FIRST_TASK_OFFSET,
            manager_address: new.manager_address.clone(),
            raft_id: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::{Config, Effect, LogEntry};
    use crate::members::first_raft_id;
    use crate::store::tests::{cluster, node};
    use crate::{ManagerCore, door};

    const NOW: Timestamp = Timestamp::from_micros(5_000_000);

    fn manager(number: u16) -> Node {
        let mut node = node(number);
        node.spec.role = NodeRole::Manager;
        node.manager_address = Some(format!("10.0.0.{number}:2377"));
        node
    }

    fn entry(index: u64, term: u64, actions: Vec<Action>) -> LogEntry {
        let data = Payload { at: Timestamp::from_micros(index), by: None, actions }.encode();
        let entry = Entry { index, term, data, ..Entry::default() };
        LogEntry { index, term, data: entry.encode_to_vec().into() }
    }

    /// Managers 1 to 3 and worker 4; the last two entries are not known to be committed.
    fn disk() -> Recovered {
        let nodes = [1, 2, 3].map(manager).into_iter().chain([node(4)]);
        let mut entries = vec![entry(1, 1, vec![Action::CreateCluster(Box::new(cluster()))])];
        let made = nodes.zip(2..).map(|(node, at)| entry(at, 1, vec![Action::CreateNode(Box::new(node))]));
        entries.extend(made);
        let secret =
            |secret: &str| Action::SetJoinSecret { role: NodeRole::Worker, secret: secret.to_owned() };
        entries.extend([entry(6, 1, vec![secret("one")]), entry(7, 2, vec![secret("two")])]);
        let hard_state = HardState { term: 3, vote: 9, commit: 5 };
        Recovered { checkpoint: None, hard_state: Some(hard_state.encode_to_vec().into()), entries }
    }

    fn start(refounded: Refounded, node_id: NodeId) -> (ManagerCore, Vec<Effect>) {
        let recovered = Recovered {
            checkpoint: Some(refounded.state),
            hard_state: Some(refounded.hard_state),
            entries: Vec::new(),
        };
        let config = Config::new(node_id, refounded.raft_id, [1; 32]);
        let mut effects = Vec::new();
        let core = ManagerCore::new(config, recovered, NOW, &mut effects).expect("it starts");
        (core, effects)
    }

    fn members(effects: &[Effect]) -> Vec<NodeId> {
        let told = effects.iter().rev().find_map(|effect| match effect {
            Effect::Members(members) => Some(members.clone()),
            _ => None,
        });
        told.unwrap_or_default().into_iter().map(|member: door::Member| member.node).collect()
    }

    #[test]
    fn a_survivor_goes_on_alone_with_all_that_its_log_holds() {
        let salvage = Salvage::of_disk(&disk()).expect("readable");
        assert_eq!((salvage.uncommitted, salvage.cluster().join.worker.as_str()), (2, "two"));
        assert_eq!(salvage.managers().count(), 3);
        let own = NodeId::from_u128(2);
        let refounded = salvage.refound(&Survivor::Member(own), NOW).expect("it is a manager");
        assert!(refounded.state.index > LEAP && refounded.state.term > LEAP);
        assert_eq!(refounded.raft_id, first_raft_id(own));
        let store = Store::restore(refounded.state.index, &refounded.state.objects).expect("readable");
        assert!(store.removed_nodes().get(NodeId::from_u128(1)).is_some());
        assert!(store.node(NodeId::from_u128(4)).is_some(), "workers stay");
        let (core, effects) = start(refounded, own);
        assert_eq!(members(&effects), [own]);
        assert!(core.fingerprint().0 > LEAP);
    }

    #[test]
    fn a_newcomer_goes_on_with_a_backup() {
        let salvage = Salvage::of_disk(&disk()).expect("readable");
        let capture = salvage.capture();
        let objects: Vec<StoredObject> = capture.objects().collect();
        let salvage = Salvage::of_backup(capture.index(), capture.term(), &objects).expect("readable");
        let id = NodeId::from_u128(77);
        let new = NewNode {
            id,
            role: NodeRole::Manager,
            engine: node(1).engine,
            manager_address: Some("10.0.0.9:2377".to_owned()),
        };
        let refounded = salvage.refound(&Survivor::Newcomer(Box::new(new)), NOW).expect("there is room");
        let (_, effects) = start(refounded, id);
        assert_eq!(members(&effects), [id]);
    }

    #[test]
    fn what_cannot_go_on_is_refused() {
        let refused = |id| {
            let salvage = Salvage::of_disk(&disk()).expect("readable");
            salvage.refound(&Survivor::Member(NodeId::from_u128(id)), NOW).expect_err("no manager")
        };
        assert!(matches!(refused(4), SalvageError::NotAManager(_)));
        assert!(matches!(refused(99), SalvageError::NotAManager(_)));
        let empty = Salvage::of_disk(&Recovered::default());
        assert!(matches!(empty, Err(SalvageError::NoCluster)));
        let mut torn = disk();
        torn.entries.remove(3);
        assert!(matches!(Salvage::of_disk(&torn), Err(SalvageError::Gap { last: 3, found: 5 })));
    }
}
