//! Programming the routing mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use swarm_model::Protocol;

use super::slots;
use super::state::State;
use super::tables::{Changes, Port};
use crate::conntrack::{self, Senders};
use crate::netlink::Batch;
use crate::{Mesh, MeshError};

/// Backends of one port. A port takes a chain per number of backends that it has had and about 200 bytes per backend.
const MAX_BACKENDS: usize = 4096;

impl State {
    pub fn apply_mesh(&mut self, mesh: &Mesh) -> Result<(), MeshError> {
        self.check_mesh(mesh)?;
        let mut changes = Changes::default();
        let (appear, vanish) = self.change_peers(&mesh.nodes, &mut changes);
        // Nodes come before backends on them, and go after.
        self.route.execute(appear)?;
        self.settle_peers(&mesh.nodes, &mut changes);
        let senders = self.change_ports(&mesh.ports, &mut changes);
        self.commit(&changes)?;
        self.route.execute(vanish)?;
        self.release(&senders);
        Ok(())
    }

    fn check_mesh(&self, mesh: &Mesh) -> Result<(), MeshError> {
        for &index in mesh.nodes.keys() {
            self.tunnel.parameters.plan.check(index).map_err(MeshError::Node)?;
        }
        match mesh.ports.iter().find(|(_, backends)| backends.len() > MAX_BACKENDS) {
            Some((&(_, port), backends)) => {
                Err(MeshError::TooManyBackends { port, count: backends.len(), limit: MAX_BACKENDS })
            }
            None => Ok(()),
        }
    }

    fn peers<'a>(
        &self,
        nodes: &'a BTreeMap<u16, Ipv4Addr>,
    ) -> impl Iterator<Item = (&'a u16, &'a Ipv4Addr)> + use<'a> {
        let own = self.tunnel.parameters.index;
        nodes.iter().filter(move |&(&index, _)| index != own)
    }

    /// Requests that make new nodes reachable, and that forget those that have gone.
    fn change_peers(&self, nodes: &BTreeMap<u16, Ipv4Addr>, changes: &mut Changes) -> (Batch, Batch) {
        let (mut appear, mut vanish) = (Batch::new(), Batch::new());
        let before = &self.tables.peers;
        for (&index, &address) in self.peers(nodes) {
            if before.get(&index) != Some(&address) {
                self.tunnel.add_peer(&mut appear, index, address);
                changes.peer(index, before.contains_key(&index), true);
            }
        }
        for &index in before.keys().filter(|index| !nodes.contains_key(index)) {
            self.tunnel.remove_peer(&mut vanish, index);
            changes.peer(index, true, false);
        }
        (appear, vanish)
    }

    /// Remembers the other nodes and changes what follows from their addresses.
    fn settle_peers(&mut self, nodes: &BTreeMap<u16, Ipv4Addr>, changes: &mut Changes) {
        if self.peers(nodes).eq(&self.tables.peers) {
            return;
        }
        self.tables.peers = self.peers(nodes).map(|(&index, &address)| (index, address)).collect();
        let after = self.tables.node_addresses(self.data_address);
        for &address in after.difference(&self.tables.nodes) {
            changes.node(address, false, true);
        }
        for &address in self.tables.nodes.difference(&after) {
            changes.node(address, true, false);
        }
        self.tables.nodes = after;
    }

    /// Gives the UDP connections that have to be forgotten afterwards.
    fn change_ports(&mut self, wanted: &BTreeMap<Port, Vec<SocketAddrV4>>, changes: &mut Changes) -> Senders {
        let mut senders = Senders::default();
        for (&port, backends) in wanted {
            let before = self.tables.ports.get(&port);
            if before == Some(backends) {
                continue;
            }
            let after = slots::assign(before.map_or(&[], Vec::as_slice), backends);
            if before != Some(&after) {
                note(&mut senders, port, before.map(Vec::as_slice), &after);
                changes.port(port, before.map(Vec::as_slice), Some(&after));
                self.tables.ports.insert(port, after);
            }
        }
        self.tables.ports.retain(|&port, before| {
            let stays = wanted.contains_key(&port);
            if !stays {
                note(&mut senders, port, Some(before), &[]);
                changes.port(port, Some(before), None);
            }
            stays
        });
        senders
    }

    /// Lets UDP senders whose backend has gone, or who were there before the port, be balanced anew. A failure leaves
    /// some of them without answers until their connection times out: worth a warning, not worth failing the change.
    pub(super) fn release(&mut self, senders: &Senders) {
        if let Err(error) = conntrack::forget_udp(&mut self.netfilter, senders) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot release UDP senders from backends that are gone"
            );
        }
    }
}

/// Notes the change of a port's backends; `None`: it was not published.
pub fn note(senders: &mut Senders, port: Port, before: Option<&[SocketAddrV4]>, after: &[SocketAddrV4]) {
    if port.0 == Protocol::Udp {
        let kept: BTreeSet<_> = after.iter().collect();
        let gone = before.unwrap_or_default().iter().filter(|backend| !kept.contains(backend));
        senders.translated_to.extend(gone);
        if before.is_none() {
            senders.untranslated.insert(port.1);
        }
    }
}
