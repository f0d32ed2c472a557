//! Addresses, neighbours, forwarding entries, routes and routing rules.
//!
//! Everything that this crate adds carries its own origin number, so that an operator (`ip route show proto 83`) and the
//! clean-up can tell it from others'.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::link::Mac;
use super::{Attribute, Batch, NetlinkError, Socket};

/// Our origin number of routes and rules (`RTA_PROTOCOL`; not in use by any routing daemon).
pub const ORIGIN: u8 = 83;
/// Origin number of routes that belong to a namespace's basic set-up, as an administrator's would.
pub const STATIC: u8 = 4;

/// The neighbour or forwarding entry is ours until deleted.
const NUD_PERMANENT: u16 = 0x80;
/// The entry belongs to the device itself, not to a bridge above it.
const NTF_SELF: u8 = 0x02;
const RTNH_F_ONLINK: u32 = 4;
const FR_ACT_TO_TBL: u8 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
const GONE: &[i32] = &[libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL];
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;

/// Gives a device an address; it may have it already.
pub fn add_address(batch: &mut Batch, device: u32, address: Ipv4Net) {
    let header = address_header(device, address);
    let action = format!("add address {address} to device {device}");
    batch.push(action, libc::RTM_NEWADDR, REPLACE, &header, |a| {
        a.address(libc::IFA_LOCAL, address.addr());
        a.address(libc::IFA_ADDRESS, address.addr());
    });
}

fn address_header(device: u32, address: Ipv4Net) -> [u8; 8] {
    let mut header = [AF_INET, address.prefix_len(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&device.to_ne_bytes());
    header
}

/// Every address of the socket's namespace with its device.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, Ipv4Net)>, NetlinkError> {
    let mut found = Vec::new();
    let header = [AF_INET, 0, 0, 0, 0, 0, 0, 0];
    socket.dump(
        "list addresses",
        libc::RTM_GETADDR,
        &header,
        |_| {},
        |body| {
            found.extend(parse_address(body));
        },
    )?;
    Ok(found)
}

fn parse_address(body: &[u8]) -> Option<(u32, Ipv4Net)> {
    let device = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let attributes = body.get(8..)?;
    let local = Attribute::find(attributes, libc::IFA_LOCAL)?.address()?;
    Some((device, Ipv4Net::new(local, *body.get(1)?).ok()?))
}

fn neighbour_header(family: u8, device: u32, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&device.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header[10] = flags;
    header
}

/// Fixes the hardware address of a neighbour.
pub fn set_neighbour(batch: &mut Batch, device: u32, address: Ipv4Addr, mac: Mac) {
    let action = format!("set neighbour {address} of device {device}");
    let header = neighbour_header(AF_INET, device, 0);
    batch.push(action, libc::RTM_NEWNEIGH, REPLACE, &header, |a| {
        a.address(NDA_DST, address);
        a.bytes(NDA_LLADDR, &mac);
    });
}

pub fn delete_neighbour(batch: &mut Batch, device: u32, address: Ipv4Addr) {
    let action = format!("delete neighbour {address} of device {device}");
    let header = neighbour_header(AF_INET, device, 0);
    batch.push_tolerating(action, GONE, libc::RTM_DELNEIGH, 0, &header, |a| a.address(NDA_DST, address));
}

/// Tells a tunnel device behind which underlay address a hardware address is.
pub fn set_forwarding(batch: &mut Batch, device: u32, mac: Mac, remote: Ipv4Addr) {
    let action = format!("set tunnel end {remote} of device {device}");
    let header = neighbour_header(AF_BRIDGE, device, NTF_SELF);
    batch.push(action, libc::RTM_NEWNEIGH, REPLACE, &header, |a| {
        a.bytes(NDA_LLADDR, &mac);
        a.address(NDA_DST, remote);
    });
}

pub fn delete_forwarding(batch: &mut Batch, device: u32, mac: Mac) {
    let action = format!("delete tunnel end {mac:02x?} of device {device}");
    let header = neighbour_header(AF_BRIDGE, device, NTF_SELF);
    batch.push_tolerating(action, GONE, libc::RTM_DELNEIGH, 0, &header, |a| a.bytes(NDA_LLADDR, &mac));
}

/// The tunnel ends that a device knows.
pub fn forwardings(socket: &mut Socket, device: u32) -> Result<Vec<(Mac, Ipv4Addr)>, NetlinkError> {
    let mut found = Vec::new();
    let header = neighbour_header(AF_BRIDGE, device, 0);
    socket.dump(
        "list tunnel ends",
        libc::RTM_GETNEIGH,
        &header,
        |_| {},
        |body| {
            let index = body.get(4..8).and_then(|b| Some(u32::from_ne_bytes(b.try_into().ok()?)));
            let attributes = body.get(12..).unwrap_or_default();
            let mac = Attribute::find(attributes, NDA_LLADDR).and_then(|a| a.value.try_into().ok());
            let remote = Attribute::find(attributes, NDA_DST).and_then(Attribute::address);
            if index == Some(device) {
                found.extend(mac.zip(remote));
            }
        },
    )?;
    Ok(found)
}

/// A route that this crate adds or removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Net,
    pub table: u32,
    pub target: RouteTarget,
    /// Source address that the machine's own processes use with this route.
    pub source: Option<Ipv4Addr>,
    /// Who set it: [`ORIGIN`] or [`STATIC`].
    pub origin: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteTarget {
    /// The destination is on the device itself.
    Device(u32),
    /// Through a neighbour that is reached on the device, whatever the addresses say.
    Gateway(Ipv4Addr, u32),
    /// Answered with "host unreachable".
    Unreachable,
}

/// The table that is consulted for every packet.
pub const MAIN_TABLE: u32 = 254;

impl Route {
    pub fn replace(&self, batch: &mut Batch) {
        self.push(batch, "set", &[], libc::RTM_NEWROUTE, REPLACE);
    }

    /// Removes the route; it may be gone already.
    pub fn delete(&self, batch: &mut Batch) {
        self.push(batch, "delete", GONE, libc::RTM_DELROUTE, 0);
    }

    fn push(&self, batch: &mut Batch, verb: &str, tolerated: &'static [i32], kind: u16, flags: i32) {
        let (scope, route_kind, hop_flags) = match self.target {
            RouteTarget::Device(_) => (libc::RT_SCOPE_LINK, libc::RTN_UNICAST, 0),
            RouteTarget::Gateway(..) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, RTNH_F_ONLINK),
            RouteTarget::Unreachable => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE, 0),
        };
        let mut header =
            [AF_INET, self.destination.prefix_len(), 0, 0, 0, self.origin, scope, route_kind, 0, 0, 0, 0];
        header[8..].copy_from_slice(&hop_flags.to_ne_bytes());
        let action = format!("{verb} route {} in table {}", self.destination, self.table);
        batch.push_tolerating(action, tolerated, kind, flags, &header, |a| {
            a.u32(libc::RTA_TABLE, self.table);
            a.address(libc::RTA_DST, self.destination.network());
            match self.target {
                RouteTarget::Device(device) => a.u32(libc::RTA_OIF, device),
                RouteTarget::Gateway(gateway, device) => {
                    a.address(libc::RTA_GATEWAY, gateway);
                    a.u32(libc::RTA_OIF, device);
                }
                RouteTarget::Unreachable => {}
            }
            if let Some(source) = self.source {
                a.address(libc::RTA_PREFSRC, source);
            }
        });
    }
}

/// A route as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedRoute {
    pub destination: Ipv4Net,
    pub table: u32,
    pub origin: u8,
    pub device: Option<u32>,
}

/// Every IPv4 route of the socket's namespace, all tables.
pub fn routes(socket: &mut Socket) -> Result<Vec<ListedRoute>, NetlinkError> {
    let mut found = Vec::new();
    let header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    socket.dump(
        "list routes",
        libc::RTM_GETROUTE,
        &header,
        |_| {},
        |body| {
            found.extend(parse_route(body));
        },
    )?;
    Ok(found)
}

fn parse_route(body: &[u8]) -> Option<ListedRoute> {
    let attributes = body.get(12..)?;
    let find = |kind| Attribute::find(attributes, kind);
    let destination = find(libc::RTA_DST).and_then(Attribute::address).unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(ListedRoute {
        destination: Ipv4Net::new(destination, body[1]).ok()?,
        table: find(libc::RTA_TABLE).and_then(Attribute::u32).unwrap_or_else(|| body[4].into()),
        origin: body[5],
        device: find(libc::RTA_OIF).and_then(Attribute::u32),
    })
}

/// A rule that sends packets whose mark has `mark` under `mask` to a routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRule {
    pub preference: u32,
    pub mark: u32,
    pub mask: u32,
    pub table: u32,
}

impl MarkRule {
    /// Adds the rule; it may be there already.
    pub fn add(&self, batch: &mut Batch) {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.push(batch, "add", &[libc::EEXIST], libc::RTM_NEWRULE, flags);
    }

    /// Removes the rule; it may be gone already.
    pub fn delete(&self, batch: &mut Batch) {
        self.push(batch, "delete", GONE, libc::RTM_DELRULE, 0);
    }

    fn push(&self, batch: &mut Batch, verb: &str, tolerated: &'static [i32], kind: u16, flags: i32) {
        let header = [AF_INET, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        let action = format!("{verb} routing rule for marked packets to table {}", self.table);
        batch.push_tolerating(action, tolerated, kind, flags, &header, |a| {
            a.u32(FRA_PRIORITY, self.preference);
            a.u32(FRA_FWMARK, self.mark);
            a.u32(FRA_FWMASK, self.mask);
            a.u32(FRA_TABLE, self.table);
            a.u8(FRA_PROTOCOL, ORIGIN);
        });
    }
}

/// How many routing rules of our origin there are.
pub fn count_own_rules(socket: &mut Socket) -> Result<usize, NetlinkError> {
    let mut count = 0;
    let header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    socket.dump(
        "list routing rules",
        libc::RTM_GETRULE,
        &header,
        |_| {},
        |body| {
            let origin = Attribute::find(body.get(12..).unwrap_or_default(), FRA_PROTOCOL);
            count += usize::from(origin.is_some_and(|origin| origin.value == [ORIGIN]));
        },
    )?;
    Ok(count)
}
