//! One node's data path.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use crate::{HostPort, Mesh, MeshError, NodeNetworkConfig, OpenError, Target, TaskError};

/// Everything that this node has in its kernel for the cluster. Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct NodeNetwork {}

impl NodeNetwork {
    /// Creates or adopts the node's network in the calling thread's network namespace. What an earlier process of this
    /// node programmed stays in force until the first [`Self::apply_mesh`] and [`Self::sweep`].
    pub fn open(_config: NodeNetworkConfig) -> Result<Self, OpenError> {
        Err(OpenError::Unavailable)
    }

    /// Things of the machine that will keep traffic from flowing, each with what to do about it.
    pub fn warnings(&self) -> &[String] {
        &[]
    }

    /// Makes the kernel's mesh equal to `mesh`; the work is proportional to what differs from the last one.
    pub fn apply_mesh(&self, _mesh: &Mesh) -> Result<(), MeshError> {
        Err(MeshError::Unavailable)
    }

    /// Makes a network namespace for task `name`, with its gateway device holding `address`. The caller's copy of the
    /// namespace is for the container's processes; this keeps another until [`Self::detach`].
    pub fn attach(&self, _name: &str, _address: Ipv4Addr) -> Result<OwnedFd, TaskError> {
        Err(TaskError::Unavailable)
    }

    /// Takes over the network of a task that an earlier process of this node attached.
    pub fn adopt(&self, _name: &str, _address: Ipv4Addr, _netns: OwnedFd) -> Result<(), TaskError> {
        Err(TaskError::Unavailable)
    }

    /// Replaces the list of ports of an attached task that other nodes may reach.
    pub fn set_targets(&self, _name: &str, _targets: &[Target]) -> Result<(), TaskError> {
        Err(TaskError::Unavailable)
    }

    /// Replaces the list of this node's ports that lead to an attached task.
    pub fn set_host_ports(&self, _name: &str, _ports: &[HostPort]) -> Result<(), TaskError> {
        Err(TaskError::Unavailable)
    }

    /// Removes a task's rules at once and lets its namespace go. Unknown names are nothing to do.
    pub fn detach(&self, _name: &str) -> Result<(), TaskError> {
        Err(TaskError::Unavailable)
    }

    /// Removes the devices and rules of tasks that are neither attached nor adopted.
    pub fn sweep(&self) -> Result<(), TaskError> {
        Err(TaskError::Unavailable)
    }

    /// What is programmed, as text for people.
    pub fn dump(&self) -> Result<String, OpenError> {
        Err(OpenError::Unavailable)
    }

    /// Removes everything that this node made in the kernel, task networks included.
    pub fn teardown(self) -> Result<(), OpenError> {
        Err(OpenError::Unavailable)
    }
}
