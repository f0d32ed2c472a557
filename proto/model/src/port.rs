//! Published ports.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Where a published port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortMode {
    /// On every node, balanced over the running tasks of the whole cluster (the routing mesh).
    Ingress,
    /// On the task's own node only.
    Host,
}

/// One published port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortSpec {
    pub protocol: Protocol,
    pub mode: PortMode,
    /// The container's port, 1 to 65535.
    pub target: u16,
    /// The port outside. `None` asks for an automatic one (ingress: from [`PortSpec::AUTOMATIC`]; host: not allowed).
    /// In a stored service's `ports` it is always there.
    pub published: Option<u16>,
}

impl PortSpec {
    /// Range of automatically assigned ingress ports.
    pub const AUTOMATIC: std::ops::RangeInclusive<u16> = 30000..=32767;
    /// Where managers and the nodes' tunnels listen: never published.
    pub const OF_THE_CLUSTER: [(Protocol, u16); 2] = [(Protocol::Tcp, 2377), (Protocol::Udp, 4789)];
}

/// A port of the node itself that a task needs for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    pub published: u16,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.published, self.protocol)
    }
}
