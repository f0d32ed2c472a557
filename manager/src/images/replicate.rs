//! Image content among the managers: whoever leads takes it in, and every other one copies it, so that it outlives any of
//! them. Content that is asked for before it was copied is fetched at once.
//!
//! What comes is verified against its digest, whoever sends it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use swarm_image::{Descriptor, Digest, IngestError};
use swarm_manager_core::api::{Request, Response};
use swarm_model::NodeId;
use swarm_pki::DialError;
use swarm_proto::v1;
use swarm_proto::v1::images_client::ImagesClient;
use tokio_util::io::StreamReader;
use tonic::Code;
use tracing::{debug, info};

use super::Images;
use super::garbage::{MAX_DOCUMENTS, references};
use crate::text::chain;

/// The replicated names are looked at this often; it takes one round of heartbeats.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Content that no manager had is asked for again after so many looks: one that has it may come back.
const PATIENCE: u32 = 30;

/// Why a blob was not fetched from one manager.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("manager {node} does not send {digest}")]
    Refused {
        node: NodeId,
        digest: Digest,
        #[source]
        status: tonic::Status,
    },
    #[error("cannot keep what manager {node} sent for {digest}")]
    Ingest {
        node: NodeId,
        digest: Digest,
        #[source]
        source: IngestError,
    },
}

impl Images {
    /// Copies whatever the cluster's names and services stand for, for as long as the manager runs.
    pub async fn replicate(self) {
        let (mut complete, mut looks) = (BTreeSet::new(), 0);
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if self.0.peers.others().is_empty() {
                continue;
            }
            let Ok(Response::ImageRoots(roots)) = self.0.engine.request(Request::GetImageRoots).await else {
                continue;
            };
            let roots: BTreeSet<Digest> = roots.iter().filter_map(|root| root.parse().ok()).collect();
            looks += 1;
            if roots == complete && looks < PATIENCE {
                continue;
            }
            let gone = !complete.is_subset(&roots);
            for root in roots.iter().filter(|root| looks >= PATIENCE || !complete.contains(root)) {
                self.copy(*root).await;
            }
            (complete, looks) = (roots, 0);
            if gone {
                self.collect_garbage();
            }
        }
    }

    /// Copies an image: the document `root`, and what it names.
    async fn copy(&self, root: Digest) {
        let _collecting = self.0.collecting.read().await;
        let (mut documents, mut seen) = (vec![root], BTreeSet::new());
        let mut copied = 0;
        while let Some(document) = documents.pop() {
            if !seen.insert(document) || seen.len() > MAX_DOCUMENTS {
                continue;
            }
            copied += usize::from(self.bring(document).await.unwrap_or(false));
            let Some(named) = references(&self.0.content, &document) else { continue };
            for blob in named.blobs {
                copied += usize::from(self.bring(blob).await.unwrap_or(false));
            }
            documents.extend(named.documents);
        }
        if copied > 0 {
            info!(image.digest = %root, blobs = copied, "copied an image from another manager");
        }
    }

    /// Whether a blob belongs to one of the images `roots`. Their documents are fetched where they are not here yet.
    pub async fn is_part_of(&self, blob: Digest, roots: &[Digest]) -> bool {
        let (mut documents, mut seen) = (roots.to_vec(), BTreeSet::new());
        while let Some(document) = documents.pop() {
            if document == blob {
                return true;
            }
            if !seen.insert(document) || seen.len() > MAX_DOCUMENTS || self.bring(document).await.is_none() {
                continue;
            }
            let content = self.0.content.clone();
            let named = tokio::task::spawn_blocking(move || references(&content, &document)).await;
            let Ok(Some(named)) = named else { continue };
            if named.blobs.contains(&blob) {
                return true;
            }
            documents.extend(named.documents);
        }
        false
    }

    /// Fetches a blob from another manager. True: it was not here and is now; `None`: no manager has it.
    pub async fn bring(&self, digest: Digest) -> Option<bool> {
        if self.0.content.contains(&digest) {
            return Some(false);
        }
        let _room = self.0.fetching.acquire().await;
        for (node, address) in self.0.peers.others() {
            match self.fetch(node, &address, digest).await {
                Ok(()) => return Some(true),
                Err(FetchError::Refused { status, .. }) if status.code() == Code::NotFound => {}
                Err(error) => debug!(error = chain(&error), "image content was not fetched"),
            }
        }
        None
    }

    async fn fetch(&self, node: NodeId, address: &str, digest: Digest) -> Result<(), FetchError> {
        let refused = |status| FetchError::Refused { node, digest, status };
        let channel = self.0.peers.dial(node, address).await?;
        let request = v1::GetBlobRequest { digest: digest.to_string(), own_only: true };
        let chunks = ImagesClient::new(channel).get_blob(request).await.map_err(refused)?;
        let mut chunks = chunks.into_inner();
        let Some(first) = chunks.message().await.map_err(refused)? else {
            return Err(refused(tonic::Status::data_loss("it sent nothing")));
        };
        let media_type = "application/octet-stream".to_owned();
        let expected = Descriptor { media_type, digest, size: first.total_bytes };
        let data = stream::once(async { Ok(first) }).chain(chunks).map_ok(|chunk| chunk.data);
        let reader = StreamReader::new(Box::pin(data.map_err(io::Error::other)));
        let ingested = self.0.content.ingest_async(&expected, reader, |_| {}).await;
        ingested.map(drop).map_err(|source| FetchError::Ingest { node, digest, source })
    }
}
