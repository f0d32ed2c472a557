//! The routing mesh: which nodes there are and which task addresses stand behind each published port, for all agents.
//!
//! Backends change in bursts, and a changed port is sent with all its backends to every agent. So changes are collected
//! per batch, each agent has at most one version on the way, and versions keep a distance that grows with their cost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use swarm_model::{
    HostPort, ManagerMessage, MeshDelta, NodeId, PortMode, PortSpec, Protocol, ServiceId, TableVersion,
    Timestamp,
};

use crate::door::{Effect, SessionId};

/// Rows and backends times agents that may be sent per second: 2 million entries of some 20 bytes keep half a core busy.
const MAX_ENTRIES_PER_SECOND: u64 = 2_000_000;
/// What a message costs beside its entries, in entries: a record of TLS each way, and the agent's acknowledgement.
const MESSAGE_ENTRIES: u64 = 100;
/// Longest distance between two versions; a backend that appears or goes waits no longer for its turn.
const MAX_DISTANCE: Duration = Duration::from_millis(250);
/// Nodes alone may wait longer, until a backend takes them along: while thousands of them join, each version goes to all.
const NODES_FACTOR: u32 = 10;
const MAX_NODES_DISTANCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Port {
    service: Option<ServiceId>,
    target: u16,
    backends: BTreeSet<SocketAddrV4>,
}

/// An agent's copy.
#[derive(Debug)]
struct Copy {
    session: SessionId,
    /// On the way or acknowledged; `None`: the agent needs everything.
    sent: Option<u64>,
    /// 0: none in this session.
    acknowledged: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Node(u16),
    Port(Protocol, u16),
}

#[derive(Debug)]
pub(crate) struct Mesh {
    epoch: u64,
    /// Newest version that was cut.
    version: u64,
    nodes: BTreeMap<u16, Ipv4Addr>,
    ports: BTreeMap<HostPort, Port>,
    services: BTreeMap<ServiceId, Vec<HostPort>>,
    /// Changed since the newest version.
    dirty: BTreeSet<Row>,
    /// Rows by the version that changed them last; removed rows stay until everybody knows.
    history: BTreeSet<(u64, Row)>,
    changed_in: BTreeMap<Row, u64>,
    /// The removed rows among them.
    tombstones: BTreeSet<(u64, Row)>,
    copies: BTreeMap<NodeId, Copy>,
    /// How many agents acknowledged which version.
    acknowledged: BTreeMap<u64, usize>,
    /// Agents that may lack the newest version and have none on the way.
    behind: BTreeSet<NodeId>,
    /// Nothing is sent before what runs is known: agents keep what the leader before sent.
    open: bool,
    not_before: Timestamp,
    /// The same for a version that only tells of nodes.
    nodes_not_before: Timestamp,
}

impl Mesh {
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            version: 0,
            nodes: BTreeMap::new(),
            ports: BTreeMap::new(),
            services: BTreeMap::new(),
            dirty: BTreeSet::new(),
            history: BTreeSet::new(),
            changed_in: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            copies: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            behind: BTreeSet::new(),
            open: false,
            not_before: Timestamp::ZERO,
            nodes_not_before: Timestamp::ZERO,
        }
    }

    /// The truth is known: sending may begin.
    pub fn open_up(&mut self) {
        self.open = true;
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn set_node(&mut self, index: u16, address: Ipv4Addr) {
        if self.nodes.insert(index, address) != Some(address) {
            self.dirty.insert(Row::Node(index));
        }
    }

    pub fn remove_node(&mut self, index: u16) {
        if self.nodes.remove(&index).is_some() {
            self.dirty.insert(Row::Node(index));
        }
    }

    /// The ports that a service publishes, and the addresses of its running tasks.
    pub fn set_service(&mut self, service: ServiceId, ports: &[PortSpec], addresses: &[Ipv4Addr]) {
        self.remove_service(service);
        for port in ports.iter().filter(|port| port.mode == PortMode::Ingress) {
            let Some(published) = port.published else { continue };
            let number = HostPort { protocol: port.protocol, published };
            let backends = addresses.iter().map(|address| SocketAddrV4::new(*address, port.target)).collect();
            self.ports.insert(number, Port { service: Some(service), target: port.target, backends });
            self.services.entry(service).or_default().push(number);
            self.dirty.insert(row(number));
        }
    }

    pub fn remove_service(&mut self, service: ServiceId) {
        for number in self.services.remove(&service).unwrap_or_default() {
            // Another service may have taken the port since.
            if self.ports.get(&number).is_some_and(|port| port.service == Some(service)) {
                self.ports.remove(&number);
                self.dirty.insert(row(number));
            }
        }
    }

    pub fn add_backend(&mut self, service: ServiceId, address: Ipv4Addr) {
        self.change(service, |port| port.backends.insert(SocketAddrV4::new(address, port.target)));
    }

    pub fn remove_backend(&mut self, service: ServiceId, address: Ipv4Addr) {
        self.change(service, |port| port.backends.remove(&SocketAddrV4::new(address, port.target)));
    }

    fn change(&mut self, service: ServiceId, change: impl Fn(&mut Port) -> bool) {
        for number in self.services.get(&service).into_iter().flatten() {
            if self.ports.get_mut(number).is_some_and(&change) {
                self.dirty.insert(row(*number));
            }
        }
    }

    /// The version that will hold every change made so far.
    pub fn version_of_changes(&self) -> u64 {
        if self.dirty.is_empty() { self.version } else { self.version + 1 }
    }

    pub fn connect(&mut self, node: NodeId, session: SessionId) {
        self.disconnect(node);
        self.copies.insert(node, Copy { session, sent: None, acknowledged: 0 });
        *self.acknowledged.entry(0).or_default() += 1;
        self.behind.insert(node);
    }

    pub fn disconnect(&mut self, node: NodeId) {
        if let Some(copy) = self.copies.remove(&node) {
            self.count_down(copy.acknowledged);
        }
        self.behind.remove(&node);
    }

    fn count_down(&mut self, version: u64) {
        if let Some(count) = self.acknowledged.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                self.acknowledged.remove(&version);
            }
        }
    }

    pub fn send_all_again(&mut self, node: NodeId) {
        if let Some(copy) = self.copies.get_mut(&node) {
            copy.sent = None;
            self.behind.insert(node);
        }
    }

    pub fn acknowledge(&mut self, node: NodeId, version: TableVersion) {
        let Some(copy) = self.copies.get_mut(&node) else { return };
        if version.epoch != self.epoch || copy.sent != Some(version.number) {
            return;
        }
        let before = std::mem::replace(&mut copy.acknowledged, version.number);
        self.count_down(before);
        *self.acknowledged.entry(version.number).or_default() += 1;
        if version.number < self.version {
            self.behind.insert(node);
        }
    }

    /// The version that every connected agent has programmed; the highest number if there is no agent.
    pub fn acknowledged_by_all(&self) -> u64 {
        self.acknowledged.keys().next().copied().unwrap_or(u64::MAX)
    }

    /// When a flush has something to do that now it may not.
    pub fn next_flush(&self) -> Option<Timestamp> {
        self.due().filter(|_| self.open)
    }

    /// When the changes may be cut; `None`: there are none.
    fn due(&self) -> Option<Timestamp> {
        self.dirty.last().map(|last| match last {
            Row::Port(..) => self.not_before,
            Row::Node(_) => self.nodes_not_before,
        })
    }

    pub fn flush(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.open {
            return;
        }
        if self.due().is_some_and(|due| now >= due) || self.version == 0 {
            self.cut_version(now);
        }
        let mut last: Option<(Option<u64>, MeshDelta)> = None;
        for node in std::mem::take(&mut self.behind) {
            let Some(copy) = self.copies.get(&node) else { continue };
            if copy.sent == Some(self.version) {
                continue;
            }
            let delta = match &last {
                Some((base, delta)) if *base == copy.sent => delta.clone(),
                _ => self.delta(copy.sent),
            };
            last = Some((copy.sent, delta.clone()));
            effects.push(Effect::Session { session: copy.session, message: ManagerMessage::Mesh(delta) });
            if let Some(copy) = self.copies.get_mut(&node) {
                copy.sent = Some(self.version);
            }
        }
    }

    fn cut_version(&mut self, now: Timestamp) {
        self.version += 1;
        let mut entries = MESSAGE_ENTRIES;
        for row in std::mem::take(&mut self.dirty) {
            if let Some(before) = self.changed_in.insert(row, self.version) {
                self.history.remove(&(before, row));
                self.tombstones.remove(&(before, row));
            }
            self.history.insert((self.version, row));
            if !self.exists(row) {
                self.tombstones.insert((self.version, row));
            }
            entries += self.size(row);
        }
        let cost = entries * self.copies.len() as u64 * 1_000_000 / MAX_ENTRIES_PER_SECOND;
        let cost = Duration::from_micros(cost);
        self.not_before = now + cost.min(MAX_DISTANCE);
        self.nodes_not_before = now + (cost * NODES_FACTOR).min(MAX_NODES_DISTANCE);
        let idle =
            self.copies.iter().filter(|(_, copy)| copy.sent.is_none_or(|sent| sent == copy.acknowledged));
        self.behind.extend(idle.map(|(node, _)| *node));
        self.drop_tombstones();
    }

    fn size(&self, row: Row) -> u64 {
        match row {
            Row::Node(_) => 1,
            Row::Port(protocol, published) => self
                .ports
                .get(&HostPort { protocol, published })
                .map_or(1, |port| 1 + port.backends.len() as u64),
        }
    }

    fn exists(&self, row: Row) -> bool {
        match row {
            Row::Node(index) => self.nodes.contains_key(&index),
            Row::Port(protocol, published) => self.ports.contains_key(&HostPort { protocol, published }),
        }
    }

    /// Rows that are gone, and whose going everybody knows. An agent without any version gets all rows anyway.
    fn drop_tombstones(&mut self) {
        let oldest = self.copies.values().filter_map(|copy| copy.sent.map(|_| copy.acknowledged)).min();
        let known = oldest.unwrap_or(self.version);
        while let Some(&(version, row)) = self.tombstones.first()
            && version <= known
        {
            self.tombstones.pop_first();
            self.history.remove(&(version, row));
            self.changed_in.remove(&row);
        }
    }

    fn delta(&self, base: Option<u64>) -> MeshDelta {
        let version = |number| TableVersion { epoch: self.epoch, number };
        let mut delta =
            MeshDelta { base: base.map(version), version: version(self.version), ..MeshDelta::default() };
        match base {
            Some(base) => {
                for (_, row) in self.history.range((base + 1, Row::Node(0))..) {
                    self.put_row(*row, &mut delta);
                }
            }
            None => {
                let nodes = self.nodes.keys().map(|index| Row::Node(*index));
                for row in nodes.chain(self.ports.keys().map(|number| row(*number))) {
                    self.put_row(row, &mut delta);
                }
            }
        }
        delta
    }

    /// The row as it is now: it may be newer than the version says, which the next one repeats.
    fn put_row(&self, row: Row, delta: &mut MeshDelta) {
        match row {
            Row::Node(index) => {
                delta.nodes.insert(index, self.nodes.get(&index).copied());
            }
            Row::Port(protocol, published) => {
                let port = self.ports.get(&HostPort { protocol, published });
                delta
                    .ports
                    .insert((protocol, published), port.map(|port| port.backends.iter().copied().collect()));
            }
        }
    }
}

fn row(number: HostPort) -> Row {
    Row::Port(number.protocol, number.published)
}
