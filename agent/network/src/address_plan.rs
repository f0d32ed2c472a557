//! The address plan: every number that follows from a node's index.
//!
//! A node's block of the gateway pool, its tunnel address, hardware address, packet mark and conntrack zone are all
//! computed from its index, so that one small record per remote node is all that a node has to know.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use swarm_model::Cluster;
use thiserror::Error;

use crate::netlink::link::Mac;

/// Prefix length of a node's block: 1024 addresses.
const BLOCK_PREFIX: u8 = Cluster::NODE_BLOCK_PREFIX;
const BLOCK_SIZE: u32 = 1 << (32 - BLOCK_PREFIX);

/// This bit of a packet mark says that the packet has to go back through the node whose index is in the mark.
pub const MARK_FLAG: u32 = 0x8000_0000;
/// The bits of a packet mark that are ours.
pub const MARK_MASK: u32 = 0xffff_0000;
const MARK_SHIFT: u32 = 16;
/// The mark has twelve bits for the index (its highest three besides the flag are always zero).
pub const MAX_INDEX: u16 = 4095;

/// A pool or an index that the plan has no room for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("the gateway pool {0} is smaller than two node blocks: it must be a /{max} or larger", max = BLOCK_PREFIX - 1)]
    PoolTooSmall(Ipv4Net),
    #[error(
        "node index {index} is not between 1 and {max}, which is what the gateway pool {pool} has room for"
    )]
    IndexOutOfRange { index: u16, max: u16, pool: Ipv4Net },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPlan {
    pool: Ipv4Net,
}

impl AddressPlan {
    pub fn new(pool: Ipv4Net) -> Result<Self, PlanError> {
        if pool.prefix_len() >= BLOCK_PREFIX {
            return Err(PlanError::PoolTooSmall(pool));
        }
        Ok(Self { pool: pool.trunc() })
    }

    /// The largest index that has a block.
    pub fn max_index(self) -> u16 {
        let blocks = 1u32 << (BLOCK_PREFIX - self.pool.prefix_len());
        u16::try_from(blocks - 1).map_or(MAX_INDEX, |last| last.min(MAX_INDEX))
    }

    /// Refuses an index that has no block. Block 0 is nobody's.
    pub fn check(self, index: u16) -> Result<(), PlanError> {
        let max = self.max_index();
        if (1..=max).contains(&index) {
            Ok(())
        } else {
            Err(PlanError::IndexOutOfRange { index, max, pool: self.pool })
        }
    }

    pub const fn pool(self) -> Ipv4Net {
        self.pool
    }

    /// The node's part of the pool.
    pub fn block(self, index: u16) -> Ipv4Net {
        Ipv4Net::new_assert(self.tunnel_address(index), BLOCK_PREFIX)
    }

    /// The node's own address in its block.
    pub fn tunnel_address(self, index: u16) -> Ipv4Addr {
        (self.pool.network().to_bits() + u32::from(index) * BLOCK_SIZE).into()
    }

    /// A neighbour on the tunnel that exists only as the next hop of marked packets.
    pub fn anonymous_next_hop(self) -> Ipv4Addr {
        (self.pool.network().to_bits() + 1).into()
    }

    /// Whether a task of this node can have that address.
    pub fn is_task_address(self, index: u16, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.tunnel_address(index).to_bits());
        (u32::from(Cluster::FIRST_TASK_OFFSET)..BLOCK_SIZE - 1).contains(&offset)
    }
}

/// Hardware address of a node's tunnel device. Index 0 is that of the anonymous next hop.
pub fn tunnel_mac(index: u16) -> Mac {
    let [high, low] = index.to_be_bytes();
    [0x02, 0xff, 0x00, 0x00, high, low]
}

/// The index in a tunnel's hardware address.
pub fn index_of_mac(mac: Mac) -> Option<u16> {
    match mac {
        [0x02, 0xff, 0x00, 0x00, high, low] => {
            Some(u16::from_be_bytes([high, low])).filter(|&index| index != 0)
        }
        _ => None,
    }
}

/// Mark of packets that have to go back through that node.
pub const fn mark(index: u16) -> u32 {
    MARK_FLAG | (index as u32) << MARK_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pool: &str) -> Result<AddressPlan, PlanError> {
        AddressPlan::new(pool.parse().unwrap())
    }

    #[test]
    fn numbers_follow_from_the_index() {
        let plan = plan("10.192.0.0/10").unwrap();
        assert_eq!(plan.max_index(), 4095);
        assert_eq!(plan.block(1).to_string(), "10.192.4.0/22");
        assert_eq!(plan.block(4095).to_string(), "10.255.252.0/22");
        assert_eq!(plan.tunnel_address(3), Ipv4Addr::new(10, 192, 12, 0));
        assert_eq!(mark(1), 0x8001_0000);
        assert_eq!(mark(4095), 0x8fff_0000);
        assert_eq!(mark(4095) & MARK_MASK, mark(4095));
        assert_eq!(tunnel_mac(0x0102), [2, 0xff, 0, 0, 1, 2]);
        assert_eq!(index_of_mac(tunnel_mac(700)), Some(700));
        assert_eq!(index_of_mac(tunnel_mac(0)), None);
    }

    #[test]
    fn task_addresses_are_inside_the_block() {
        let plan = plan("10.192.0.0/10").unwrap();
        assert!(plan.is_task_address(1, Ipv4Addr::new(10, 192, 4, 11)));
        assert!(!plan.is_task_address(1, Ipv4Addr::new(10, 192, 4, 10)));
        assert!(plan.is_task_address(1, Ipv4Addr::new(10, 192, 7, 254)));
        assert!(!plan.is_task_address(1, Ipv4Addr::new(10, 192, 7, 255)));
        assert!(!plan.is_task_address(1, Ipv4Addr::new(10, 192, 8, 11)));
        assert!(!plan.is_task_address(1, Ipv4Addr::new(9, 1, 1, 1)));
    }

    #[test]
    fn a_small_pool_bounds_the_index() {
        assert_eq!(plan("172.31.0.0/16").unwrap().max_index(), 63);
        assert!(plan("172.31.0.0/16").unwrap().check(64).is_err());
        assert!(plan("172.31.0.0/16").unwrap().check(0).is_err());
        assert_eq!(plan("10.0.0.0/8").unwrap().max_index(), 4095);
        assert!(plan("10.0.0.0/22").is_err());
    }
}
