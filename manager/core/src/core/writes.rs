//! Proposals under way: who waits for them, and what they hold.

use std::collections::BTreeMap;

use crate::admission::{Answer, Reservations, Reserved};
use crate::door::RequestId;

/// Who made a proposal.
#[derive(Debug)]
pub(super) enum Proposer {
    Request {
        id: RequestId,
        answer: Answer,
        reserved: Reserved,
    },
    /// The leader's deciders.
    Plan,
    /// Nodes described themselves anew.
    Registration,
    /// Members left.
    Unseat,
    /// A new root takes over.
    Rotation,
}

#[derive(Debug, Default)]
pub(super) struct Writes {
    under_way: BTreeMap<u64, Proposer>,
    pub reservations: Reservations,
}

impl Writes {
    pub fn add(&mut self, proposal: u64, proposer: Proposer) {
        if let Proposer::Request { reserved, .. } = &proposer {
            self.reservations.hold(reserved);
        }
        self.under_way.insert(proposal, proposer);
    }

    pub fn take(&mut self, proposal: u64) -> Option<Proposer> {
        self.under_way.remove(&proposal)
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = Proposer> + use<> {
        self.reservations = Reservations::default();
        std::mem::take(&mut self.under_way).into_values()
    }
}
