//! The routing mesh as this node is to program it, followed from differences. One programming at a time, always of the
//! newest table: what came meanwhile is done in one go afterwards.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use swarm_model::{MeshDelta, Protocol, TableVersion};

use crate::table::{Table, Verdict};

/// The whole mesh: the same on every node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mesh {
    /// Node number to its underlay address.
    pub nodes: BTreeMap<u16, Ipv4Addr>,
    /// Ingress port to all its backends. An empty list: published, but nothing runs.
    pub ports: BTreeMap<(Protocol, u16), Vec<SocketAddrV4>>,
}

impl Mesh {
    fn apply(&mut self, delta: MeshDelta) {
        for (index, address) in delta.nodes {
            match address {
                Some(address) => self.nodes.insert(index, address),
                None => self.nodes.remove(&index),
            };
        }
        for (port, backends) in delta.ports {
            match backends {
                Some(backends) => self.ports.insert(port, backends),
                None => self.ports.remove(&port),
            };
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct MeshFollower {
    pub table: Table,
    mesh: Arc<Mesh>,
    /// What the kernel is being made equal to.
    programming: Option<TableVersion>,
    programmed: Option<TableVersion>,
    /// After a failure nothing is tried before the retry timer.
    paused: bool,
}

impl MeshFollower {
    pub fn receive(&mut self, epoch: u64, delta: MeshDelta) -> Verdict {
        let verdict = self.table.judge(epoch, delta.base, delta.version);
        match verdict {
            Verdict::Replace => {
                let mut mesh = Mesh::default();
                mesh.apply(delta);
                self.mesh = Arc::new(mesh);
            }
            Verdict::Advance => Arc::make_mut(&mut self.mesh).apply(delta),
            Verdict::Gap | Verdict::Deposed | Verdict::Stale => {}
        }
        verdict
    }

    /// What is to be programmed now, if anything.
    pub fn next(&mut self) -> Option<Arc<Mesh>> {
        let wanted = self.table.version()?;
        if self.paused || self.programming.is_some() || self.programmed == Some(wanted) {
            return None;
        }
        self.programming = Some(wanted);
        Some(Arc::clone(&self.mesh))
    }

    /// The version that is now in the kernel.
    pub fn programmed(&mut self) -> Option<TableVersion> {
        self.programmed = self.programming.take();
        self.programmed
    }

    pub fn failed(&mut self) {
        self.programming = None;
        self.paused = true;
    }

    pub fn retry(&mut self) {
        self.paused = false;
    }

    /// A manager that does not know us is to hear again what is programmed.
    pub fn acknowledged(&self) -> Option<TableVersion> {
        self.programmed.filter(|version| Some(*version) == self.table.version())
    }

    /// The data path was opened anew: it is to be programmed again.
    pub fn reprogram(&mut self) {
        self.programmed = None;
    }
}
