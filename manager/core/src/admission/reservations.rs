//! What writes that are proposed but not yet applied will take, so that two of them do not choose the same thing.

use std::collections::BTreeSet;

use swarm_model::HostPort;

/// Taken by one write.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub ports: Vec<HostPort>,
    pub node_index: Option<u16>,
}

/// Taken by all writes under way.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    ports: BTreeSet<HostPort>,
    node_indexes: BTreeSet<u16>,
}

impl Reservations {
    pub fn hold(&mut self, reserved: &Reserved) {
        self.ports.extend(&reserved.ports);
        self.node_indexes.extend(reserved.node_index);
    }

    pub fn release(&mut self, reserved: &Reserved) {
        for port in &reserved.ports {
            self.ports.remove(port);
        }
        if let Some(index) = reserved.node_index {
            self.node_indexes.remove(&index);
        }
    }

    pub fn has_port(&self, port: HostPort) -> bool {
        self.ports.contains(&port)
    }

    pub fn has_node_index(&self, index: u16) -> bool {
        self.node_indexes.contains(&index)
    }
}
