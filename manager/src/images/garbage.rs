//! Removal of content that no name of the cluster's store and no service leads to.
//!
//! A service keeps what it was resolved to, and what it may roll back to, even after its tag moved on. What cannot be
//! read keeps nothing alive, but removes nothing by itself either.

use std::collections::BTreeSet;
use std::io::Read;

use swarm_image::{ContentStore, Digest, StoreError};
use swarm_manager_core::api::{ApiError, Request, Response};
use tracing::{info, warn};

use super::Images;
use crate::text::chain;

/// As large as an index or manifest may be.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Documents below one image: indexes of indexes, a manifest for each platform.
pub(super) const MAX_DOCUMENTS: usize = 1_000;

impl Images {
    /// Removes what nothing leads to, beside everything else. Failing is no failure: the next time may succeed.
    pub fn collect_garbage(&self) {
        let images = self.clone();
        tokio::spawn(async move { images.collect_garbage_now().await });
    }

    async fn collect_garbage_now(&self) {
        let _turn = self.0.collector.lock().await;
        // While something comes in, nothing is removed: its end calls again.
        let Ok(_collecting) = self.0.collecting.try_write() else { return };
        let roots = match self.roots().await {
            Ok(roots) => roots,
            Err(error) => return warn!(error = chain(&error), "unused images are kept for now"),
        };
        let content = self.0.content.clone();
        match tokio::task::spawn_blocking(move || remove_unreachable(&content, roots)).await {
            Ok(Ok((0, _))) => {}
            Ok(Ok((blobs, bytes))) => info!(blobs, bytes, "removed image content that nothing uses"),
            Ok(Err(error)) => warn!(error = chain(&error), "unused images are kept for now"),
            Err(error) => warn!(%error, "unused images are kept for now"),
        }
    }

    async fn roots(&self) -> Result<BTreeSet<Digest>, ApiError> {
        match self.0.engine.request(Request::GetImageRoots).await? {
            Response::ImageRoots(roots) => {
                Ok(roots.iter().filter_map(|digest| digest.parse().ok()).collect())
            }
            other => unreachable!("GetImageRoots is answered by roots, not by {other:?}"),
        }
    }
}

/// How many blobs and bytes were removed.
fn remove_unreachable(content: &ContentStore, roots: BTreeSet<Digest>) -> Result<(usize, u64), StoreError> {
    let mut keep = BTreeSet::new();
    for root in roots {
        mark(content, root, &mut keep);
    }
    let (mut blobs, mut bytes) = (0, 0);
    for (digest, size) in content.list()? {
        if !keep.contains(&digest) {
            content.remove(&digest)?;
            (blobs, bytes) = (blobs + 1, bytes + size);
        }
    }
    Ok((blobs, bytes))
}

fn mark(content: &ContentStore, root: Digest, keep: &mut BTreeSet<Digest>) {
    let mut documents = vec![root];
    let mut read = 0;
    while let Some(document) = documents.pop() {
        if !keep.insert(document) || read == MAX_DOCUMENTS {
            continue;
        }
        read += 1;
        let Some(named) = references(content, &document) else { continue };
        keep.extend(named.blobs);
        documents.extend(named.documents);
    }
}

/// What a manifest or an index names.
pub(super) struct References {
    /// Configuration and layers.
    pub blobs: Vec<Digest>,
    /// Manifests and indexes.
    pub documents: Vec<Digest>,
}

/// `None`: it is not there, or no document.
pub(super) fn references(content: &ContentStore, document: &Digest) -> Option<References> {
    let json = read_document(content, document)?;
    let digest_in = |value: &serde_json::Value| value.get("digest")?.as_str()?.parse::<Digest>().ok();
    let list = |key: &str| json.get(key).and_then(serde_json::Value::as_array).into_iter().flatten();
    Some(References {
        blobs: list("layers").chain(json.get("config")).filter_map(digest_in).collect(),
        documents: list("manifests").filter_map(digest_in).collect(),
    })
}

fn read_document(content: &ContentStore, digest: &Digest) -> Option<serde_json::Value> {
    let mut bytes = Vec::new();
    content.open_blob(digest).ok()?.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_consists_of_is_kept_and_the_rest_removed() {
        let folder = tempfile::tempdir().unwrap();
        let content = ContentStore::open(folder.path()).unwrap();
        let put = |text: &str| content.write_bytes("application/json", text.as_bytes()).unwrap().digest;
        let (layer, config, stray) = (put("layer"), put("{\"os\":\"linux\"}"), put("stray"));
        let manifest = put(&format!(
            "{{\"config\":{{\"digest\":\"{config}\"}},\"layers\":[{{\"digest\":\"{layer}\"}}]}}"
        ));
        let index = put(&format!("{{\"manifests\":[{{\"digest\":\"{manifest}\"}}]}}"));
        let (blobs, bytes) = remove_unreachable(&content, BTreeSet::from([index])).unwrap();
        assert_eq!((blobs, bytes), (1, 5));
        assert!(!content.contains(&stray));
        for kept in [layer, config, manifest, index] {
            assert!(content.contains(&kept));
        }
        assert_eq!(remove_unreachable(&content, BTreeSet::new()).unwrap().0, 4);
    }
}
