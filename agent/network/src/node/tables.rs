//! What is in the sets and maps of a node's tables: as values, as kernel elements, and the difference of two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use swarm_model::Protocol;

use super::ruleset::{
    BACKENDS, HOST_PORTS, NODES, PEER_MAC, PEER_MARK, PEER_ZONE, PUBLISHED, TABLE, TARGETS, UNSERVED,
    pick_chain_name,
};
use crate::address_plan::{mark, tunnel_mac};
use crate::netlink::{NetlinkError, Socket};
use crate::nft::table::{ElementValue, concatenate};
use crate::nft::{Element, Family, read};

/// A published port.
pub type Port = (Protocol, u16);

/// Everything that the tables hold. The slot of a backend is its place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// The other nodes.
    pub peers: BTreeMap<u16, Ipv4Addr>,
    /// Data addresses of all nodes, this one among them.
    pub nodes: BTreeSet<Ipv4Addr>,
    pub ports: BTreeMap<Port, Vec<SocketAddrV4>>,
    pub targets: BTreeSet<(Ipv4Addr, Protocol, u16)>,
    pub host_ports: BTreeMap<Port, SocketAddrV4>,
}

/// Elements to delete and to add, by set.
#[derive(Debug, Default)]
pub struct Changes {
    pub delete: BTreeMap<&'static str, Vec<Element>>,
    pub add: BTreeMap<&'static str, Vec<Element>>,
    /// Numbers of backends that ports have after the change: each needs its chain.
    pub counts: BTreeSet<usize>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty()
    }

    fn replace(&mut self, set: &'static str, old: Option<Element>, new: Option<Element>) {
        if old != new {
            if let Some(old) = old {
                self.delete.entry(set).or_default().push(old);
            }
            if let Some(new) = new {
                self.add.entry(set).or_default().push(new);
            }
        }
    }

    /// Adds everything in `tables`: for a table that is empty.
    pub fn load(tables: &Tables) -> Self {
        let mut changes = Self::default();
        for &index in tables.peers.keys() {
            changes.peer(index, false, true);
        }
        for &node in &tables.nodes {
            changes.node(node, false, true);
        }
        for (&port, backends) in &tables.ports {
            changes.port(port, None, Some(backends));
        }
        for &target in &tables.targets {
            changes.target(target, false, true);
        }
        for (&port, &target) in &tables.host_ports {
            changes.host_port(port, None, Some(target));
        }
        changes
    }

    pub fn peer(&mut self, index: u16, before: bool, after: bool) {
        let (mac, mark) = (tunnel_mac(index), mark(index).to_ne_bytes());
        let pairs: [(_, &[u8], &[u8]); 3] =
            [(PEER_MAC, &mark, &mac), (PEER_MARK, &mac, &mark), (PEER_ZONE, &mac, &index.to_ne_bytes())];
        for (set, key, value) in pairs {
            let element = Element { key: key.to_vec(), value: ElementValue::Bytes(value.to_vec()) };
            self.replace(set, before.then(|| element.clone()), after.then_some(element));
        }
    }

    pub fn node(&mut self, address: Ipv4Addr, before: bool, after: bool) {
        let element = Element { key: address.octets().to_vec(), value: ElementValue::None };
        self.replace(NODES, before.then(|| element.clone()), after.then_some(element));
    }

    /// Backends before and after; `None`: not published.
    pub fn port(&mut self, port: Port, before: Option<&[SocketAddrV4]>, after: Option<&[SocketAddrV4]>) {
        let element = |set: Option<&[SocketAddrV4]>, slot: usize| {
            let backend = *set?.get(slot)?;
            let slot = u32::try_from(slot).expect("a port has fewer than 2^32 backends");
            let key = concatenate(&[&[number(port.0)], &port.1.to_be_bytes(), &slot.to_ne_bytes()]);
            Some(Element { key, value: ElementValue::Bytes(endpoint(backend)) })
        };
        let count = |set: Option<&[SocketAddrV4]>| set.map_or(0, <[_]>::len);
        for slot in 0..count(before).max(count(after)) {
            if before.and_then(|set| set.get(slot)) != after.and_then(|set| set.get(slot)) {
                self.replace(BACKENDS, element(before, slot), element(after, slot));
            }
        }
        let chain = |set: Option<&[SocketAddrV4]>| {
            let count = set?.len();
            let value = ElementValue::Goto(pick_chain_name(count));
            (count > 0).then(|| Element { key: port_key(port), value })
        };
        let unserved = |set: Option<&[SocketAddrV4]>| {
            set?.is_empty().then(|| Element { key: port_key(port), value: ElementValue::None })
        };
        if before.map(<[_]>::len) != after.map(<[_]>::len) {
            self.replace(PUBLISHED, chain(before), chain(after));
            self.counts.extend(after.map(<[_]>::len).filter(|&count| count > 0));
            self.replace(UNSERVED, unserved(before), unserved(after));
        }
    }

    pub fn target(&mut self, target: (Ipv4Addr, Protocol, u16), before: bool, after: bool) {
        let (address, protocol, port) = target;
        let key = concatenate(&[&address.octets(), &[number(protocol)], &port.to_be_bytes()]);
        let element = Element { key, value: ElementValue::None };
        self.replace(TARGETS, before.then(|| element.clone()), after.then_some(element));
    }

    pub fn host_port(&mut self, port: Port, before: Option<SocketAddrV4>, after: Option<SocketAddrV4>) {
        let element = |target| Element { key: port_key(port), value: ElementValue::Bytes(endpoint(target)) };
        self.replace(HOST_PORTS, before.map(element), after.map(element));
    }
}

/// Family of the table that holds a set.
pub fn family_of(set: &str) -> Family {
    if set == PEER_MAC { Family::Netdev } else { Family::Ipv4 }
}

/// IP's number of a protocol.
pub const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

fn port_key(port: Port) -> Vec<u8> {
    concatenate(&[&[number(port.0)], &port.1.to_be_bytes()])
}

fn endpoint(address: SocketAddrV4) -> Vec<u8> {
    concatenate(&[&address.ip().octets(), &address.port().to_be_bytes()])
}

impl Tables {
    /// Data addresses of all nodes: this one's and those of the peers.
    pub fn node_addresses(&self, own: Ipv4Addr) -> BTreeSet<Ipv4Addr> {
        self.peers.values().copied().chain([own]).collect()
    }

    /// Reads from the kernel what the tables hold, except the nodes, whose addresses the tunnel device has.
    pub fn read(socket: &mut Socket) -> Result<Self, NetlinkError> {
        let mut set = |name| read::elements(socket, family_of(name), TABLE, name);
        let mut slots: BTreeMap<Port, BTreeMap<u32, SocketAddrV4>> = BTreeMap::new();
        for (port, slot, backend) in set(BACKENDS)?.iter().filter_map(decode_backend) {
            slots.entry(port).or_default().insert(slot, backend);
        }
        let mut ports: BTreeMap<Port, Vec<SocketAddrV4>> =
            slots.into_iter().map(|(port, slots)| (port, slots.into_values().collect())).collect();
        for port in set(UNSERVED)?.iter().filter_map(|element| decode_port(&element.key)) {
            ports.entry(port).or_default();
        }
        Ok(Self {
            peers: BTreeMap::new(),
            nodes: BTreeSet::new(),
            ports,
            targets: set(TARGETS)?.iter().filter_map(decode_target).collect(),
            host_ports: set(HOST_PORTS)?.iter().filter_map(decode_host_port).collect(),
        })
    }
}

fn decode_address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(octets.into())
}

fn decode_port(key: &[u8]) -> Option<Port> {
    Some((protocol(*key.first()?)?, u16::from_be_bytes([*key.get(4)?, *key.get(5)?])))
}

fn decode_endpoint(value: &ElementValue) -> Option<SocketAddrV4> {
    match value {
        ElementValue::Bytes(bytes) => {
            let port = u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]);
            Some(SocketAddrV4::new(decode_address(bytes)?, port))
        }
        ElementValue::None | ElementValue::Goto(_) => None,
    }
}

fn decode_backend(element: &Element) -> Option<(Port, u32, SocketAddrV4)> {
    let slot = u32::from_ne_bytes(element.key.get(8..12)?.try_into().ok()?);
    Some((decode_port(&element.key)?, slot, decode_endpoint(&element.value)?))
}

fn decode_target(element: &Element) -> Option<(Ipv4Addr, Protocol, u16)> {
    let (protocol, port) = decode_port(element.key.get(4..)?)?;
    Some((decode_address(&element.key)?, protocol, port))
}

fn decode_host_port(element: &Element) -> Option<(Port, SocketAddrV4)> {
    Some((decode_port(&element.key)?, decode_endpoint(&element.value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(count: u8) -> Vec<SocketAddrV4> {
        (0..count).map(|i| SocketAddrV4::new(Ipv4Addr::new(10, 192, 4, 11 + i), 80)).collect()
    }

    fn count(changes: &BTreeMap<&'static str, Vec<Element>>) -> Vec<(&'static str, usize)> {
        changes.iter().map(|(&set, elements)| (set, elements.len())).collect()
    }

    const PORT: Port = (Protocol::Tcp, 8080);

    #[test]
    fn replacing_a_backend_touches_one_slot() {
        let (before, mut after) = (backends(3), backends(3));
        after[1] = SocketAddrV4::new(Ipv4Addr::new(10, 192, 8, 11), 80);
        let mut changes = Changes::default();
        changes.port(PORT, Some(&before), Some(&after));
        assert_eq!(count(&changes.delete), [(BACKENDS, 1)]);
        assert_eq!(count(&changes.add), [(BACKENDS, 1)]);
    }

    #[test]
    fn the_last_backend_makes_the_port_unserved() {
        let mut changes = Changes::default();
        changes.port(PORT, Some(&backends(1)), Some(&[]));
        assert_eq!(count(&changes.delete), [(BACKENDS, 1), (PUBLISHED, 1)]);
        assert_eq!(count(&changes.add), [(UNSERVED, 1)]);
        let mut changes = Changes::default();
        changes.port(PORT, Some(&[]), None);
        assert_eq!(count(&changes.delete), [(UNSERVED, 1)]);
        assert!(changes.add.is_empty());
    }

    #[test]
    fn elements_decode_to_what_was_encoded() {
        let mut changes = Changes::default();
        changes.port(PORT, None, Some(&backends(2)));
        let decoded: Vec<_> = changes.add[BACKENDS].iter().filter_map(decode_backend).collect();
        assert_eq!(decoded, [(PORT, 0, backends(2)[0]), (PORT, 1, backends(2)[1])]);
        let target = (Ipv4Addr::new(10, 192, 4, 11), Protocol::Udp, 53);
        changes.target(target, false, true);
        assert_eq!(changes.add[TARGETS].iter().filter_map(decode_target).collect::<Vec<_>>(), [target]);
    }
}
