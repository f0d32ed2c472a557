//! Network devices: tunnel, veth pairs, bridges, and the questions asked about them.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Attribute, Attributes, Batch, NetlinkError, Socket};

/// Hardware address of an Ethernet device.
pub type Mac = [u8; 6];

pub const LOOPBACK_INDEX: u32 = 1;

const IFF_UP: u32 = libc::IFF_UP.cast_unsigned();

// `enum` values of linux/if_link.h and linux/ip.h that libc does not have.
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_TTL: u16 = 5;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// A device's IPv4 setting, as in `net.ipv4.conf.<device>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Setting {
    Forwarding = 1,
    RpFilter = 8,
    RouteLocalnet = 26,
}

/// What the tunnel device is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    pub local: Ipv4Addr,
    pub port: u16,
}

/// A device as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub group: u32,
    pub mtu: u32,
    pub mac: Option<Mac>,
    pub alias: Option<String>,
    /// Device of which this is an end or a port, in its own namespace (`IFLA_LINK`).
    pub peer: Option<u32>,
    pub vxlan: Option<Vxlan>,
}

fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = u8::try_from(libc::AF_UNSPEC).expect("a family is one byte");
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// Creates the tunnel device, down.
pub fn add_vxlan(batch: &mut Batch, name: &str, vxlan: Vxlan, mac: Mac, mtu: u16) {
    let action = format!("add VXLAN device {name} (VNI {}, port {})", vxlan.vni, vxlan.port);
    batch.push(action, libc::RTM_NEWLINK, CREATE, &header(0, 0, 0), |a| {
        a.text(libc::IFLA_IFNAME, name);
        a.bytes(libc::IFLA_ADDRESS, &mac);
        a.u32(libc::IFLA_MTU, mtu.into());
        a.nest(libc::IFLA_LINKINFO, |a| {
            a.text(libc::IFLA_INFO_KIND, "vxlan");
            a.nest(libc::IFLA_INFO_DATA, |a| {
                a.u32(IFLA_VXLAN_ID, vxlan.vni);
                a.address(IFLA_VXLAN_LOCAL, vxlan.local);
                a.be16(IFLA_VXLAN_PORT, vxlan.port);
                a.u8(IFLA_VXLAN_LEARNING, 0);
                a.u8(IFLA_VXLAN_TTL, 64);
            });
        });
    });
}

/// One end of a veth pair to be.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    pub mac: Option<Mac>,
    pub mtu: Option<u16>,
}

impl VethEnd<'_> {
    fn attributes(self, a: &mut Attributes<'_>) {
        a.text(libc::IFLA_IFNAME, self.name);
        if let Some(mac) = self.mac {
            a.bytes(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = self.mtu {
            a.u32(libc::IFLA_MTU, mtu.into());
        }
    }
}

/// Creates a veth pair, both ends down: one here, in `group` and under `bridge` if given, the other in `netns`.
pub fn add_veth(
    batch: &mut Batch,
    here: VethEnd<'_>,
    there: VethEnd<'_>,
    netns: BorrowedFd<'_>,
    group: u32,
    bridge: Option<u32>,
) {
    batch.push(format!("add veth pair {}", here.name), libc::RTM_NEWLINK, CREATE, &header(0, 0, 0), |a| {
        here.attributes(a);
        a.u32(libc::IFLA_GROUP, group);
        if let Some(bridge) = bridge {
            a.u32(libc::IFLA_MASTER, bridge);
        }
        a.nest(libc::IFLA_LINKINFO, |a| {
            a.text(libc::IFLA_INFO_KIND, "veth");
            a.nest(libc::IFLA_INFO_DATA, |a| {
                a.nest_after(VETH_INFO_PEER, &header(0, 0, 0), |a| {
                    there.attributes(a);
                    a.u32(libc::IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
                });
            });
        });
    });
}

/// Creates a bridge, down.
pub fn add_bridge(batch: &mut Batch, name: &str, group: u32) {
    batch.push(format!("add bridge {name}"), libc::RTM_NEWLINK, CREATE, &header(0, 0, 0), |a| {
        a.text(libc::IFLA_IFNAME, name);
        a.u32(libc::IFLA_GROUP, group);
        a.nest(libc::IFLA_LINKINFO, |a| a.text(libc::IFLA_INFO_KIND, "bridge"));
    });
}

/// Brings a device up or down.
pub fn set_up(batch: &mut Batch, index: u32, up: bool) {
    let flags = if up { IFF_UP } else { 0 };
    let word = if up { "up" } else { "down" };
    let action = format!("set device {index} {word}");
    batch.push(action, libc::RTM_SETLINK, 0, &header(index, flags, IFF_UP), |_| {});
}

/// Puts a device into a group and gives it a name for people (up to 255 bytes).
pub fn set_group_and_alias(batch: &mut Batch, index: u32, group: u32, alias: &str) {
    let action = format!("mark device {index} as {alias}");
    batch.push(action, libc::RTM_SETLINK, 0, &header(index, 0, 0), |a| {
        a.u32(libc::IFLA_GROUP, group);
        a.text(libc::IFLA_IFALIAS, alias);
    });
}

/// Changes a device's MTU.
pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u16) {
    let action = format!("set the MTU of device {index} to {mtu}");
    batch.push(action, libc::RTM_SETLINK, 0, &header(index, 0, 0), |a| a.u32(libc::IFLA_MTU, mtu.into()));
}

/// Changes IPv4 settings of a device without the detour over files in /proc, which show only the reader's namespace.
pub fn configure(batch: &mut Batch, index: u32, settings: &[(Setting, u32)]) {
    let action = format!("set the IPv4 settings of device {index}");
    batch.push(action, libc::RTM_SETLINK, 0, &header(index, 0, 0), |a| {
        a.nest(libc::IFLA_AF_SPEC, |a| {
            a.nest(family(libc::AF_INET), |a| {
                a.nest(IFLA_INET_CONF, |a| {
                    for &(setting, value) in settings {
                        a.u32(setting as u16, value);
                    }
                });
            });
        });
    });
}

/// Keeps the kernel from giving a device an IPv6 address of its own. To be sent before the device goes up.
pub fn without_ipv6(batch: &mut Batch, index: u32) {
    // A kernel without IPv6 refuses, and needs nothing.
    const NO_IPV6: &[i32] = &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP];
    let action = format!("keep IPv6 off device {index}");
    batch.push_tolerating(action, NO_IPV6, libc::RTM_SETLINK, 0, &header(index, 0, 0), |a| {
        a.nest(libc::IFLA_AF_SPEC, |a| {
            a.nest(family(libc::AF_INET6), |a| a.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE));
        });
    });
}

fn family(family: i32) -> u16 {
    u16::try_from(family).expect("an address family is a small number")
}

/// Removes a device; it may be gone already.
pub fn delete(batch: &mut Batch, index: u32) {
    const GONE: &[i32] = &[libc::ENODEV];
    let action = format!("delete device {index}");
    batch.push_tolerating(action, GONE, libc::RTM_DELLINK, 0, &header(index, 0, 0), |_| {});
}

/// Puts a device into another group.
pub fn set_group(batch: &mut Batch, index: u32, group: u32) {
    const GONE: &[i32] = &[libc::ENODEV];
    let action = format!("move device {index} to group {group}");
    batch.push_tolerating(action, GONE, libc::RTM_SETLINK, 0, &header(index, 0, 0), |a| {
        a.u32(libc::IFLA_GROUP, group);
    });
}

/// Removes every device of a group at once, which costs the kernel no more than removing one.
pub fn delete_group(batch: &mut Batch, group: u32) {
    const EMPTY: &[i32] = &[libc::ENODEV];
    let action = format!("delete the devices of group {group}");
    batch.push_tolerating(action, EMPTY, libc::RTM_DELLINK, 0, &header(0, 0, 0), |a| {
        a.u32(libc::IFLA_GROUP, group);
    });
}

/// All devices of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut links = Vec::new();
    socket.dump(
        "list devices",
        libc::RTM_GETLINK,
        &header(0, 0, 0),
        |_| {},
        |body| {
            links.extend(parse(body));
        },
    )?;
    Ok(links)
}

/// The device of that name in the socket's namespace.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    Ok(list(socket)?.into_iter().find(|link| link.name == name))
}

/// The device of that number in the socket's namespace.
pub fn by_index(socket: &mut Socket, index: u32) -> Result<Option<Link>, NetlinkError> {
    let mut found = None;
    let action = format!("look at device {index}");
    let outcome =
        socket.get(&action, libc::RTM_GETLINK, &header(index, 0, 0), |_| {}, |body| found = parse(body));
    match outcome {
        Err(error) if error.refusal() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

fn parse(body: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let attributes = body.get(16..)?;
    let find = |kind| Attribute::find(attributes, kind);
    let kind = Attribute::find_path(attributes, &[libc::IFLA_LINKINFO, libc::IFLA_INFO_KIND]);
    let data = Attribute::find_path(attributes, &[libc::IFLA_LINKINFO, libc::IFLA_INFO_DATA]);
    let is_vxlan = kind.is_some_and(|kind| kind.starts_with(b"vxlan\0"));
    Some(Link {
        index,
        name: find(libc::IFLA_IFNAME)?.text()?.to_owned(),
        group: find(libc::IFLA_GROUP).and_then(Attribute::u32).unwrap_or(0),
        mtu: find(libc::IFLA_MTU).and_then(Attribute::u32).unwrap_or(0),
        mac: find(libc::IFLA_ADDRESS).and_then(|a| a.value.try_into().ok()),
        alias: find(libc::IFLA_IFALIAS).and_then(Attribute::text).map(str::to_owned),
        peer: find(libc::IFLA_LINK).and_then(Attribute::u32),
        vxlan: data.filter(|_| is_vxlan).and_then(parse_vxlan),
    })
}

fn parse_vxlan(data: &[u8]) -> Option<Vxlan> {
    Some(Vxlan {
        vni: Attribute::find(data, IFLA_VXLAN_ID)?.u32()?,
        local: Attribute::find(data, IFLA_VXLAN_LOCAL)?.address()?,
        port: Attribute::find(data, IFLA_VXLAN_PORT)?.be16()?,
    })
}
