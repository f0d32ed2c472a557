//! Linearizable reads: answered once a majority confirmed who leads, and from a state at least as new as that moment.
//! Followers answer those that need only what is replicated. All reads of a batch share one round, and so do the writes that
//! its leader refuses: a refusal tells of the state, too, and another manager may lead already.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::Timestamp;

use crate::api::{ApiError, Request, Response};
use crate::core::ManagerCore;
use crate::door::{Effect, RequestId};

/// Five heartbeats.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// What waits for a round.
#[derive(Debug)]
pub(super) enum Asking {
    Read(Request),
    /// The answer to a write that changes nothing.
    Told(Box<Result<Response, ApiError>>),
}

type Batch = Vec<(RequestId, Asking)>;

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// By the context of their round, and since when they wait for it.
    asked: BTreeMap<u64, (Timestamp, Batch)>,
    /// Confirmed, and the index that must be applied first.
    confirmed: Vec<(u64, Batch)>,
}

impl Reads {
    pub fn ask(&mut self, round: u64, now: Timestamp, batch: Batch) {
        self.asked.insert(round, (now, batch));
    }

    /// Those whose round must have been lost on its way to the leader.
    fn take_overdue(&mut self, now: Timestamp) -> Batch {
        let overdue = |at: Timestamp| now.since(at) >= ASK_AGAIN;
        let rounds: Vec<u64> =
            self.asked.iter().filter(|(_, (at, _))| overdue(*at)).map(|(round, _)| *round).collect();
        rounds.iter().filter_map(|round| self.asked.remove(round)).flat_map(|(_, batch)| batch).collect()
    }

    pub fn confirm(&mut self, round: u64, index: u64) {
        self.confirmed.extend(self.asked.remove(&round).map(|(_, batch)| (index, batch)));
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = RequestId> + use<> {
        let confirmed = std::mem::take(&mut self.confirmed).into_iter().map(|(_, batch)| batch);
        let asked = std::mem::take(&mut self.asked).into_values().map(|(_, batch)| batch);
        asked.chain(confirmed).flatten().map(|(id, _)| id)
    }
}

impl ManagerCore {
    pub(super) fn ask(&mut self, batch: Batch) {
        if !batch.is_empty() {
            let round = self.consensus.start_read();
            self.reads.ask(round, self.now, batch);
        }
    }

    /// A follower's question may be lost, and its leader does not answer before it has written in its term.
    pub(super) fn ask_again(&mut self) {
        let overdue = self.reads.take_overdue(self.now);
        self.ask(overdue);
    }

    pub(super) fn answer_reads(&mut self, effects: &mut Vec<Effect>) {
        let applied = self.store.applied();
        for (index, batch) in std::mem::take(&mut self.reads.confirmed) {
            if index > applied {
                self.reads.confirmed.push((index, batch));
                continue;
            }
            for (id, asking) in batch {
                let result = match asking {
                    Asking::Read(request) => self.read(request),
                    Asking::Told(result) => *result,
                };
                effects.push(Effect::Reply { id, result });
            }
        }
    }
}
