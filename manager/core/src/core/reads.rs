//! Linearizable reads: answered once a majority confirmed that this manager still leads, and from a state at least as new
//! as that moment. All reads of a batch share one round.

use std::collections::BTreeMap;

use crate::api::Request;
use crate::core::ManagerCore;
use crate::door::{Effect, RequestId};

type Batch = Vec<(RequestId, Request)>;

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// By the context of their round.
    asked: BTreeMap<u64, Batch>,
    /// Confirmed, and the index that must be applied first.
    confirmed: Vec<(u64, Batch)>,
}

impl Reads {
    pub fn ask(&mut self, round: u64, batch: Batch) {
        self.asked.insert(round, batch);
    }

    pub fn confirm(&mut self, round: u64, index: u64) {
        self.confirmed.extend(self.asked.remove(&round).map(|batch| (index, batch)));
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = RequestId> + use<> {
        let confirmed = std::mem::take(&mut self.confirmed).into_iter().map(|(_, batch)| batch);
        std::mem::take(&mut self.asked).into_values().chain(confirmed).flatten().map(|(id, _)| id)
    }
}

impl ManagerCore {
    pub(super) fn answer_reads(&mut self, effects: &mut Vec<Effect>) {
        let applied = self.store.applied();
        for (index, batch) in std::mem::take(&mut self.reads.confirmed) {
            if index > applied {
                self.reads.confirmed.push((index, batch));
                continue;
            }
            for (id, request) in batch {
                let result = self.read(request);
                effects.push(Effect::Reply { id, result });
            }
        }
    }
}
