//! The nodes and what is taken on each. Knows nothing of services, constraints or ranks.

use std::sync::Arc;

use swarm_model::{Availability, HostPort, Node, NodeId, NodeState, Resources, ServiceId};

use super::changes::Changes;
use super::ladder::{Ladder, Standpoint};
use super::lookup::Lookup;

/// Number of a node's place in the table; given to another node only after the first one is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

/// All known nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    hosts: Vec<Host>,
    vacant: Vec<Slot>,
    slots: Lookup<NodeId, Slot>,
    changes: Changes,
    freed: Changes,
    reshaped: Changes,
    ladder: Ladder,
}

/// One node and its load.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) id: NodeId,
    /// `None`: not a member (yet, or any more), but tasks are recorded there.
    pub(super) node: Option<Arc<Node>>,
    pub(super) state: NodeState,
    /// Differs whenever `node` does, across all nodes: a filter's result holds while it is the same.
    pub(super) shape: u64,
    pub(super) standing: Standing,
    capacity: Resources,
    pub(super) reserved: Resources,
    pub(super) tasks: u32,
    /// Host ports in use; a port twice if two tasks hold it, which only a caller's mistake can cause.
    ports: Vec<HostPort>,
}

/// What a node is to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Gets tasks.
    Open,
    /// Keeps its tasks and gets none: paused, or not heard of yet by a new leader.
    Held,
    /// Its tasks are about to be replaced elsewhere, so they do not count for the evenness of a spread.
    Leaving,
}

/// What one task takes of its node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footprint {
    pub(super) service: ServiceId,
    pub(super) revision: u64,
    pub(super) reservations: Resources,
    pub(super) host_ports: Box<[HostPort]>,
}

impl Footprint {
    pub(super) fn is(
        &self,
        (service, revision): (ServiceId, u64),
        reservations: Resources,
        ports: &[HostPort],
    ) -> bool {
        (self.service, self.revision) == (service, revision)
            && self.reservations == reservations
            && *self.host_ports == *ports
    }
}

impl Slot {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Nodes {
    /// Every change.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Changes after which a node may take what it could not before.
    pub(super) fn freed(&self) -> &Changes {
        &self.freed
    }

    /// Changes of a node itself or of its state, not of its load.
    pub(super) fn reshaped(&self) -> &Changes {
        &self.reshaped
    }

    /// The open nodes by load. Searches need [`Self::settle`] first.
    pub(super) fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// Gives nodes that joined their place on the ladder.
    pub(super) fn settle(&mut self) {
        if !self.ladder.is_settled() {
            let members = (0..).map(Slot).zip(&self.hosts).filter(|(_, host)| host.node.is_some());
            self.ladder.settle(members.map(|(slot, host)| Standpoint {
                slot,
                id: host.id,
                tasks: host.rung(),
                free: host.free(),
                ports: &host.ports,
            }));
        }
    }

    /// Number of places, those of vacant slots included.
    pub(super) fn places(&self) -> usize {
        self.hosts.len()
    }

    pub(super) fn at(&self, slot: Slot) -> &Host {
        &self.hosts[slot.index()]
    }

    pub(super) fn known_slot(&self, id: NodeId) -> Option<Slot> {
        self.slots.get(&id).copied()
    }

    pub(super) fn find(&self, id: NodeId) -> Option<&Host> {
        self.known_slot(id).map(|slot| self.at(slot))
    }

    /// All places in the order of their slots.
    pub(super) fn all(&self) -> impl Iterator<Item = (Slot, &Host)> {
        (0..).map(Slot).zip(&self.hosts)
    }

    /// The slot of `id`; one without a description is made for it if there is none.
    pub(super) fn slot_of(&mut self, id: NodeId) -> Slot {
        if let Some(slot) = self.slots.get(&id) {
            return *slot;
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            let slot = Slot(u32::try_from(self.hosts.len()).expect("fewer nodes than 2^32"));
            self.hosts.push(Host::absent(id));
            slot
        });
        self.hosts[slot.index()] = Host::absent(id);
        self.slots.insert(id, slot);
        slot
    }

    /// Records a node; false if it is as it was.
    pub(super) fn upsert(&mut self, node: &Arc<Node>, state: NodeState) -> bool {
        let slot = self.slot_of(node.id);
        let host = &mut self.hosts[slot.index()];
        let same = host.node.as_ref().is_some_and(|old| Arc::ptr_eq(old, node) || old == node);
        if same && host.state == state {
            return false;
        }
        host.state = state;
        host.standing = Standing::of(node, state);
        host.capacity = node.engine.resources;
        let joined = host.node.replace(Arc::clone(node)).is_none();
        if joined {
            self.ladder.unsettle();
        }
        self.ladder.update(slot, host.rung(), host.free());
        let change = self.reshape(slot);
        if !same {
            self.hosts[slot.index()].shape = change;
        }
        true
    }

    /// Forgets a node as soon as its last task is; false if it is no member.
    pub(super) fn remove(&mut self, id: NodeId) -> bool {
        let Some(slot) = self.slots.get(&id).copied() else { return false };
        let host = &mut self.hosts[slot.index()];
        let was_member = host.node.take().is_some();
        host.standing = Standing::Leaving;
        host.capacity = Resources::default();
        self.ladder.update(slot, None, Resources::default());
        self.hosts[slot.index()].shape = self.reshape(slot);
        self.vacate_if_empty(slot);
        was_member
    }

    fn reshape(&mut self, slot: Slot) -> u64 {
        self.freed.touch(slot);
        self.reshaped.touch(slot);
        self.changes.touch(slot)
    }

    /// Takes what a task needs.
    pub(super) fn occupy(&mut self, slot: Slot, footprint: &Footprint) {
        let host = &mut self.hosts[slot.index()];
        host.tasks += 1;
        host.reserved = host.reserved.saturating_add(footprint.reservations);
        host.ports.extend_from_slice(&footprint.host_ports);
        self.ladder.update(slot, host.rung(), host.free());
        footprint.host_ports.iter().for_each(|port| self.ladder.hold(slot, *port, true));
        self.changes.touch(slot);
    }

    /// Gives back what a task needed.
    pub(super) fn release(&mut self, slot: Slot, footprint: &Footprint) {
        let host = &mut self.hosts[slot.index()];
        host.tasks -= 1;
        host.reserved = host.reserved.saturating_sub(footprint.reservations);
        for port in &footprint.host_ports {
            if let Some(at) = host.ports.iter().position(|held| held == port) {
                host.ports.swap_remove(at);
                self.ladder.hold(slot, *port, host.holds(*port));
            }
        }
        self.ladder.update(slot, host.rung(), host.free());
        self.freed.touch(slot);
        self.changes.touch(slot);
        self.vacate_if_empty(slot);
    }

    fn vacate_if_empty(&mut self, slot: Slot) {
        let host = &self.hosts[slot.index()];
        if host.node.is_none() && host.tasks == 0 {
            self.slots.remove(&host.id);
            self.vacant.push(slot);
        }
    }
}

impl Host {
    fn absent(id: NodeId) -> Self {
        Self {
            id,
            node: None,
            state: NodeState::Unknown,
            shape: 0,
            standing: Standing::Leaving,
            capacity: Resources::default(),
            reserved: Resources::default(),
            tasks: 0,
            ports: Vec::new(),
        }
    }

    /// What is not reserved.
    pub(super) fn free(&self) -> Resources {
        self.capacity.saturating_sub(self.reserved)
    }

    /// Its rung on the ladder; `None` if it is not open.
    fn rung(&self) -> Option<u32> {
        (self.standing == Standing::Open).then_some(self.tasks)
    }

    pub(super) fn holds(&self, port: HostPort) -> bool {
        self.ports.contains(&port)
    }

    /// What a task that needs `ports` may reserve here; `None` if it cannot be here at all.
    pub(super) fn offer(&self, ports: &[HostPort]) -> Option<Resources> {
        let open = self.standing == Standing::Open && !ports.iter().any(|port| self.holds(*port));
        open.then(|| self.free())
    }
}

impl Standing {
    fn of(node: &Node, state: NodeState) -> Self {
        match (state, node.spec.availability) {
            (NodeState::Down, _) | (_, Availability::Drain) => Self::Leaving,
            (NodeState::Unknown, _) | (_, Availability::Pause) => Self::Held,
            (NodeState::Ready, Availability::Active) => Self::Open,
        }
    }
}
