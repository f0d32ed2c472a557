//! What can go wrong, one enum per operation.

use std::io;
use std::net::Ipv4Addr;

use thiserror::Error;

use crate::address_plan::PlanError;
use crate::netlink::NetlinkError;
use crate::node::PrepareError;

/// Opening, reading or removing a node's network.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the address plan does not fit")]
    Plan(#[from] PlanError),
    #[error("the data address {address} is inside the gateway pool {pool}: choose another pool")]
    DataAddressInPool { address: Ipv4Addr, pool: ipnet::Ipv4Net },
    #[error(
        "no device of this machine has the data address {address}: configure the address that other nodes reach"
    )]
    NoDevice { address: Ipv4Addr },
    #[error("the underlay's MTU of {mtu} bytes is too small: a tunnel needs at least {least}")]
    MtuTooSmall { mtu: u16, least: u16 },
    #[error("kernel {release} is too old: the routing mesh needs Linux 5.16 or later")]
    OldKernel { release: String },
    #[error("cannot read the kernel's version")]
    Kernel(#[source] io::Error),
    #[error("cannot let the machine forward packets ({path})")]
    Forwarding { path: &'static str, source: io::Error },
    #[error("not permitted to change the network: run as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")]
    Permission(#[source] NetlinkError),
    #[error("the kernel lacks {feature}: use a kernel with it, or load the module")]
    KernelFeature { feature: &'static str, source: NetlinkError },
    #[error("cannot set up the node's network")]
    Netlink(#[source] NetlinkError),
    #[error("cannot prepare task networks")]
    Prepare(#[from] PrepareError),
}

impl From<NetlinkError> for OpenError {
    fn from(error: NetlinkError) -> Self {
        if crate::node::machine::is_permission(&error) {
            return Self::Permission(error);
        }
        match crate::node::machine::missing_feature(&error) {
            Some(feature) => Self::KernelFeature { feature, source: error },
            None => Self::Netlink(error),
        }
    }
}

/// Programming the routing mesh.
#[derive(Debug, Error)]
pub enum MeshError {
    #[error("the mesh names a node that the address plan has no room for")]
    Node(#[source] PlanError),
    #[error("port {port} has {count} backends, more than the {limit} that one port can have")]
    TooManyBackends { port: u16, count: usize, limit: usize },
    #[error("cannot program the routing mesh")]
    Netlink(#[from] NetlinkError),
}

/// Giving a task its network, changing it or taking it away.
#[derive(Debug, Error)]
pub enum TaskError {
    #[error("task {name} has a network already")]
    Attached { name: String },
    #[error("task {name} has no network on this node")]
    Unknown { name: String },
    #[error("task {name}: {address} is not a task address of this node (block {block})")]
    ForeignAddress { name: String, address: Ipv4Addr, block: ipnet::Ipv4Net },
    #[error("task {name}: address {address} is in use by task {holder}")]
    AddressInUse { name: String, address: Ipv4Addr, holder: String },
    #[error("task {name}: port {port} of this node is in use by the task with address {holder}")]
    PortInUse { name: String, port: u16, holder: Ipv4Addr },
    #[error("task {name}: cannot make a network namespace")]
    Prepare { name: String, source: PrepareError },
    #[error("task {name}: cannot use its network namespace")]
    Namespace { name: String, source: io::Error },
    #[error("task {name}: its namespace has no gateway device of this node: start the task anew")]
    NoDevice { name: String },
    #[error("task {name}: cannot program its network")]
    Netlink { name: String, source: NetlinkError },
    #[error("cannot remove what tasks have left behind")]
    Sweep(#[source] NetlinkError),
}

/// Making or removing the networks of a development cluster.
#[derive(Debug, Error)]
pub enum DevError {
    #[error("{name:?} is no name for a development network: use 1 to {most} characters of a-z and 0-9")]
    Name { name: String, most: usize },
    #[error("a development network has 1 to {most} nodes, not {nodes}")]
    Nodes { nodes: u16, most: u16 },
    #[error("there is no node {node} in this development network of {nodes}")]
    NoNode { node: u16, nodes: u16 },
    #[error("a development network {name} exists already: stop the cluster that uses it, or clean it up")]
    Exists { name: String },
    #[error("every subnet in {candidates} overlaps a route of this machine")]
    NoSubnet { candidates: ipnet::Ipv4Net },
    #[error("cannot look at this machine's network")]
    Open(#[source] NetlinkError),
    #[error("cannot prepare this machine")]
    Forwarding(#[source] OpenError),
    #[error("cannot use network namespace {name}")]
    Namespace { name: String, source: io::Error },
    #[error("cannot start a process on node {node}")]
    Spawn { node: u16, source: io::Error },
    #[error("cannot list the processes of this machine")]
    Processes { source: io::Error },
    #[error("cannot program the development network {name}")]
    Netlink { name: String, source: NetlinkError },
}
