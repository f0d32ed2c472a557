//! The clock that the core is told: wall time at the start, then the time that has passed, so that it never runs back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use swarm_model::Timestamp;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    wall: Timestamp,
}

impl Clock {
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { origin: Instant::now(), wall: Timestamp::ZERO + since_epoch }
    }

    pub fn now(&self) -> Timestamp {
        self.wall + self.origin.elapsed()
    }

    /// The instant at which this clock shows `at`.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.origin + at.since(self.wall)
    }
}
