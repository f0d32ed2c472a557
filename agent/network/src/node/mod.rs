//! One node's data path.
//!
//! The memory of what is programmed is the measure: an operation changes it, then makes the kernel equal, in one nf_tables
//! transaction. If the kernel refuses a change because somebody else has been at our tables, the tables are loaded anew
//! from memory, whole, in one transaction that established connections do not notice.

mod dump;
mod leftovers;
pub(crate) mod machine;
mod mesh;
mod prepared;
mod ruleset;
mod slots;
mod state;
mod tables;
mod tasks;
mod tunnel;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;

use crate::address_plan::AddressPlan;
use crate::netlink::{Socket, Subsystem};
use crate::{HostPort, Mesh, MeshError, NodeNetworkConfig, OpenError, Target, TaskError};
use prepared::Pool;
pub use prepared::PrepareError;
use ruleset::Parameters;
use state::State;
pub(crate) use tables::number;
use tunnel::{TUNNEL_OVERHEAD, Tunnel, Wanted};

/// Every host has to take packets of this size (RFC 791), so no link is smaller.
const LEAST_MTU: u16 = 576;

/// Everything that this node has in its kernel for the cluster. Dropping it changes nothing in the kernel, except that
/// namespaces without a process go.
#[derive(Debug)]
pub struct NodeNetwork {
    state: Mutex<State>,
    pool: Pool,
    warnings: Vec<String>,
}

impl NodeNetwork {
    /// Creates or adopts the node's network in the calling thread's network namespace. What an earlier process of this
    /// node programmed stays in force until the first [`Self::apply_mesh`] and [`Self::sweep`].
    pub fn open(config: NodeNetworkConfig) -> Result<Self, OpenError> {
        machine::check_kernel()?;
        let plan = AddressPlan::new(config.pool)?;
        plan.check(config.index)?;
        if plan.pool().contains(&config.data_address) {
            return Err(OpenError::DataAddressInPool { address: config.data_address, pool: plan.pool() });
        }
        let mut route = Socket::open(Subsystem::Route)?;
        let mut netfilter = Socket::open(Subsystem::Netfilter)?;
        machine::enable_forwarding()?;
        let mtu = tunnel_mtu(&config, &mut route)?;
        let parameters =
            Parameters { plan, index: config.index, vni: config.vni, vxlan_port: config.vxlan_port };
        let wanted = Wanted { parameters, data_address: config.data_address, mtu };
        let tunnel = Tunnel::open(&mut route, &wanted)?;
        let pool = Pool::start(config.prepared, mtu)?;
        let warnings = machine::obstacles(&mut route, &mut netfilter, plan)?;
        for warning in &warnings {
            tracing::warn!(node.index = config.index, "{warning}");
        }
        let state = State::load(route, netfilter, tunnel, config.data_address)?;
        Ok(Self { state: Mutex::new(state), pool, warnings })
    }

    /// Things of the machine that will keep traffic from flowing, each with what to do about it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes the kernel's mesh equal to `mesh`; the kernel's work is proportional to what differs from the last one.
    pub fn apply_mesh(&self, mesh: &Mesh) -> Result<(), MeshError> {
        self.state.lock().apply_mesh(mesh)
    }

    /// Makes a network namespace for task `name`, with its gateway device holding `address`. The caller's copy of the
    /// namespace is for the container's processes; this keeps another until [`Self::detach`].
    pub fn attach(&self, name: &str, address: Ipv4Addr) -> Result<OwnedFd, TaskError> {
        self.state.lock().check_free(name, address)?;
        let prepared =
            self.pool.take().map_err(|source| TaskError::Prepare { name: name.to_owned(), source })?;
        self.state.lock().attach(name, address, prepared)
    }

    /// Takes over the network of a task that an earlier process of this node attached.
    pub fn adopt(&self, name: &str, address: Ipv4Addr, netns: OwnedFd) -> Result<(), TaskError> {
        self.state.lock().adopt(name, address, netns)
    }

    /// Replaces the list of ports of an attached task that other nodes may reach.
    pub fn set_targets(&self, name: &str, targets: &[Target]) -> Result<(), TaskError> {
        self.state.lock().set_targets(name, targets)
    }

    /// Replaces the list of this node's ports that lead to an attached task.
    pub fn set_host_ports(&self, name: &str, ports: &[HostPort]) -> Result<(), TaskError> {
        self.state.lock().set_host_ports(name, ports)
    }

    /// Removes a task's rules at once and lets its namespace go. Unknown names are nothing to do.
    pub fn detach(&self, name: &str) -> Result<(), TaskError> {
        self.state.lock().detach(name)
    }

    /// Removes the devices and rules of tasks that are neither attached nor adopted. Gives the number of devices.
    pub fn sweep(&self) -> Result<usize, TaskError> {
        self.state.lock().sweep()
    }

    /// Looks whether the kernel still has what was programmed, which other software may have flushed, and restores it.
    /// Gives whether it had to.
    pub fn repair(&self) -> Result<bool, OpenError> {
        self.state.lock().repair()
    }

    /// What is programmed, as text for people: the rules from memory, everything else from the kernel.
    pub fn dump(&self) -> Result<String, OpenError> {
        self.state.lock().dump()
    }

    /// What a node has left in the calling thread's namespace, a line each: nothing after [`Self::teardown`].
    pub fn leftovers() -> Result<Vec<String>, OpenError> {
        leftovers::list()
    }

    /// Removes everything that this node made in the kernel, task networks included.
    pub fn teardown(self) -> Result<(), OpenError> {
        drop(self.pool);
        self.state.into_inner().teardown()
    }
}

fn tunnel_mtu(config: &NodeNetworkConfig, route: &mut Socket) -> Result<u16, OpenError> {
    let underlay = match config.mtu {
        Some(mtu) => mtu,
        None => machine::underlay_mtu(route, config.data_address)?
            .ok_or(OpenError::NoDevice { address: config.data_address })?,
    };
    let least = LEAST_MTU + TUNNEL_OVERHEAD;
    if underlay < least {
        return Err(OpenError::MtuTooSmall { mtu: underlay, least });
    }
    Ok(underlay - TUNNEL_OVERHEAD)
}
