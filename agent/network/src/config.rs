//! Configuration of a node's data path.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// How this node takes part in the cluster's network. All nodes must agree on pool, VNI and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetworkConfig {
    /// The node's number, from 1; it gives the node its block of the pool.
    pub index: u16,
    /// The node's address on the underlay, through which other nodes reach its tunnel.
    pub data_address: Ipv4Addr,
    /// Gateway addresses of all tasks of all nodes.
    pub pool: Ipv4Net,
    /// VXLAN network identifier of the mesh tunnel.
    pub vni: u32,
    /// UDP port of the tunnel.
    pub vxlan_port: u16,
    /// MTU of the underlay in bytes; `None` takes that of the device that holds the data address.
    pub mtu: Option<u16>,
    /// How many task networks are kept prepared, so that attaching one costs no time.
    pub prepared: usize,
}

impl NodeNetworkConfig {
    /// The gateway pool where none is configured: room for 4095 nodes.
    pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 192, 0, 0), 10);
    pub const DEFAULT_VNI: u32 = 4096;
    /// IANA's port for VXLAN.
    pub const DEFAULT_VXLAN_PORT: u16 = 4789;
    pub const DEFAULT_PREPARED: usize = 16;

    /// A node with the defaults for everything but its number and address.
    pub const fn new(index: u16, data_address: Ipv4Addr) -> Self {
        Self {
            index,
            data_address,
            pool: Self::DEFAULT_POOL,
            vni: Self::DEFAULT_VNI,
            vxlan_port: Self::DEFAULT_VXLAN_PORT,
            mtu: None,
            prepared: Self::DEFAULT_PREPARED,
        }
    }
}
