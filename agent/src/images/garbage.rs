//! Removing images that no task uses and none used lately, and the content that nothing refers to any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use swarm_agent_core::ImageRefKey;
use swarm_image::{Digest, ImageManifest, Platform};

use super::{Images, Store};
use crate::text::chain;

/// An image stays for this long after its last use: a rollback or a rescheduled task finds it.
const KEEP_UNUSED: Duration = Duration::from_secs(24 * 3600);

impl Images {
    /// Removes what is not needed by `used`. Does nothing while an image is being made ready.
    pub async fn collect_garbage(&self, used: BTreeSet<ImageRefKey>) {
        let store = Arc::clone(&self.shared);
        let Ok(_collecting) = self.shared.collecting.try_write() else { return };
        // Forgotten here, looked at anew when next used: then its record's time of use is raised.
        self.shared.ready.lock().retain(|image, _| used.contains(&ImageRefKey::from(image)));
        let collected = tokio::task::spawn_blocking(move || store.collect(&used, SystemTime::now())).await;
        match collected {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(images = removed, "removed images that were not used for long"),
            Ok(Err(error)) => tracing::warn!(error, "unused images cannot be removed"),
            Err(error) => tracing::error!(%error, "removing unused images was interrupted"),
        }
    }
}

impl Store {
    /// Gives the number of images removed.
    fn collect(&self, used: &BTreeSet<ImageRefKey>, now: SystemTime) -> Result<usize, String> {
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        let mut old = Vec::new();
        for (record, last_use) in self.records.list().map_err(|error| chain(&error))? {
            let digest = record.target.digest;
            let age = now.duration_since(last_use).unwrap_or(Duration::ZERO);
            if is_used(used, &record.name, &digest) {
                self.records.write(&record.name, &record.target).map_err(|error| chain(&error))?;
            } else if age > KEEP_UNUSED {
                old.push(digest);
                continue;
            }
            blobs.insert(digest);
            if let Ok(image) = ImageManifest::load(&self.content, &record.target, &Platform::current()) {
                blobs.extend(image.blobs().map(|blob| blob.digest));
                layers.extend(image.layers.iter().map(|layer| layer.diff_id));
            }
        }
        if old.is_empty() {
            return Ok(0);
        }
        for digest in &old {
            self.records.remove(digest).map_err(|error| chain(&error))?;
        }
        self.layers.remove_unused(&layers).map_err(|error| chain(&error))?;
        for (digest, _) in self.content.list().map_err(|error| chain(&error))? {
            if !blobs.contains(&digest) {
                self.content.remove(&digest).map_err(|error| chain(&error))?;
            }
        }
        Ok(old.len())
    }
}

fn is_used(used: &BTreeSet<ImageRefKey>, name: &str, digest: &Digest) -> bool {
    let digest = digest.to_string();
    used.iter().any(|image| match &image.digest {
        Some(used) => *used == digest,
        None => image.name == name,
    })
}
