//! Failures of the last minutes per service revision and node, so that a node that breaks tasks is tried last.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use swarm_model::{NodeId, ServiceId, Timestamp};

/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Failures of one service revision within [`WINDOW`] that make a node the last choice for it.
const LIMIT: u32 = 5;
/// Failures remembered, the oldest ones forgotten first: 333 per second over the window, some 12 MB.
const MAX_REMEMBERED: usize = 100_000;

type Subject = (ServiceId, u64, NodeId);

#[derive(Debug, Default)]
pub(super) struct Failures {
    /// In the order in which they were recorded.
    recent: VecDeque<(Timestamp, Subject)>,
    counts: BTreeMap<Subject, u32>,
}

impl Failures {
    /// `at` is the leader's clock, so it does not run backwards from one call to the next.
    pub(super) fn record(&mut self, service: ServiceId, revision: u64, node: NodeId, at: Timestamp) {
        let subject = (service, revision, node);
        if self.recent.len() == MAX_REMEMBERED {
            self.forget_first();
        }
        self.recent.push_back((at, subject));
        *self.counts.entry(subject).or_default() += 1;
    }

    /// Forgets what is too old at `now`.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.recent.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, subject)) = self.recent.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&subject) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&subject);
            }
        }
    }

    /// The nodes that are the last choice for that revision.
    pub(super) fn failing(&self, service: ServiceId, revision: u64) -> impl Iterator<Item = NodeId> {
        let node = NodeId::from_u128;
        self.counts
            .range((service, revision, node(0))..=(service, revision, node(u128::MAX)))
            .filter(|(_, count)| **count >= LIMIT)
            .map(|((_, _, node), _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn five_failures_in_five_minutes_count_and_are_forgotten() {
        let (service, node) = (ServiceId::from_u128(1), NodeId::from_u128(2));
        let mut failures = Failures::default();
        for at in 1..=5 {
            assert_eq!(failures.failing(service, 7).count(), 0);
            failures.record(service, 7, node, seconds(at));
        }
        failures.expire(seconds(300));
        assert_eq!(failures.failing(service, 7).collect::<Vec<_>>(), [node]);
        assert_eq!(failures.failing(service, 8).count(), 0);
        failures.expire(seconds(301));
        assert_eq!(failures.failing(service, 7).count(), 0);
        failures.expire(seconds(1_000));
        assert!(failures.counts.is_empty() && failures.recent.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut failures = Failures::default();
        for n in 0..MAX_REMEMBERED as u128 + 10 {
            failures.record(ServiceId::from_u128(n), 1, NodeId::from_u128(n), seconds(0));
        }
        assert_eq!((failures.recent.len(), failures.counts.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}
