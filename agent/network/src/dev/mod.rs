//! Network namespaces for the nodes of a cluster on one machine.
//!
//! A bridge connects the nodes with each other and with this machine, which is their router to the outside. Links and
//! namespaces carry the network's name, so that a later process finds and removes what a killed one has left.

mod clean;
mod namespace;
mod rules;
mod subnet;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use swarm_model::Protocol;

use crate::netlink::link::{self, LOOPBACK_INDEX, Setting, VethEnd};
use crate::netlink::route::{self, MAIN_TABLE, Route, RouteTarget, STATIC};
use crate::netlink::{Batch, NetlinkError, Socket, Subsystem};
use crate::node::machine;
use crate::{DevError, netns, sys};

/// Device group of all bridges of development networks.
const BRIDGE_GROUP: u32 = 0x7377_6264;
/// The longest name that leaves room for a node's number in a device name of 15 characters.
const MAX_NAME_LENGTH: usize = 8;
/// Addresses of a /24, without the network's, this machine's and the broadcast address.
const MAX_NODES: u16 = 253;
/// This machine's address is the last of the subnet.
const HOST_OFFSET: u32 = 254;
/// Name of the nodes' only device.
const NODE_DEVICE: &str = "eth0";

/// A bridge on this machine with a named network namespace (`swarm-<name>-<i>`, for `ip netns exec`) per node.
/// Dropping it changes nothing in the kernel.
#[derive(Debug)]
pub struct DevNetwork {
    name: DevName,
    subnet: Ipv4Net,
    bridge: u32,
    nodes: Vec<Node>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Node {
    netns: OwnedFd,
    /// This machine's end of the node's cable.
    port: u32,
}

#[derive(Debug)]
struct State {
    route: Socket,
    netfilter: Socket,
    published: BTreeSet<(Protocol, u16)>,
    /// Nodes whose cable is pulled.
    down: BTreeSet<u16>,
}

impl DevNetwork {
    /// Makes namespaces for the nodes 1 to `nodes`, reachable from the calling thread's namespace. `name` is 1 to 8
    /// characters of `a-z0-9`.
    pub fn create(name: &str, nodes: u16) -> Result<Self, DevError> {
        let name = DevName::parse(name)?;
        if !(1..=MAX_NODES).contains(&nodes) {
            return Err(DevError::Nodes { nodes, most: MAX_NODES });
        }
        let mut route = Socket::open(Subsystem::Route).map_err(DevError::Open)?;
        let netfilter = Socket::open(Subsystem::Netfilter).map_err(DevError::Open)?;
        machine::enable_forwarding().map_err(DevError::Forwarding)?;
        let subnet = subnet::free(&mut route)?;
        let build = Self::build(&mut route, &name, subnet, nodes).and_then(|(bridge, nodes)| {
            let state = State { route, netfilter, published: BTreeSet::new(), down: BTreeSet::new() };
            let network = Self { name: name.clone(), subnet, bridge, nodes, state: Mutex::new(state) };
            network.program(&mut network.state.lock())?;
            Ok(network)
        });
        match build {
            Ok(_) | Err(DevError::Exists { .. }) => {}
            // The first error is the one to tell; what cannot be removed now, the next clean-up removes.
            Err(_) => drop(clean::clean(&name)),
        }
        build
    }

    fn build(
        route: &mut Socket,
        name: &DevName,
        subnet: Ipv4Net,
        nodes: u16,
    ) -> Result<(u32, Vec<Node>), DevError> {
        let bridge = add_bridge(route, name, subnet)?;
        let cables = (1..=nodes).map(|i| Cable { name, subnet, bridge, i });
        let nodes = netns::apart(|| Ok(cables.map(|cable| cable.lay(route)).collect::<Result<Vec<_>, _>>()))
            .map_err(|source| DevError::Namespace { name: name.to_string(), source })??;
        Ok((bridge, nodes))
    }

    /// Number of nodes.
    pub fn nodes(&self) -> u16 {
        u16::try_from(self.nodes.len()).expect("create has limited their number")
    }

    /// Data address of node `i`, from 1.
    pub fn address(&self, i: u16) -> Ipv4Addr {
        offset(self.subnet, i.into())
    }

    /// Address of this machine on the bridge: the nodes' default route.
    pub fn host_address(&self) -> Ipv4Addr {
        offset(self.subnet, HOST_OFFSET)
    }

    /// The nodes' subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// Name of node `i`'s namespace, as `ip netns` knows it.
    pub fn netns_name(&self, i: u16) -> String {
        self.name.netns(i)
    }

    /// Node `i`'s namespace, if there is such a node.
    pub fn netns_fd(&self, i: u16) -> Option<BorrowedFd<'_>> {
        self.node(i).ok().map(|node| node.netns.as_fd())
    }

    fn node(&self, i: u16) -> Result<&Node, DevError> {
        let node = usize::from(i).checked_sub(1).and_then(|index| self.nodes.get(index));
        node.ok_or(DevError::NoNode { node: i, nodes: self.nodes() })
    }

    /// Starts a process inside node `i`'s namespace.
    pub fn spawn(&self, i: u16, command: &mut Command) -> Result<Child, DevError> {
        let failed = |source| DevError::Spawn { node: i, source };
        let netns = self.node(i)?.netns.try_clone().map_err(failed)?;
        sys::spawn_within(netns, command).map_err(failed)
    }

    /// Runs `work` in a thread inside node `i`'s namespace.
    pub fn within<T: Send>(&self, i: u16, work: impl FnOnce() -> T + Send) -> Result<T, DevError> {
        netns::within(self.node(i)?.netns.as_fd(), work)
            .map_err(|source| DevError::Namespace { name: self.netns_name(i), source })
    }

    /// Cuts node `i` off, as if its cable were pulled. Published ports no longer lead to it.
    pub fn link_down(&self, i: u16) -> Result<(), DevError> {
        self.set_link(i, false)
    }

    pub fn link_up(&self, i: u16) -> Result<(), DevError> {
        self.set_link(i, true)
    }

    fn set_link(&self, i: u16, up: bool) -> Result<(), DevError> {
        let port = self.node(i)?.port;
        let mut state = self.state.lock();
        let mut batch = Batch::new();
        link::set_up(&mut batch, port, up);
        state.route.execute(batch).map_err(|source| self.failed(source))?;
        if up {
            state.down.remove(&i);
        } else {
            state.down.insert(i);
        }
        self.program(&mut state)
    }

    /// What of this machine's own configuration keeps the nodes' packets from flowing, with what to do about it.
    pub fn warnings(&self) -> Result<Vec<String>, DevError> {
        let bridge = self.name.bridge();
        let matches = [format!("iifname {bridge}"), format!("oifname {bridge}")];
        machine::dropping_chains(&mut self.state.lock().netfilter, &matches)
            .map_err(|source| self.failed(source))
    }

    /// Makes exactly these ports of this machine's loopback and bridge address lead to the nodes, each connection to one
    /// of them at random.
    pub fn publish(&self, ports: &BTreeSet<(Protocol, u16)>) -> Result<(), DevError> {
        let mut state = self.state.lock();
        if state.published == *ports {
            return Ok(());
        }
        state.published.clone_from(ports);
        self.program(&mut state)
    }

    fn program(&self, state: &mut State) -> Result<(), DevError> {
        let up = (1..=self.nodes()).filter(|i| !state.down.contains(i)).map(|i| self.address(i)).collect();
        let rules = rules::Rules {
            name: &self.name,
            subnet: self.subnet,
            host: self.host_address(),
            nodes: up,
            ports: &state.published,
        };
        rules.transaction().commit(&mut state.netfilter).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: NetlinkError) -> DevError {
        DevError::Netlink { name: self.name.to_string(), source }
    }

    /// Removes everything. Namespaces go when the last process inside ends.
    pub fn destroy(self) -> Result<(), DevError> {
        clean::clean(&self.name)
    }

    /// Removes what a killed run of that name left behind, whether there is anything or not. Its processes are the
    /// caller's: see [`Self::processes`].
    pub fn clean(name: &str) -> Result<(), DevError> {
        clean::clean(&DevName::parse(name)?)
    }

    /// Processes that run inside the named namespaces of that network: node and process id.
    pub fn processes(name: &str) -> Result<Vec<(u16, i32)>, DevError> {
        clean::processes(&DevName::parse(name)?)
    }

    /// The bridge's device number in the namespace of [`Self::create`].
    pub fn bridge(&self) -> u32 {
        self.bridge
    }
}

/// The name of a development network, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DevName(String);

impl DevName {
    fn parse(name: &str) -> Result<Self, DevError> {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        if (1..=MAX_NAME_LENGTH).contains(&name.len()) && name.bytes().all(good) {
            Ok(Self(name.to_owned()))
        } else {
            Err(DevError::Name { name: name.to_owned(), most: MAX_NAME_LENGTH })
        }
    }

    fn bridge(&self) -> String {
        format!("sw-{}", self.0)
    }

    fn port(&self, i: u16) -> String {
        format!("sw-{}-{i}", self.0)
    }

    fn netns(&self, i: u16) -> String {
        format!("{}{i}", self.netns_prefix())
    }

    fn netns_prefix(&self) -> String {
        format!("swarm-{}-", self.0)
    }

    fn table(&self) -> String {
        format!("swarm-dev-{}", self.0)
    }
}

impl std::fmt::Display for DevName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Device group of the ports of a bridge, by which they are removed together.
fn port_group(bridge: u32) -> u32 {
    0x7378_0000 | (bridge & 0xffff)
}

fn offset(subnet: Ipv4Net, offset: u32) -> Ipv4Addr {
    (subnet.network().to_bits() + offset).into()
}

fn add_bridge(socket: &mut Socket, name: &DevName, subnet: Ipv4Net) -> Result<u32, DevError> {
    let failed = |source| DevError::Netlink { name: name.to_string(), source };
    let mut batch = Batch::new();
    link::add_bridge(&mut batch, &name.bridge(), BRIDGE_GROUP);
    match socket.execute(batch) {
        Err(error) if error.refusal() == Some(libc::EEXIST) => {
            return Err(DevError::Exists { name: name.to_string() });
        }
        outcome => outcome.map_err(failed)?,
    }
    let bridge = link::find(socket, &name.bridge()).map_err(failed)?;
    let bridge = bridge.expect("the kernel has just acknowledged the bridge").index;
    let mut batch = Batch::new();
    // The machine may itself be a fresh namespace; published ports need its loopback.
    link::set_up(&mut batch, LOOPBACK_INDEX, true);
    link::without_ipv6(&mut batch, bridge);
    link::configure(&mut batch, bridge, &[(Setting::Forwarding, 1), (Setting::RouteLocalnet, 1)]);
    let host = Ipv4Net::new_assert(offset(subnet, HOST_OFFSET), subnet.prefix_len());
    route::add_address(&mut batch, bridge, host);
    link::set_up(&mut batch, bridge, true);
    socket.execute(batch).map_err(failed)?;
    Ok(bridge)
}

/// The connection of one node to be.
struct Cable<'a> {
    name: &'a DevName,
    subnet: Ipv4Net,
    bridge: u32,
    i: u16,
}

impl Cable<'_> {
    /// Makes the namespace and connects it. Leaves the calling thread in the namespace.
    fn lay(&self, outside: &mut Socket) -> Result<Node, DevError> {
        let failed = |source| DevError::Netlink { name: self.name.to_string(), source };
        let netns = namespace::create(&self.name.netns(self.i))?;
        let port_name = self.name.port(self.i);
        let here = VethEnd { name: &port_name, mac: None, mtu: None };
        let there = VethEnd { name: NODE_DEVICE, mac: None, mtu: None };
        let mut batch = Batch::new();
        let group = port_group(self.bridge);
        link::add_veth(&mut batch, here, there, netns.as_fd(), group, Some(self.bridge));
        outside.execute(batch).map_err(failed)?;
        let mut inside = Socket::open(Subsystem::Route).map_err(failed)?;
        let device = link::find(&mut inside, NODE_DEVICE).map_err(failed)?;
        let device = device.expect("the kernel has just acknowledged the pair");
        let port = device.peer.expect("an end of a pair has a peer");
        self.set_up_inside(&mut inside, device.index).map_err(failed)?;
        let mut batch = Batch::new();
        link::without_ipv6(&mut batch, port);
        link::set_up(&mut batch, port, true);
        outside.execute(batch).map_err(failed)?;
        Ok(Node { netns, port })
    }

    fn set_up_inside(&self, inside: &mut Socket, device: u32) -> Result<(), NetlinkError> {
        let address = offset(self.subnet, self.i.into());
        let mut batch = Batch::new();
        link::set_up(&mut batch, LOOPBACK_INDEX, true);
        link::without_ipv6(&mut batch, device);
        route::add_address(&mut batch, device, Ipv4Net::new_assert(address, self.subnet.prefix_len()));
        link::set_up(&mut batch, device, true);
        let target = RouteTarget::Gateway(offset(self.subnet, HOST_OFFSET), device);
        Route { destination: Ipv4Net::default(), table: MAIN_TABLE, target, source: None, origin: STATIC }
            .replace(&mut batch);
        inside.execute(batch)
    }
}
