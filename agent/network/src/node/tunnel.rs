//! The tunnel device to the other nodes, and the routes that lead into it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ruleset::{Parameters, TUNNEL};
use crate::address_plan::{MARK_FLAG, index_of_mac, tunnel_mac};
use crate::netlink::link::{self, Setting, Vxlan};
use crate::netlink::route::{self, MAIN_TABLE, MarkRule, ORIGIN, Route, RouteTarget};
use crate::netlink::{Batch, NetlinkError, Socket};

/// Routing table of packets that have to go back through another node.
const RETURN_TABLE: u32 = 21_335;
/// Before the main table (32766) and what VPN software usually takes.
const RETURN_PREFERENCE: u32 = 1000;
/// VXLAN over IPv4 adds an outer Ethernet, IP, UDP and VXLAN header: 14 + 20 + 8 + 8 bytes.
pub const TUNNEL_OVERHEAD: u16 = 50;

const RETURN_RULE: MarkRule =
    MarkRule { preference: RETURN_PREFERENCE, mark: MARK_FLAG, mask: MARK_FLAG, table: RETURN_TABLE };

/// The tunnel device, in working order.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel {
    pub device: u32,
    /// In bytes.
    pub mtu: u16,
    pub parameters: Parameters,
}

/// What the tunnel device should be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub parameters: Parameters,
    pub data_address: Ipv4Addr,
    /// Of the tunnel itself, in bytes.
    pub mtu: u16,
}

impl Tunnel {
    /// Creates the device, or takes the one that is there if it is the same; then everything that hangs on it.
    pub fn open(socket: &mut Socket, wanted: &Wanted) -> Result<Self, NetlinkError> {
        let device = match link::find(socket, TUNNEL)? {
            Some(found) if wanted.is(&found) => {
                if found.mtu != u32::from(wanted.mtu) {
                    let mut batch = Batch::new();
                    link::set_mtu(&mut batch, found.index, wanted.mtu);
                    socket.execute(batch)?;
                }
                found.index
            }
            Some(other) => {
                let mut batch = Batch::new();
                link::delete(&mut batch, other.index);
                socket.execute(batch)?;
                wanted.create(socket)?
            }
            None => wanted.create(socket)?,
        };
        let tunnel = Self { device, mtu: wanted.mtu, parameters: wanted.parameters };
        tunnel.configure(socket)?;
        Ok(tunnel)
    }

    fn configure(&self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let plan = self.parameters.plan;
        let address = plan.tunnel_address(self.parameters.index);
        let mut batch = Batch::new();
        link::without_ipv6(&mut batch, self.device);
        // Answers come in through the tunnel from addresses whose route is elsewhere: only loose path filtering works.
        let settings = [(Setting::Forwarding, 1), (Setting::RpFilter, 2), (Setting::RouteLocalnet, 1)];
        link::configure(&mut batch, self.device, &settings);
        route::add_address(&mut batch, self.device, Ipv4Net::from(address));
        link::set_up(&mut batch, self.device, true);
        route::set_neighbour(&mut batch, self.device, plan.anonymous_next_hop(), tunnel_mac(0));
        self.block_route().replace(&mut batch);
        self.return_route().replace(&mut batch);
        RETURN_RULE.add(&mut batch);
        socket.execute(batch)
    }

    /// Addresses of no task answer "unreachable" instead of leaving through the default route.
    fn block_route(&self) -> Route {
        Route {
            destination: self.parameters.plan.block(self.parameters.index),
            table: MAIN_TABLE,
            target: RouteTarget::Unreachable,
            source: None,
            origin: ORIGIN,
        }
    }

    fn return_route(&self) -> Route {
        Route {
            destination: Ipv4Net::default(),
            table: RETURN_TABLE,
            target: RouteTarget::Gateway(self.parameters.plan.anonymous_next_hop(), self.device),
            source: None,
            origin: ORIGIN,
        }
    }

    fn peer_route(&self, index: u16) -> Route {
        let plan = self.parameters.plan;
        Route {
            destination: plan.block(index),
            table: MAIN_TABLE,
            target: RouteTarget::Gateway(plan.tunnel_address(index), self.device),
            source: Some(plan.tunnel_address(self.parameters.index)),
            origin: ORIGIN,
        }
    }

    /// Makes another node reachable, or changes where it is.
    pub fn add_peer(&self, batch: &mut Batch, index: u16, data_address: Ipv4Addr) {
        let tunnel_address = self.parameters.plan.tunnel_address(index);
        route::set_forwarding(batch, self.device, tunnel_mac(index), data_address);
        route::set_neighbour(batch, self.device, tunnel_address, tunnel_mac(index));
        self.peer_route(index).replace(batch);
    }

    pub fn remove_peer(&self, batch: &mut Batch, index: u16) {
        let tunnel_address = self.parameters.plan.tunnel_address(index);
        self.peer_route(index).delete(batch);
        route::delete_neighbour(batch, self.device, tunnel_address);
        route::delete_forwarding(batch, self.device, tunnel_mac(index));
    }

    /// The nodes that the device knows.
    pub fn peers(&self, socket: &mut Socket) -> Result<Vec<(u16, Ipv4Addr)>, NetlinkError> {
        let forwardings = route::forwardings(socket, self.device)?;
        Ok(forwardings.into_iter().filter_map(|(mac, data)| Some((index_of_mac(mac)?, data))).collect())
    }

    /// Route to a task of this node, behind the host end of its veth pair.
    pub fn task_route(&self, address: Ipv4Addr, device: u32) -> Route {
        Route {
            destination: Ipv4Net::from(address),
            table: MAIN_TABLE,
            target: RouteTarget::Device(device),
            source: Some(self.parameters.plan.tunnel_address(self.parameters.index)),
            origin: ORIGIN,
        }
    }

    /// Removes the device and all that hangs on it.
    pub fn remove(&self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        RETURN_RULE.delete(&mut batch);
        self.block_route().delete(&mut batch);
        link::delete(&mut batch, self.device);
        socket.execute(batch)
    }
}

impl Wanted {
    fn vxlan(&self) -> Vxlan {
        let Parameters { vni, vxlan_port: port, .. } = self.parameters;
        Vxlan { vni, local: self.data_address, port }
    }

    fn is(&self, found: &link::Link) -> bool {
        found.vxlan == Some(self.vxlan()) && found.mac == Some(tunnel_mac(self.parameters.index))
    }

    fn create(&self, socket: &mut Socket) -> Result<u32, NetlinkError> {
        let mut batch = Batch::new();
        link::add_vxlan(&mut batch, TUNNEL, self.vxlan(), tunnel_mac(self.parameters.index), self.mtu);
        socket.execute(batch)?;
        let created = link::find(socket, TUNNEL)?;
        Ok(created.expect("the kernel has just acknowledged the device").index)
    }
}
