//! Waiting for a state: never for a time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);
/// Generous: it only bounds how long a failing test hangs on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Repeats `attempt` until it gives a value.
///
/// # Panics
/// With the last refusal, when it takes unreasonably long.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(refusal) if Instant::now() > end => panic!("{what} did not happen in {LIMIT:?}: {refusal}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
