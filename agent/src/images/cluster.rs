//! Fetching from the cluster's own image store, over the managers.
//!
//! Managers are asked in turn, the session's first; one that fails in the middle is followed by the next. What comes is
//! verified against its digest whoever sends it.

use std::io;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use swarm_image::{
    ContentStore, Descriptor, Digest, ImageManifest, Lookup, MAX_DOCUMENT_BYTES, Platform, media_type,
};
use swarm_proto::v1::images_client::ImagesClient;
use swarm_proto::v1::{BlobChunk, GetBlobRequest};
use tokio::sync::watch;
use tokio_util::io::StreamReader;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::progress::Meter;
use super::{Cause, Store};
use crate::managers::Managers;
use crate::text::chain;

/// Blobs fetched at the same time: enough to fill a network whose managers read from different places.
const PARALLEL_BLOBS: usize = 3;
/// Index, manifest, configuration and layers: each round brings what the one before named.
const ROUNDS_LIMIT: usize = 6;

impl Store {
    pub(super) async fn fetch_from_cluster(
        &self,
        digest: Digest,
        progress: &watch::Sender<String>,
    ) -> Result<(Descriptor, ImageManifest), Cause> {
        let target = document(&self.managers, &self.content, digest).await?;
        let meter = Meter::new(progress.clone());
        for _ in 0..ROUNDS_LIMIT {
            let lookup = ImageManifest::look_up(&self.content, &target, &Platform::current());
            let missing = match lookup.map_err(|error| Cause::stays(chain(&error)))? {
                Lookup::Complete(manifest) => return Ok((target, *manifest)),
                Lookup::Missing(missing) => missing,
            };
            meter.expect(&missing);
            stream::iter(missing)
                .map(|blob| fetch(&self.managers, &self.content, blob, &meter))
                .buffer_unordered(PARALLEL_BLOBS)
                .try_collect::<()>()
                .await?;
        }
        Err(Cause::stays(format!("{digest} names more and more content")))
    }
}

/// Fetches the document that only its digest is known of, and finds out what it is.
async fn document(managers: &Managers, content: &ContentStore, digest: Digest) -> Result<Descriptor, Cause> {
    let bytes = from_any(managers, digest, |channel| read_document(channel, digest).boxed()).await?;
    let media_type = media_type_of(&bytes).map_err(Cause::stays)?;
    content.write_bytes(&media_type, &bytes).map_err(|error| Cause::stays(chain(&error)))
}

async fn read_document(channel: Channel, digest: Digest) -> Result<Vec<u8>, Status> {
    let mut chunks = open(channel, digest).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        bytes.extend_from_slice(&chunk.data);
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(Status::data_loss(format!("{digest} is larger than any manifest may be")));
        }
    }
    match Digest::of(&bytes) {
        actual if actual == digest => Ok(bytes),
        actual => Err(Status::data_loss(format!("{digest} was asked for, {actual} came"))),
    }
}

/// The media type that a manifest or index states. OCI lets it be absent, and then the shape tells.
fn media_type_of(bytes: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| format!("its manifest is malformed: {error}"))?;
    let by_shape = if shape.manifests.is_some() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    Ok(shape.media_type.unwrap_or_else(|| by_shape.to_owned()))
}

async fn fetch(
    managers: &Managers,
    content: &ContentStore,
    blob: Descriptor,
    meter: &Meter,
) -> Result<(), Cause> {
    from_any(managers, blob.digest, |channel| ingest(channel, content, &blob, meter).boxed()).await
}

async fn ingest(
    channel: Channel,
    content: &ContentStore,
    blob: &Descriptor,
    meter: &Meter,
) -> Result<(), Status> {
    let chunks = open(channel, blob.digest).await?;
    let reader = StreamReader::new(chunks.map_ok(|chunk| chunk.data).map_err(io::Error::other));
    let received = |bytes| meter.received(blob.digest, bytes);
    let ingested = content.ingest_async(blob, reader, received).await;
    ingested.map(drop).map_err(|error| Status::data_loss(chain(&error)))
}

async fn open(channel: Channel, digest: Digest) -> Result<Streaming<BlobChunk>, Status> {
    let request = GetBlobRequest { digest: digest.to_string(), own_only: false };
    Ok(ImagesClient::new(channel).get_blob(request).await?.into_inner())
}

/// Tries one manager after the other; the last failure is told, but "not there" only if nobody said anything else.
async fn from_any<'a, T>(
    managers: &Managers,
    digest: Digest,
    attempt: impl Fn(Channel) -> BoxFuture<'a, Result<T, Status>>,
) -> Result<T, Cause> {
    let mut failure = None;
    for manager in managers.candidates() {
        let channel = match managers.dial_for_content(&manager).await {
            Ok(channel) => channel,
            Err(error) => {
                failure = Some(error.to_string());
                continue;
            }
        };
        match attempt(channel).await {
            Ok(done) => return Ok(done),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => {
                managers.hang_up_content();
                failure = Some(format!("manager {manager}: {}", status.message()));
            }
        }
    }
    Err(match failure {
        Some(failure) => Cause::may_pass(format!("cannot fetch {digest}: {failure}")),
        None => Cause::stays(format!("no manager has {digest}: load or pull the image again")),
    })
}
