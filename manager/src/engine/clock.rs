//! The core's time: the wall clock at start, and from then on the monotonic one, so that it never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use swarm_model::Timestamp;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Duration,
    started: Instant,
}

impl Clock {
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall, started: Instant::now() }
    }

    pub fn now(self) -> Timestamp {
        Timestamp::ZERO + self.wall + self.started.elapsed()
    }
}
