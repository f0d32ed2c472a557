//! The cluster's image store: archives come in as streams, content goes out to nodes in pieces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use swarm_image::{Digest, Progress, StoreError};
use swarm_manager_core::api::{ApiError, Request as Ask, Response as Answer};
use swarm_model::{NodeId, NodeRole};
use swarm_proto::v1;
use swarm_proto::v1::images_server::Images as ImageService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::actor;
use super::sessions::calling_member;
use super::status::{from_api, from_image};
use super::views;
use crate::engine::Engine;
use crate::images::Images;
use crate::text::chain;

/// Of a blob, per message.
const CHUNK_BYTES: usize = 1 << 20;
/// Pieces of one archive or blob that wait for their reader.
const MAX_CHUNKS: usize = 4;
/// For the next piece of an archive.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Blobs sent at the same time; each holds an open file and up to 4 MiB.
const MAX_BLOBS: usize = 64;
/// Steps of a pull that its watcher has not taken; older ones say nothing that newer ones do not.
const MAX_STEPS: usize = 16;
/// Received bytes are told this often.
const STEP_BYTES: u64 = 1 << 20;

pub struct ImageCalls {
    engine: Engine,
    images: Images,
    blobs: Arc<Semaphore>,
}

impl ImageCalls {
    pub fn new(engine: Engine, images: Images) -> Self {
        Self { engine, images, blobs: Arc::new(Semaphore::new(MAX_BLOBS)) }
    }
}

#[tonic::async_trait]
impl ImageService for ImageCalls {
    type PullStream = ReceiverStream<Result<v1::PullImageProgress, Status>>;
    type GetBlobStream = ReceiverStream<Result<v1::BlobChunk, Status>>;

    async fn load(
        &self,
        request: Request<Streaming<v1::LoadImageRequest>>,
    ) -> Result<Response<v1::LoadImageResponse>, Status> {
        self.engine.check_space().map_err(|error| from_api(&error))?;
        let (sender, pieces) = mpsc::channel(MAX_CHUNKS);
        let by = actor(&request);
        let uploading = tokio::spawn(upload(request.into_inner(), sender));
        let loaded = self.images.load(by, Upload { pieces, rest: Bytes::new() }).await;
        uploading.abort();
        let images = loaded.map_err(|error| from_image(&error))?;
        Ok(Response::new(v1::LoadImageResponse { images: views::images(&images) }))
    }

    async fn pull(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        self.engine.check_space().map_err(|error| from_api(&error))?;
        let by = actor(&request);
        let name = request.into_inner().name;
        let (steps, stream) = mpsc::channel(MAX_STEPS);
        let images = self.images.clone();
        tokio::spawn(async move {
            let meter = Meter { steps: steps.clone(), done: Mutex::default() };
            let pulled = tokio::select! {
                pulled = images.pull(by, &name, |step| meter.tell(&step)) => pulled,
                // Nobody waits for it any more.
                () = steps.closed() => return,
            };
            let last = pulled.map_err(|error| from_image(&error)).map(|image| v1::PullImageProgress {
                done_bytes: image.total_bytes,
                total_bytes: image.total_bytes,
                message: "done".to_owned(),
                image: Some(image.as_ref().into()),
            });
            let _ = steps.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.images.list().await.map_err(|error| from_image(&error))?;
        Ok(Response::new(v1::ListImagesResponse { images: views::images(&images) }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let by = actor(&request);
        let v1::RemoveImageRequest { name, force } = request.into_inner();
        self.images.remove(by, &name, force).await.map_err(|error| from_image(&error))?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let (node, role) = calling_member(&request)?;
        let v1::GetBlobRequest { digest, own_only } = request.into_inner();
        let digest: Digest = digest.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        self.check_use(node, role, digest).await?;
        if !own_only && self.images.bring(digest).await.is_none() {
            return Err(Status::not_found(format!("no manager has {digest}")));
        }
        let room = Arc::clone(&self.blobs).acquire_owned().await.expect("the semaphore is never closed");
        let content = self.images.content().clone();
        let opened = tokio::task::spawn_blocking(move || {
            content.open_blob(&digest).and_then(|file| Ok((file, content.size(&digest)?)))
        });
        let (file, total) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error @ StoreError::NotFound { .. })) => return Err(Status::not_found(chain(&error))),
            Ok(Err(error)) => return Err(Status::internal(chain(&error))),
            Err(_) => return Err(Status::internal("reading the blob was interrupted")),
        };
        let (chunks, stream) = mpsc::channel(MAX_CHUNKS);
        tokio::task::spawn_blocking(move || send_blob(file, total, &chunks, room));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl ImageCalls {
    /// A worker gets what its own tasks are of and nothing else; managers keep everything.
    async fn check_use(&self, node: NodeId, role: NodeRole, digest: Digest) -> Result<(), Status> {
        let roots = match self.engine.request(Ask::GetNodeImages { node }).await {
            Ok(Answer::ImageRoots(roots)) => roots,
            Ok(other) => unreachable!("GetNodeImages is answered by roots, not by {other:?}"),
            Err(ApiError::NotFound { .. }) => {
                return Err(Status::permission_denied("the calling node is not a member of this cluster"));
            }
            Err(error) => return Err(from_api(&error)),
        };
        let roots: Vec<Digest> = roots.iter().filter_map(|root| root.parse().ok()).collect();
        if role == NodeRole::Manager || self.images.is_part_of(digest, &roots).await {
            return Ok(());
        }
        Err(Status::permission_denied(format!("no task of the calling node needs {digest}")))
    }
}

/// Sends until the end of the file, or until nobody listens.
fn send_blob(
    mut file: File,
    total_bytes: u64,
    chunks: &mpsc::Sender<Result<v1::BlobChunk, Status>>,
    room: OwnedSemaphorePermit,
) {
    let mut first = true;
    loop {
        let mut data = Vec::new();
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data);
        let chunk = match read {
            Ok(0) if !first => break,
            Ok(_) => {
                Ok(v1::BlobChunk { total_bytes: if first { total_bytes } else { 0 }, data: data.into() })
            }
            Err(error) => Err(Status::internal(format!("cannot read the blob: {error}"))),
        };
        first = false;
        let failed = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || failed {
            break;
        }
    }
    drop(room);
}

type Piece = Result<Bytes, &'static str>;

/// Takes the archive from the caller, as fast as it is read.
async fn upload(mut stream: Streaming<v1::LoadImageRequest>, pieces: mpsc::Sender<Piece>) {
    loop {
        let piece = match tokio::time::timeout(UPLOAD_TIMEOUT, stream.message()).await {
            Ok(Ok(Some(request))) => Ok(request.chunk),
            Ok(Ok(None)) => return,
            Ok(Err(_)) => Err("the upload broke off"),
            Err(_) => Err("nothing more of the upload came in time"),
        };
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// The upload as a reader for the thread that imports it.
struct Upload {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(problem)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem)),
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Sums up what a pull tells about single blobs.
struct Meter {
    steps: mpsc::Sender<Result<v1::PullImageProgress, Status>>,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    total: u64,
    by_blob: BTreeMap<Digest, u64>,
    told: u64,
}

impl Meter {
    fn tell(&self, progress: &Progress) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let must_tell = match progress {
            Progress::Fetching(blobs) => {
                done.total += blobs.iter().map(|blob| blob.size).sum::<u64>();
                true
            }
            Progress::Received { digest, bytes } => {
                done.by_blob.insert(*digest, *bytes);
                false
            }
            Progress::Stored(_) => true,
        };
        let sum: u64 = done.by_blob.values().sum();
        if must_tell || sum >= done.told + STEP_BYTES {
            done.told = sum;
            let message = "pulling".to_owned();
            let step =
                v1::PullImageProgress { done_bytes: sum, total_bytes: done.total, message, image: None };
            // A watcher that is behind sees the next one.
            let _ = self.steps.try_send(Ok(step));
        }
    }
}
