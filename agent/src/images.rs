//! Images on this node: fetched once however many tasks wait for them, verified, unpacked into shared layers.
//!
//! ```text
//! DIR/content/           blobs by digest
//! DIR/layers/            unpacked layers
//! DIR/images/<hex>.json  images that were made ready; its time of change is that of the last use
//! ```
//!
//! A fetch is tried once. What a failed one brought is kept, verified, so that the next goes on from there.

mod cluster;
mod garbage;
mod progress;
mod record;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use swarm_image::{
    ContentStore, Descriptor, Digest, ImageConfig, ImageManifest, LayerError, LayerStore, Platform,
    Reference, Registry, RegistryError, RegistryOptions, StoreError,
};
use swarm_model::{ImageRef, PullSource};
use tokio::sync::{RwLock, watch};

use crate::managers::Managers;
use crate::text::chain;
use record::Records;

/// The images of one node. Clones are the same.
#[derive(Clone)]
pub(crate) struct Images {
    shared: Arc<Store>,
}

struct Store {
    content: ContentStore,
    layers: LayerStore,
    records: Records,
    registry: Registry,
    managers: Managers,
    /// Fetches under way. Whoever needs one holds it; when nobody does any more it stops.
    flights: Mutex<HashMap<ImageRef, Flight>>,
    /// Images whose files were looked at by this process already.
    ready: Mutex<HashMap<ImageRef, Arc<ReadyImage>>>,
    /// Held for reading while images are made ready, for writing while unused content is removed.
    collecting: RwLock<()>,
}

struct Flight {
    future: WeakShared<BoxFuture<'static, Outcome>>,
    progress: watch::Receiver<String>,
}

type Outcome = Result<Arc<ReadyImage>, Cause>;

/// An image whose layers lie unpacked on this node.
#[derive(Debug)]
pub(crate) struct ReadyImage {
    pub config: ImageConfig,
    /// Directories, bottom first.
    pub layers: Vec<PathBuf>,
}

/// Why an image is not here; the cause, for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("image {name}: {cause}")]
pub(crate) struct ImageError {
    name: Arc<str>,
    cause: Cause,
}

impl ImageError {
    /// Whether trying again soon may help.
    pub fn may_pass(&self) -> bool {
        matches!(self.cause, Cause::MayPass(_))
    }
}

/// What kept an image from coming.
#[derive(Debug, Clone, thiserror::Error)]
enum Cause {
    /// Somebody did not answer, or a connection broke.
    #[error("{0}")]
    MayPass(Arc<str>),
    #[error("{0}")]
    Stays(Arc<str>),
}

impl Cause {
    fn stays(cause: impl fmt::Display) -> Self {
        Self::Stays(cause.to_string().into())
    }

    fn may_pass(cause: impl fmt::Display) -> Self {
        Self::MayPass(cause.to_string().into())
    }

    fn of_registry(error: &RegistryError) -> Self {
        if error.is_transient() { Self::may_pass(chain(error)) } else { Self::stays(chain(error)) }
    }
}

/// Why the node's images cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenImagesError {
    #[error("cannot open the image store")]
    Content(#[source] StoreError),
    #[error("cannot open the layer store")]
    Layers(#[source] LayerError),
    #[error("cannot make {path}", path = path.display())]
    Records {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Images {
    pub fn open(
        directory: &Path,
        managers: Managers,
        registry: RegistryOptions,
    ) -> Result<Self, OpenImagesError> {
        let content = ContentStore::open(directory.join("content")).map_err(OpenImagesError::Content)?;
        let layers = LayerStore::open(directory.join("layers")).map_err(OpenImagesError::Layers)?;
        let path = directory.join("images");
        let records = Records::open(&path).map_err(|source| OpenImagesError::Records { path, source })?;
        let store = Store {
            content,
            layers,
            records,
            registry: Registry::new(registry),
            managers,
            flights: Mutex::default(),
            ready: Mutex::default(),
            collecting: RwLock::default(),
        };
        Ok(Self { shared: Arc::new(store) })
    }

    /// Has the image ready, and tells `progress` what it takes meanwhile. Dropping the future gives the image up,
    /// unless somebody else waits for it too.
    pub async fn ensure(
        &self,
        image: &ImageRef,
        progress: impl Fn(String),
    ) -> Result<Arc<ReadyImage>, ImageError> {
        if let Some(ready) = self.shared.ready.lock().get(image) {
            return Ok(Arc::clone(ready));
        }
        let (future, mut messages) = self.join_flight(image);
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                outcome = &mut future => {
                    let named = |cause| ImageError { name: image.name.as_str().into(), cause };
                    return outcome.map_err(named);
                }
                Ok(()) = messages.changed() => progress(messages.borrow_and_update().clone()),
            }
        }
    }

    /// The configuration of an image that is here; reads files.
    pub fn config_of(&self, image: &ImageRef) -> Option<ImageConfig> {
        let digest = image.digest.as_deref()?.parse().ok()?;
        self.shared.find(&digest).map(|(_, manifest)| manifest.config)
    }

    /// Joins the fetch of this image, beginning it if there is none.
    fn join_flight(
        &self,
        image: &ImageRef,
    ) -> (Shared<BoxFuture<'static, Outcome>>, watch::Receiver<String>) {
        let mut flights = self.shared.flights.lock();
        flights.retain(|_, flight| flight.future.upgrade().is_some());
        if let Some(flight) = flights.get(image)
            && let Some(future) = flight.future.upgrade()
        {
            return (future, flight.progress.clone());
        }
        let (tell, progress) = watch::channel(String::new());
        let (store, wanted) = (Arc::clone(&self.shared), image.clone());
        let future = async move { store.make_ready(&wanted, &tell).await }.boxed().shared();
        let weak = future.downgrade().expect("it was made just now and has not ended");
        flights.insert(image.clone(), Flight { future: weak, progress: progress.clone() });
        (future, progress)
    }
}

impl Store {
    async fn make_ready(self: Arc<Self>, image: &ImageRef, progress: &watch::Sender<String>) -> Outcome {
        let _collecting = self.collecting.read().await;
        let digest = image.digest.as_deref().map(str::parse::<Digest>).transpose();
        let digest = digest.map_err(|error| Cause::stays(chain(&error)))?;
        let (target, manifest) = match digest.and_then(|digest| self.find(&digest)) {
            Some(found) => found,
            None => self.fetch(image, digest, progress).await?,
        };
        progress.send_replace("unpacking".to_owned());
        let (this, unpacking) = (Arc::clone(&self), manifest.clone());
        let unpack = tokio::task::spawn_blocking(move || this.layers.unpack(&unpacking, &this.content));
        let layers = unpack.await.map_err(|_| Cause::stays("unpacking was interrupted"))?;
        let layers = layers.map_err(|error| Cause::stays(chain(&error)))?;
        // A record only spares work later and dates the last use, so failing to write one is no failure.
        if let Err(error) = self.records.write(&image.name, &target) {
            tracing::warn!(image = image.name, %error, "the use of an image cannot be recorded");
        }
        let ready = Arc::new(ReadyImage { config: manifest.config, layers });
        self.ready.lock().insert(image.clone(), Arc::clone(&ready));
        Ok(ready)
    }

    /// The image, if all of its content is here.
    fn find(&self, digest: &Digest) -> Option<(Descriptor, ImageManifest)> {
        let target = self.records.find(digest)?;
        let manifest = ImageManifest::load(&self.content, &target, &Platform::current()).ok()?;
        Some((target, manifest))
    }

    async fn fetch(
        &self,
        image: &ImageRef,
        digest: Option<Digest>,
        progress: &watch::Sender<String>,
    ) -> Result<(Descriptor, ImageManifest), Cause> {
        match (image.source, digest) {
            (PullSource::Cluster, Some(digest)) => self.fetch_from_cluster(digest, progress).await,
            (PullSource::Cluster, None) => {
                Err(Cause::stays("it has no digest, which the cluster's image store needs"))
            }
            (PullSource::Registry, digest) => self.fetch_from_registry(&image.name, digest, progress).await,
        }
    }

    async fn fetch_from_registry(
        &self,
        name: &str,
        digest: Option<Digest>,
        progress: &watch::Sender<String>,
    ) -> Result<(Descriptor, ImageManifest), Cause> {
        let reference = name.parse::<Reference>().map_err(|error| Cause::stays(chain(&error)))?;
        let reference = match digest {
            Some(digest) => reference.with_digest(digest),
            None => reference,
        };
        let resolved = self.registry.resolve(&reference).await.map_err(|error| Cause::of_registry(&error))?;
        let meter = progress::Meter::new(progress.clone());
        let report = |step| meter.registry(step);
        let platform = Platform::current();
        let pull = self.registry.pull_target(&reference, &resolved.target, &platform, &self.content, report);
        let manifest = pull.await.map_err(|error| Cause::of_registry(&error))?;
        Ok((resolved.target, manifest))
    }
}
