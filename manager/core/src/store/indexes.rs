//! Secondary indexes: derived from the tables, never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use swarm_model::{HostPort, Node, NodeId, NodeRole, PortMode, PortSpec, Service, ServiceId, Task, TaskId};

#[derive(Debug, Default, PartialEq)]
pub(super) struct Indexes {
    nodes_by_hostname: BTreeSet<(String, NodeId)>,
    nodes_by_index: BTreeMap<u16, NodeId>,
    /// Managers, and those that are about to be or were a moment ago.
    managers: BTreeSet<NodeId>,
    services_by_name: BTreeMap<String, ServiceId>,
    /// Ingress ports only; host ports are the scheduler's matter.
    published: BTreeMap<HostPort, ServiceId>,
    /// With their slots.
    tasks_by_service: BTreeMap<ServiceId, BTreeSet<(u32, TaskId)>>,
    tasks_by_node: BTreeMap<NodeId, BTreeSet<TaskId>>,
    /// Of tasks that have not ended.
    addresses: BTreeMap<Ipv4Addr, TaskId>,
}

/// The ingress ports among `ports`.
pub(super) fn ingress(ports: &[PortSpec]) -> impl Iterator<Item = HostPort> {
    ports
        .iter()
        .filter(|port| port.mode == PortMode::Ingress)
        .filter_map(|port| Some(HostPort { protocol: port.protocol, published: port.published? }))
}

impl Indexes {
    pub fn add_node(&mut self, node: &Node) {
        self.nodes_by_hostname.insert((node.engine.hostname.clone(), node.id));
        self.nodes_by_index.insert(node.index, node.id);
        if node.spec.role == NodeRole::Manager || node.raft_id.is_some() {
            self.managers.insert(node.id);
        }
    }

    /// `new` takes the place of `old`. Most changes of a node touch nothing that is indexed.
    pub fn replace_node(&mut self, old: &Node, new: &Node) {
        let indexed = |node: &Node| (node.index, node.spec.role, node.raft_id.is_some());
        if indexed(old) != indexed(new) || old.engine.hostname != new.engine.hostname {
            self.remove_node(old);
            self.add_node(new);
        }
    }

    pub fn remove_node(&mut self, node: &Node) {
        self.nodes_by_hostname.remove(&(node.engine.hostname.clone(), node.id));
        self.nodes_by_index.remove(&node.index);
        self.managers.remove(&node.id);
    }

    pub fn managers(&self) -> impl Iterator<Item = NodeId> {
        self.managers.iter().copied()
    }

    pub fn add_service(&mut self, service: &Service) {
        self.services_by_name.insert(service.spec.name.clone(), service.id);
        self.published.extend(ingress(&service.ports).map(|port| (port, service.id)));
    }

    pub fn remove_service(&mut self, service: &Service) {
        self.services_by_name.remove(&service.spec.name);
        for port in ingress(&service.ports) {
            self.published.remove(&port);
        }
    }

    pub fn add_task(&mut self, task: &Task) {
        self.tasks_by_service.entry(task.service).or_default().insert((task.slot, task.id));
        if let Some(node) = task.node {
            self.tasks_by_node.entry(node).or_default().insert(task.id);
        }
        if let (Some(address), None) = (task.address, &task.outcome) {
            self.addresses.insert(address, task.id);
        }
    }

    pub fn remove_task(&mut self, task: &Task) {
        remove_from(&mut self.tasks_by_service, task.service, &(task.slot, task.id));
        if let Some(node) = task.node {
            remove_from(&mut self.tasks_by_node, node, &task.id);
        }
        self.free_address(task);
    }

    pub fn free_address(&mut self, task: &Task) {
        if let Some(address) = task.address
            && self.addresses.get(&address) == Some(&task.id)
        {
            self.addresses.remove(&address);
        }
    }

    pub fn nodes_called<'a>(&'a self, hostname: &str) -> impl Iterator<Item = NodeId> + use<'a> {
        let hostname = hostname.to_owned();
        self.nodes_by_hostname
            .range((hostname.clone(), NodeId::from_u128(0))..)
            .take_while(move |(name, _)| *name == hostname)
            .map(|(_, id)| *id)
    }

    pub fn node_at(&self, index: u16) -> Option<NodeId> {
        self.nodes_by_index.get(&index).copied()
    }

    pub fn highest_node_index(&self) -> u16 {
        self.nodes_by_index.last_key_value().map_or(0, |(index, _)| *index)
    }

    pub fn service_called(&self, name: &str) -> Option<ServiceId> {
        self.services_by_name.get(name).copied()
    }

    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services_by_name.keys().map(String::as_str)
    }

    pub fn port_holder(&self, port: HostPort) -> Option<ServiceId> {
        self.published.get(&port).copied()
    }

    pub fn tasks_of_service(&self, id: ServiceId) -> impl Iterator<Item = TaskId> {
        self.tasks_by_service.get(&id).into_iter().flatten().map(|(_, task)| *task)
    }

    pub fn tasks_of_slot(&self, id: ServiceId, slot: u32) -> impl Iterator<Item = TaskId> {
        let all = (slot, TaskId::from_u128(0))..=(slot, TaskId::from_u128(u128::MAX));
        self.tasks_by_service
            .get(&id)
            .into_iter()
            .flat_map(move |tasks| tasks.range(all.clone()))
            .map(|(_, task)| *task)
    }

    pub fn tasks_on_node(&self, id: NodeId) -> impl Iterator<Item = TaskId> {
        self.tasks_by_node.get(&id).into_iter().flatten().copied()
    }

    pub fn has_tasks(&self, id: ServiceId) -> bool {
        self.tasks_by_service.contains_key(&id)
    }

    pub fn address_holder(&self, address: Ipv4Addr) -> Option<TaskId> {
        self.addresses.get(&address).copied()
    }
}

fn remove_from<K: Ord, T: Ord>(index: &mut BTreeMap<K, BTreeSet<T>>, key: K, task: &T) {
    if let Some(tasks) = index.get_mut(&key) {
        tasks.remove(task);
        if tasks.is_empty() {
            index.remove(&key);
        }
    }
}
