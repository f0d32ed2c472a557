//! What a node is told about published ports: values only.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use swarm_model::Protocol;

/// The whole routing mesh as this node is to program it: the same on every node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mesh {
    /// Index of every node of the cluster to its data address. This node's own entry is ignored.
    pub nodes: BTreeMap<u16, Ipv4Addr>,
    /// Ingress-published port to the running backends (a task's gateway address and target port), in any order. A port
    /// without backends is refused at once.
    pub ports: BTreeMap<(Protocol, u16), Vec<SocketAddrV4>>,
}

/// A port of a task that the other nodes' meshes may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub protocol: Protocol,
    pub target_port: u16,
}

/// A port of this node alone that leads to a port of one task (`mode=host`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub protocol: Protocol,
    /// The node's port, on all its addresses, loopback among them.
    pub published: u16,
    /// The task's port.
    pub target: u16,
}
