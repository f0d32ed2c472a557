//! What was removed and must not come back: nodes, as long as a certificate of theirs may be valid (every manager refuses
//! them), and services, whose creation a client or the network may repeat.

use imbl::{OrdMap, OrdSet};
use swarm_model::{NodeId, RemovedNode, ServiceId, Timestamp};

/// Records that are kept. Beyond it the one that expires first goes: the leader refuses who is no member all the same.
const MAX_REMOVED: usize = 65_536;

/// The records. A clone is cheap, and stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RemovedNodes(OrdMap<NodeId, RemovedNode>);

impl FromIterator<(NodeId, RemovedNode)> for RemovedNodes {
    fn from_iter<T: IntoIterator<Item = (NodeId, RemovedNode)>>(records: T) -> Self {
        Self(records.into_iter().collect())
    }
}

impl RemovedNodes {
    pub fn get(&self, node: NodeId) -> Option<&RemovedNode> {
        self.0.get(&node)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &RemovedNode)> {
        self.0.iter()
    }

    /// Whether nothing changed between the two.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0) || self.0.is_empty() && other.0.is_empty()
    }

    pub(super) fn insert(&mut self, node: NodeId, record: RemovedNode) {
        self.0.insert(node, record);
    }

    /// Takes out what is not needed any more: whose certificates have expired, and what is too much.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<NodeId> {
        let expired = self.0.iter().filter(|(_, record)| record.until <= now).map(|(node, _)| *node);
        let mut gone: Vec<NodeId> = expired.collect();
        if self.0.len() - gone.len() > MAX_REMOVED {
            let first = self.0.iter().filter(|(_, record)| record.until > now);
            gone.extend(first.min_by_key(|(node, record)| (record.until, **node)).map(|(node, _)| *node));
        }
        for node in &gone {
            self.0.remove(node);
        }
        gone
    }
}

/// Forgotten services whose ids are remembered. A request is repeated within seconds.
const MAX_REMOVED_SERVICES: usize = 16_384;

/// Ids of the services that were forgotten last, each with the log index of that. A clone is cheap, and stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RemovedServices {
    indexes: OrdMap<ServiceId, u64>,
    by_index: OrdSet<(u64, ServiceId)>,
}

impl RemovedServices {
    pub fn get(&self, service: ServiceId) -> Option<u64> {
        self.indexes.get(&service).copied()
    }

    pub fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.indexes.keys().copied()
    }

    /// Returns the one that is too much, if any.
    pub(super) fn insert(&mut self, service: ServiceId, index: u64) -> Option<ServiceId> {
        self.indexes.insert(service, index);
        self.by_index.insert((index, service));
        if self.indexes.len() <= MAX_REMOVED_SERVICES {
            return None;
        }
        let (first, oldest) = *self.by_index.get_min()?;
        self.by_index.remove(&(first, oldest));
        self.indexes.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_that_were_forgotten_last_are_remembered() {
        let mut removed = RemovedServices::default();
        for number in 0..MAX_REMOVED_SERVICES {
            assert_eq!(removed.insert(ServiceId::from_u128(number as u128), 5 + number as u64), None);
        }
        assert_eq!(removed.insert(ServiceId::from_u128(u128::MAX), 1 << 40), Some(ServiceId::from_u128(0)));
        assert_eq!(removed.get(ServiceId::from_u128(0)), None);
        assert_eq!(removed.get(ServiceId::from_u128(1)), Some(6));
        assert_eq!(removed.ids().count(), MAX_REMOVED_SERVICES);
    }

    #[test]
    fn records_go_when_their_certificates_have_expired_or_there_are_too_many() {
        let mut removed = RemovedNodes::default();
        let at = |micros| RemovedNode { at: Timestamp::ZERO, until: Timestamp::from_micros(micros) };
        removed.insert(NodeId::from_u128(1), at(10));
        removed.insert(NodeId::from_u128(2), at(20));
        assert_eq!(removed.expire(Timestamp::from_micros(9)), []);
        assert_eq!(removed.expire(Timestamp::from_micros(10)), [NodeId::from_u128(1)]);
        assert!(removed.get(NodeId::from_u128(1)).is_none() && removed.get(NodeId::from_u128(2)).is_some());
        for number in 0..MAX_REMOVED {
            removed.insert(NodeId::from_u128(100 + number as u128), at(30 + number as u64));
        }
        assert_eq!(removed.expire(Timestamp::from_micros(11)), [NodeId::from_u128(2)]);
    }
}
