//! The networks of single tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use super::mesh::note;
use super::prepared::{self, Prepared, TASK_END_MAC};
use super::ruleset::TASK_GROUP;
use super::state::State;
use super::tables::{Changes, Port};
use super::tunnel::Tunnel;
use crate::conntrack::Senders;
use crate::netlink::{Batch, NetlinkError, Socket, Subsystem, link, route};
use crate::{HostPort, Target, TaskError, netns};

/// Group into which stray devices are put so that they go together: one removal costs as much as a thousand.
const STRAY_GROUP: u32 = 0x7377_6565;
/// The kernel's limit of a device's alias, without its terminating zero.
const MAX_ALIAS_BYTES: usize = 255;

/// A task that has its network.
#[derive(Debug)]
pub struct Task {
    pub address: Ipv4Addr,
    /// The node's end of the veth pair.
    pub device: u32,
    /// Keeps the namespace while no process of the task runs.
    #[expect(dead_code, reason = "held for what closing it does")]
    netns: OwnedFd,
}

impl Task {
    /// Routes the task's address to its device.
    pub fn connect(&self, batch: &mut Batch, tunnel: &Tunnel) {
        route::set_neighbour(batch, self.device, self.address, TASK_END_MAC);
        tunnel.task_route(self.address, self.device).replace(batch);
    }
}

/// An operation on the kernel for a task.
fn failed(name: &str) -> impl FnOnce(NetlinkError) -> TaskError {
    let name = name.to_owned();
    |source| TaskError::Netlink { name, source }
}

impl State {
    /// Refuses a name or address that cannot be attached.
    pub fn check_free(&self, name: &str, address: Ipv4Addr) -> Result<(), TaskError> {
        let name = || name.to_owned();
        let parameters = self.tunnel.parameters;
        if self.tasks.contains_key(&name()) {
            return Err(TaskError::Attached { name: name() });
        }
        if !parameters.plan.is_task_address(parameters.index, address) {
            let block = parameters.plan.block(parameters.index);
            return Err(TaskError::ForeignAddress { name: name(), address, block });
        }
        match self.tasks.iter().find(|(_, task)| task.address == address) {
            Some((holder, _)) => {
                Err(TaskError::AddressInUse { name: name(), address, holder: holder.clone() })
            }
            None => Ok(()),
        }
    }

    pub fn attach(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        prepared: Prepared,
    ) -> Result<OwnedFd, TaskError> {
        self.check_free(name, address)?;
        let (netns, device) = prepared.assign(address).map_err(failed(name))?;
        let copy =
            netns.try_clone().map_err(|source| TaskError::Namespace { name: name.to_owned(), source })?;
        self.add_task(name, Task { address, device, netns })?;
        Ok(copy)
    }

    pub fn adopt(&mut self, name: &str, address: Ipv4Addr, netns: OwnedFd) -> Result<(), TaskError> {
        self.check_free(name, address)?;
        let unusable = |source| TaskError::Namespace { name: name.to_owned(), source };
        let mut inside = netns::within(netns.as_fd(), || Socket::open(Subsystem::Route))
            .map_err(unusable)?
            .map_err(failed(name))?;
        let missing = || TaskError::NoDevice { name: name.to_owned() };
        let (task_device, device) = prepared::ends(&mut inside).map_err(failed(name))?.ok_or_else(missing)?;
        // The number could be that of a device in another namespace: the pair has to point back.
        let node_end = link::by_index(&mut self.route, device).map_err(failed(name))?;
        if node_end.is_none_or(|end| end.group != TASK_GROUP || end.peer != Some(task_device)) {
            return Err(missing());
        }
        self.add_task(name, Task { address, device, netns })
    }

    fn add_task(&mut self, name: &str, task: Task) -> Result<(), TaskError> {
        let mut batch = Batch::new();
        let alias = &name[..name.floor_char_boundary(MAX_ALIAS_BYTES)];
        link::set_group_and_alias(&mut batch, task.device, TASK_GROUP, alias);
        task.connect(&mut batch, &self.tunnel);
        self.route.execute(batch).map_err(failed(name))?;
        self.tasks.insert(name.to_owned(), task);
        Ok(())
    }

    fn address_of(&self, name: &str) -> Result<Ipv4Addr, TaskError> {
        match self.tasks.get(name) {
            Some(task) => Ok(task.address),
            None => Err(TaskError::Unknown { name: name.to_owned() }),
        }
    }

    pub fn set_targets(&mut self, name: &str, targets: &[Target]) -> Result<(), TaskError> {
        let address = self.address_of(name)?;
        let mut changes = Changes::default();
        self.change_targets(address, targets, &mut changes);
        self.commit(&changes).map_err(failed(name))
    }

    fn change_targets(&mut self, address: Ipv4Addr, targets: &[Target], changes: &mut Changes) {
        let after: BTreeSet<_> =
            targets.iter().map(|target| (address, target.protocol, target.target_port)).collect();
        let before: BTreeSet<_> =
            self.tables.targets.iter().filter(|target| target.0 == address).copied().collect();
        for &target in before.difference(&after) {
            changes.target(target, true, false);
            self.tables.targets.remove(&target);
        }
        for &target in after.difference(&before) {
            changes.target(target, false, true);
            self.tables.targets.insert(target);
        }
    }

    pub fn set_host_ports(&mut self, name: &str, ports: &[HostPort]) -> Result<(), TaskError> {
        let address = self.address_of(name)?;
        for port in ports {
            if let Some(holder) = self.other_holder((port.protocol, port.published), address) {
                return Err(TaskError::PortInUse { name: name.to_owned(), port: port.published, holder });
            }
        }
        let mut changes = Changes::default();
        let senders = self.change_host_ports(address, ports, &mut changes);
        self.commit(&changes).map_err(failed(name))?;
        self.release(&senders);
        Ok(())
    }

    /// Another task of this node that has the host port.
    fn other_holder(&self, port: Port, address: Ipv4Addr) -> Option<Ipv4Addr> {
        let holder = *self.tables.host_ports.get(&port)?.ip();
        (holder != address && self.tasks.values().any(|task| task.address == holder)).then_some(holder)
    }

    fn change_host_ports(&mut self, address: Ipv4Addr, ports: &[HostPort], changes: &mut Changes) -> Senders {
        let mut senders = Senders::default();
        let after: BTreeMap<Port, SocketAddrV4> = ports
            .iter()
            .map(|port| ((port.protocol, port.published), SocketAddrV4::new(address, port.target)))
            .collect();
        let gone: Vec<(Port, SocketAddrV4)> = self
            .tables
            .host_ports
            .iter()
            .filter(|(port, target)| *target.ip() == address && !after.contains_key(port))
            .map(|(&port, &target)| (port, target))
            .collect();
        for (port, target) in gone {
            self.tables.host_ports.remove(&port);
            changes.host_port(port, Some(target), None);
            note(&mut senders, port, Some(&[target]), &[]);
        }
        for (port, target) in after {
            let before = self.tables.host_ports.insert(port, target);
            changes.host_port(port, before, Some(target));
            note(&mut senders, port, before.as_ref().map(std::slice::from_ref), &[target]);
        }
        senders
    }

    pub fn detach(&mut self, name: &str) -> Result<(), TaskError> {
        let Some(task) = self.tasks.remove(name) else { return Ok(()) };
        let mut changes = Changes::default();
        self.change_targets(task.address, &[], &mut changes);
        let senders = self.change_host_ports(task.address, &[], &mut changes);
        let committed = self.commit(&changes).map_err(failed(name));
        // The device goes with the namespace, but not before the last process has left; the address is free now.
        let mut batch = Batch::new();
        self.tunnel.task_route(task.address, task.device).delete(&mut batch);
        route::delete_neighbour(&mut batch, task.device, task.address);
        let routed = self.route.execute(batch).map_err(failed(name));
        self.release(&senders);
        committed.and(routed)
    }

    pub fn sweep(&mut self) -> Result<usize, TaskError> {
        let known: BTreeSet<u32> = self.tasks.values().map(|task| task.device).collect();
        let links = link::list(&mut self.route).map_err(TaskError::Sweep)?;
        let strays: Vec<u32> = links
            .iter()
            .filter(|link| link.group == TASK_GROUP && !known.contains(&link.index))
            .map(|link| link.index)
            .collect();
        let mut batch = Batch::new();
        for &stray in &strays {
            link::set_group(&mut batch, stray, STRAY_GROUP);
        }
        if !batch.is_empty() {
            link::delete_group(&mut batch, STRAY_GROUP);
        }
        self.route.execute(batch).map_err(TaskError::Sweep)?;
        self.sweep_tables().map_err(TaskError::Sweep)?;
        Ok(strays.len())
    }

    /// Removes what the tables hold of addresses without a task.
    fn sweep_tables(&mut self) -> Result<(), NetlinkError> {
        let known: BTreeSet<Ipv4Addr> = self.tasks.values().map(|task| task.address).collect();
        let named = self.tables.targets.iter().map(|target| target.0);
        let published = self.tables.host_ports.values().map(|target| *target.ip());
        let strays: BTreeSet<Ipv4Addr> =
            named.chain(published).filter(|address| !known.contains(address)).collect();
        let mut changes = Changes::default();
        let mut senders = Senders::default();
        for address in strays {
            self.change_targets(address, &[], &mut changes);
            let gone = self.change_host_ports(address, &[], &mut changes).translated_to;
            senders.translated_to.extend(gone);
        }
        self.commit(&changes)?;
        self.release(&senders);
        Ok(())
    }
}
