//! The address plan of the tasks' gateway network: node i holds the i-th block of the pool.
//!
//! An address is given out as late as possible after it was freed: the search begins where the last one ended, so that
//! a connection to a task that is gone does not reach its successor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use swarm_model::{Cluster, NodeId};

use crate::store::Store;

/// Addresses in a node's block.
const BLOCK: u16 = 1 << (32 - Cluster::NODE_BLOCK_PREFIX);
/// The last offset is the block's broadcast address, and stays unused.
const LAST: u16 = BLOCK - 2;

/// How many nodes the pool has blocks for; block 0 belongs to nobody.
pub(crate) fn node_capacity(pool: Ipv4Net) -> u16 {
    let bits = Cluster::NODE_BLOCK_PREFIX.saturating_sub(pool.prefix_len()).min(12);
    (1u16 << bits) - 1
}

/// The address at `offset` of node `index`.
pub(crate) fn address(pool: Ipv4Net, index: u16, offset: u16) -> Ipv4Addr {
    let base = u32::from(pool.network());
    Ipv4Addr::from(base.wrapping_add(u32::from(index) * u32::from(BLOCK) + u32::from(offset)))
}

/// Where in the block of node `index` a task's address lies; `None` if it is no task address of that node.
pub(crate) fn offset_in_block(pool: Ipv4Net, index: u16, address_: Ipv4Addr) -> Option<u16> {
    let base = u32::from(address(pool, index, 0));
    let offset = u16::try_from(u32::from(address_).checked_sub(base)?).ok()?;
    (Cluster::FIRST_TASK_OFFSET..=LAST).contains(&offset).then_some(offset)
}

/// The offset where the search goes on after `offset` was given out.
pub(crate) fn after(offset: u16) -> u16 {
    if offset >= LAST { Cluster::FIRST_TASK_OFFSET } else { offset + 1 }
}

/// The first free address of node `index` from offset `start` on, once around. `None`: the block is full.
pub(crate) fn find_free(
    pool: Ipv4Net,
    index: u16,
    start: u16,
    taken: impl Fn(Ipv4Addr) -> bool,
) -> Option<(u16, Ipv4Addr)> {
    let start = start.clamp(Cluster::FIRST_TASK_OFFSET, LAST);
    (start..=LAST)
        .chain(Cluster::FIRST_TASK_OFFSET..start)
        .map(|offset| (offset, address(pool, index, offset)))
        .find(|(_, address)| !taken(*address))
}

/// Addresses that one plan gives out, before any of it is applied.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    given: BTreeSet<Ipv4Addr>,
    cursors: BTreeMap<NodeId, u16>,
}

impl AddressBook {
    /// `None`: the node's block is full, or the node is gone.
    pub fn take(&mut self, node: NodeId, store: &Store) -> Option<Ipv4Addr> {
        let pool = store.cluster()?.gateway_pool;
        let node = store.node(node)?;
        let cursor = self.cursors.entry(node.id).or_insert(node.next_address);
        let taken = |address| store.address_holder(address).is_some() || self.given.contains(&address);
        let (offset, address) = find_free(pool, node.index, *cursor, taken)?;
        *cursor = after(offset);
        self.given.insert(address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_walked_once_around_before_an_address_returns() {
        let pool: Ipv4Net = "10.192.0.0/10".parse().unwrap();
        assert_eq!(node_capacity(pool), 4095);
        assert_eq!(address(pool, 1, 11), Ipv4Addr::new(10, 192, 4, 11));
        assert_eq!(find_free(pool, 1, LAST, |_| false), Some((LAST, Ipv4Addr::new(10, 192, 7, 254))));
        assert_eq!(after(LAST), Cluster::FIRST_TASK_OFFSET);
        let last = address(pool, 1, LAST);
        assert_eq!(find_free(pool, 1, LAST, |a| a == last).unwrap().0, Cluster::FIRST_TASK_OFFSET);
        assert_eq!(find_free(pool, 1, 0, |_| true), None);
        assert_eq!(offset_in_block(pool, 1, address(pool, 2, 11)), None);
        assert_eq!(offset_in_block(pool, 1, address(pool, 1, 5)), None);
    }
}
