//! A node's clock: wrong by an offset, and a little too fast or slow. A process reads the wall clock when it starts and
//! counts from there, so a jump of the wall clock is seen by the next process only.

use std::time::Duration;

use swarm_model::Timestamp;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Microseconds ahead of the world.
    offset: i64,
    /// Too fast by so many millionths.
    drift: i64,
    /// When the process started, in the world's time.
    origin: Timestamp,
}

impl Clock {
    pub fn start(offset: i64, drift: i64, now: Timestamp) -> Self {
        Self { offset, drift, origin: now }
    }

    /// What the clock shows at `now` of the world.
    pub fn local(&self, now: Timestamp) -> Timestamp {
        let passed = now.since(self.origin).as_micros() as i64;
        let wall = self.origin.as_micros() as i64 + self.offset;
        Timestamp::from_micros((wall + passed + passed * self.drift / 1_000_000) as u64)
    }

    /// How long until the clock shows `at`. A little late rather than early.
    pub fn until(&self, now: Timestamp, at: Timestamp) -> Duration {
        let left = at.since(self.local(now));
        if left.is_zero() { left } else { left + left / 1_000 + Duration::from_micros(2) }
    }
}
