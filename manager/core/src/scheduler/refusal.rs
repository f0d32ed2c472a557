//! Why tasks were not placed, in words for the operator: cause first, on one line.

use std::fmt;

use swarm_model::{Constraint, HostPort, NodeId, Platform, Resources};

use super::fix::{Cpu, Fix, Memory};

/// Causes that the text names; a spec may have a thousand constraints.
const MAX_CAUSES_SHOWN: usize = 5;

/// Why some tasks of a request were not placed. `Display` is one line; the ways out are in `fixes`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Tasks of the request that have no node.
    pub unplaced: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Each node that does not fit counts once, for the first filter that excludes it. Most nodes first.
    pub excluded: Vec<Exclusion>,
    /// The node that is the least away from fitting.
    pub nearest: Option<NearMiss>,
    /// Single steps that would let one more task fit, the least intrusive first.
    pub fixes: Vec<Fix>,
}

/// One filter and what it took away.
#[derive(Debug, Clone, PartialEq)]
pub struct Exclusion {
    pub cause: Cause,
    pub nodes: usize,
    /// For causes of resources: the node that has the most of what is needed.
    pub closest: Option<Closest>,
}

/// How close a node is to having room.
#[derive(Debug, Clone, PartialEq)]
pub struct Closest {
    pub node: NodeId,
    /// Hostname, or the id if it has none.
    pub name: String,
    pub need: Resources,
    pub free: Resources,
}

/// A node, and all that keeps it from fitting.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    pub node: NodeId,
    /// Hostname, or the id if it has none.
    pub name: String,
    pub lacks: Vec<Cause>,
}

/// What excludes a node, in the order of the filters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No member any more.
    Removed,
    Down,
    /// Not heard of since this leader took over.
    Unknown,
    Draining,
    Paused,
    Short {
        of_cpu: bool,
        of_memory: bool,
    },
    Constraint(Constraint),
    /// The image exists for these only.
    Platform(Vec<Platform>),
    HostPort(HostPort),
    /// The limit of replicas per node.
    MaxReplicas(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no suitable node")?;
        if self.nodes == 0 {
            return f.write_str(": the cluster has no nodes");
        }
        for (index, exclusion) in self.excluded.iter().take(MAX_CAUSES_SHOWN).enumerate() {
            write!(f, "{}{exclusion}", if index == 0 { ": " } else { ", " })?;
        }
        match self.excluded.get(MAX_CAUSES_SHOWN..).unwrap_or_default() {
            [] => Ok(()),
            rest => write!(f, ", {} for other causes", rest.iter().map(|other| other.nodes).sum::<usize>()),
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.nodes, self.cause)?;
        match (&self.closest, &self.cause) {
            (Some(closest), Cause::Short { of_cpu, of_memory }) => {
                write!(f, " (closest {}: ", closest.name)?;
                let Closest { need, free, .. } = closest;
                if *of_cpu {
                    write!(f, "{} of {} CPU", Cpu::floor(free.cpu_nanos), Cpu::ceil(need.cpu_nanos))?;
                }
                if *of_cpu && *of_memory {
                    f.write_str(", ")?;
                }
                if *of_memory {
                    let (free, need) = (Memory::floor(free.memory_bytes), Memory::ceil(need.memory_bytes));
                    write!(f, "{free} of {need}")?;
                }
                f.write_str(" free)")
            }
            _ => Ok(()),
        }
    }
}

/// What is said of nodes that it excludes, after their number.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("removed"),
            Self::Down => f.write_str("down"),
            Self::Unknown => f.write_str("not heard of yet"),
            Self::Draining => f.write_str("draining"),
            Self::Paused => f.write_str("paused"),
            Self::Short { of_cpu: true, of_memory: false } => f.write_str("short of CPU"),
            Self::Short { of_cpu: false, .. } => f.write_str("short of memory"),
            Self::Short { of_cpu: true, of_memory: true } => f.write_str("short of CPU and memory"),
            Self::Constraint(constraint) => write!(f, "excluded by constraint {constraint}"),
            Self::Platform(platforms) => {
                f.write_str("of another platform than ")?;
                for (index, Platform { os, arch }) in platforms.iter().take(MAX_CAUSES_SHOWN).enumerate() {
                    write!(f, "{}{os}/{arch}", if index == 0 { "" } else { " or " })?;
                }
                Ok(())
            }
            Self::HostPort(port) => write!(f, "with host port {port} in use"),
            Self::MaxReplicas(1) => f.write_str("at the limit of 1 replica per node"),
            Self::MaxReplicas(limit) => write!(f, "at the limit of {limit} replicas per node"),
        }
    }
}
