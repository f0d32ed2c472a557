//! Network namespaces for the nodes of a cluster on one machine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::process::{Child, Command};

use swarm_model::Protocol;

use crate::DevError;

/// A bridge on this machine with a named network namespace (`swarm-<name>-<i>`, for `ip netns exec`) per node.
/// Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct DevNetwork {}

impl DevNetwork {
    /// Makes namespaces for the nodes 1 to `nodes`. `name` is 1 to 8 characters of `a-z0-9`.
    pub fn create(_name: &str, _nodes: u16) -> Result<Self, DevError> {
        Err(DevError::Unavailable)
    }

    /// Data address of node `i`, from 1.
    pub fn address(&self, _i: u16) -> Ipv4Addr {
        Ipv4Addr::UNSPECIFIED
    }

    /// Address of this machine on the bridge: the nodes' default route.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::UNSPECIFIED
    }

    pub fn netns_fd(&self, _i: u16) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Starts a process inside node `i`'s namespace.
    pub fn spawn(&self, _i: u16, _command: &mut Command) -> Result<Child, DevError> {
        Err(DevError::Unavailable)
    }

    /// Cuts node `i` off, as if its cable were pulled.
    pub fn link_down(&self, _i: u16) -> Result<(), DevError> {
        Err(DevError::Unavailable)
    }

    pub fn link_up(&self, _i: u16) -> Result<(), DevError> {
        Err(DevError::Unavailable)
    }

    /// Makes exactly these ports of this machine's loopback and bridge address lead to the nodes.
    pub fn publish(&self, _ports: &BTreeSet<(Protocol, u16)>) -> Result<(), DevError> {
        Err(DevError::Unavailable)
    }

    pub fn destroy(self) -> Result<(), DevError> {
        Err(DevError::Unavailable)
    }

    /// Removes what a killed run of that name left behind. Its processes are the caller's: see [`Self::processes`].
    pub fn clean(_name: &str) -> Result<(), DevError> {
        Err(DevError::Unavailable)
    }

    /// Processes that run inside the namespaces of that name: node and process id.
    pub fn processes(_name: &str) -> Result<Vec<(u16, i32)>, DevError> {
        Err(DevError::Unavailable)
    }
}
