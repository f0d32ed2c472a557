//! Requests to a service, at every node in turn, all the time.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::e2e::try_get;

const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    client: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<String>,
}

impl Traffic {
    pub fn start(endpoints: Vec<SocketAddrV4>) -> Self {
        let shared = Arc::new(Shared::default());
        let client = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.ask(&endpoints)
        });
        Self { shared, client }
    }

    /// Of all requests that began until now: waits for the one under way, which may have met an earlier fault.
    pub fn failed(&self) -> u64 {
        let begun = self.shared.requests.load(Ordering::Relaxed);
        while self.shared.ended.load(Ordering::Acquire) < begun && !self.client.is_finished() {
            std::thread::sleep(PAUSE);
        }
        self.shared.failed.load(Ordering::Relaxed)
    }

    pub fn last_failure(&self) -> String {
        self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there were.
    pub fn stop(self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.client.join();
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn ask(&self, endpoints: &[SocketAddrV4]) {
        for endpoint in endpoints.iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            if let Err(failure) = try_get(*endpoint) {
                self.failed.fetch_add(1, Ordering::Relaxed);
                *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
            }
            self.ended.fetch_add(1, Ordering::Release);
            std::thread::sleep(PAUSE);
        }
    }
}
