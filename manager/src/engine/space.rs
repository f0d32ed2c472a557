//! Watches the space on the manager's disk: new work is refused before there is none.
//!
//! What is kept free pays for what must go on: elections, what agents report, decisions for what already is desired,
//! removals. Nothing has to be restarted when there is space again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use swarm_manager_core::api::{ApiError, Request};
use tracing::{info, warn};

/// Kept free: two segments of the log (16 MiB), a segment of sled for each copy of the state while it is written anew
/// (16 MiB), what one checkpoint changes, in both copies (16 MiB), and as much again as one of them for others on the
/// same disk.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// Taken again from here on, so that the answer does not change with every write.
const ENOUGH_BYTES: u64 = RESERVE_BYTES + (8 << 20);
/// At most so old is what is known. The log writes some megabytes in that time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Space {
    directory: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    free_bytes: u64,
    is_short: bool,
}

impl Space {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), seen: Mutex::default() }
    }

    /// Whether that request may be taken.
    ///
    /// # Errors
    /// It would need space that there is not; the text is for the operator.
    pub fn admit(&self, request: &Request) -> Result<(), ApiError> {
        if request.needs_space() { self.check() } else { Ok(()) }
    }

    /// Whether there is space for something new.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn check(&self) -> Result<(), ApiError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.look(&mut seen);
        }
        if seen.is_short { Err(self.refusal(seen.free_bytes)) } else { Ok(()) }
    }

    fn look(&self, seen: &mut Seen) {
        seen.at = Some(Instant::now());
        // A disk that cannot even be asked will say so when it is written.
        let Ok(space) = rustix::fs::statvfs(&self.directory) else { return };
        seen.free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        let limit = if seen.is_short { ENOUGH_BYTES } else { RESERVE_BYTES };
        let is_short = seen.free_bytes < limit;
        if is_short != seen.is_short {
            let (path, free_bytes) = (self.directory.display(), seen.free_bytes);
            if is_short {
                warn!(%path, free_bytes, "the manager's disk is nearly full: what needs space is refused");
            } else {
                info!(%path, free_bytes, "the manager's disk has space again");
            }
        }
        seen.is_short = is_short;
    }

    fn refusal(&self, free_bytes: u64) -> ApiError {
        ApiError::FailedPrecondition(format!(
            "nothing was changed: the disk of the leading manager is nearly full ({} MiB free in {}, {} MiB are kept for \
             what must go on); free some space there and repeat the command; services, nodes and images can still be \
             removed",
            free_bytes >> 20,
            self.directory.display(),
            RESERVE_BYTES >> 20,
        ))
    }
}
