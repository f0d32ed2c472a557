//! A look at the machine's network that changes nothing, for an operator in doubt.

use std::net::Ipv4Addr;

use crate::error::OpenError;
use crate::netlink::{Socket, Subsystem};
use crate::node::machine;

/// What was seen in the calling thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// MTU of the device that has the data address; `None`: no device has it.
    pub mtu: Option<u16>,
    /// Firewalls that drop the cluster's packets, each with what to do about it.
    pub firewalls: Vec<String>,
}

/// # Errors
/// The kernel is too old or cannot be asked.
pub fn examine(data_address: Ipv4Addr) -> Result<Examined, OpenError> {
    machine::check_kernel()?;
    let mtu = machine::underlay_mtu(&mut Socket::open(Subsystem::Route)?, data_address)?;
    let firewalls = machine::firewalls(&mut Socket::open(Subsystem::Netfilter)?)?;
    Ok(Examined { mtu, firewalls })
}
