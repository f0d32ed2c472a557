//! How far a fetch is, as "pulling 63 %".

use std::collections::BTreeMap;

use parking_lot::Mutex;
use swarm_image::{Descriptor, Digest, Progress};
use tokio::sync::watch;

/// Adds up what has come of all blobs, and says so when the percentage changes.
pub(super) struct Meter {
    tell: watch::Sender<String>,
    sums: Mutex<Sums>,
}

#[derive(Default)]
struct Sums {
    /// Size and bytes so far of each blob of the current round.
    blobs: BTreeMap<Digest, (u64, u64)>,
    shown: Option<u64>,
}

impl Meter {
    pub fn new(tell: watch::Sender<String>) -> Self {
        Self { tell, sums: Mutex::default() }
    }

    pub fn expect(&self, blobs: &[Descriptor]) {
        let mut sums = self.sums.lock();
        sums.blobs.extend(blobs.iter().map(|blob| (blob.digest, (blob.size, 0))));
    }

    pub fn received(&self, digest: Digest, bytes: u64) {
        let mut sums = self.sums.lock();
        if let Some((_, received)) = sums.blobs.get_mut(&digest) {
            *received = bytes;
        }
        let (size, received) = sums
            .blobs
            .values()
            .fold((0u64, 0u64), |sum, blob| (sum.0.saturating_add(blob.0), sum.1 + blob.1));
        let percent = received.saturating_mul(100).checked_div(size).unwrap_or(0).min(100);
        if sums.shown != Some(percent) {
            sums.shown = Some(percent);
            self.tell.send_replace(format!("pulling {percent} %"));
        }
    }

    pub fn registry(&self, step: Progress) {
        match step {
            Progress::Fetching(blobs) => self.expect(&blobs),
            Progress::Received { digest, bytes } => self.received(digest, bytes),
            Progress::Stored(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_of_all_blobs() {
        let (tell, shown) = watch::channel(String::new());
        let meter = Meter::new(tell);
        let blob = |content: &[u8], size| Descriptor {
            media_type: String::new(),
            digest: Digest::of(content),
            size,
        };
        meter.expect(&[blob(b"a", 100), blob(b"b", 300)]);
        meter.received(Digest::of(b"a"), 100);
        assert_eq!(*shown.borrow(), "pulling 25 %");
        meter.received(Digest::of(b"b"), 300);
        assert_eq!(*shown.borrow(), "pulling 100 %");
    }
}
