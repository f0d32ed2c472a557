//! The cluster's own image store: blobs on this manager's disk, names in the replicated state.
//!
//! A name is written only once everything that it stands for is on disk. Blobs that no name and no service leads to
//! are removed; what is being brought in is protected by a lock until it has its name.

mod error;
mod garbage;
mod replicate;
mod resolve;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use swarm_image::{
    ContentStore, Descriptor, ImageManifest, Platform, Progress, Reference, Registry, RegistryOptions,
    StoreError, archive,
};
use swarm_manager_core::api::{Request, Response};
use swarm_model::{Actor, Image, Timestamp};
use tokio::sync::{Mutex, RwLock, Semaphore};

use crate::engine::Engine;
use crate::peers::Peers;
pub use error::ImageError;
pub use resolve::AskRegistry;

/// Archives read or images pulled at the same time. Each may hold hundreds of open files.
const MAX_INCOMING: usize = 4;

/// Blobs fetched from other managers at the same time.
const MAX_FETCHING: usize = 4;

/// The image store of this manager. Clones are the same.
#[derive(Clone)]
pub struct Images(Arc<Shared>);

struct Shared {
    engine: Engine,
    content: ContentStore,
    registry: Registry,
    incoming: Semaphore,
    peers: Peers,
    fetching: Semaphore,
    /// Held for reading while content comes in that has no name yet, for writing while content is removed.
    collecting: RwLock<()>,
    /// One collection at a time.
    collector: Mutex<()>,
}

impl Images {
    /// Opens the store in `directory`, which is made if absent.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(
        directory: &Path,
        registries: RegistryOptions,
        engine: Engine,
        peers: Peers,
    ) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Shared {
            engine,
            content: ContentStore::open(directory)?,
            registry: Registry::new(registries),
            incoming: Semaphore::new(MAX_INCOMING),
            peers,
            fetching: Semaphore::new(MAX_FETCHING),
            collecting: RwLock::new(()),
            collector: Mutex::new(()),
        })))
    }

    pub fn content(&self) -> &ContentStore {
        &self.0.content
    }

    /// Brings in every named image of an archive. `source` is read on a thread of its own, and may block.
    ///
    /// # Errors
    /// The archive is refused, and then no name was changed; or a name cannot be written.
    pub async fn load(
        &self,
        by: Option<Actor>,
        source: impl Read + Send + 'static,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        let loaded = self.import(by, source).await;
        // A name may have moved, or nothing have got one.
        self.collect_garbage();
        loaded
    }

    async fn import(
        &self,
        by: Option<Actor>,
        source: impl Read + Send + 'static,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        let _room = self.0.incoming.try_acquire().map_err(|_| ImageError::Busy)?;
        let _collecting = self.0.collecting.read().await;
        let store = self.0.content.clone();
        let import = tokio::task::spawn_blocking(move || archive::import(source, &store)).await;
        let import = import.map_err(|_| ImageError::Interrupted)?.map_err(ImageError::Import)?;
        let mut loaded = Vec::new();
        for image in &import.images {
            let platform = image.platforms.first().ok_or(ImageError::Nameless)?;
            let total = image.blobs.iter().map(|blob| blob.size).sum();
            for name in &image.names {
                loaded.push(self.put(by.clone(), name, &image.target, total, platform).await?);
            }
        }
        if loaded.is_empty() { Err(ImageError::Nameless) } else { Ok(loaded) }
    }

    /// Brings in an image from its registry, for this manager's platform.
    ///
    /// # Errors
    /// The name or the registry's answer is refused, or the registry cannot be reached.
    pub async fn pull(
        &self,
        by: Option<Actor>,
        name: &str,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Arc<Image>, ImageError> {
        let pulled = self.pull_and_name(by, name, progress).await;
        self.collect_garbage();
        pulled
    }

    async fn pull_and_name(
        &self,
        by: Option<Actor>,
        name: &str,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Arc<Image>, ImageError> {
        let reference = parse(name)?;
        let _room = self.0.incoming.try_acquire().map_err(|_| ImageError::Busy)?;
        let _collecting = self.0.collecting.read().await;
        let platform = Platform::current();
        let pulled = self.0.registry.pull(&reference, &platform, &self.0.content, progress).await;
        let manifest = pulled.map_err(|error| ImageError::from_registry(&reference, error))?;
        let total = manifest.blobs().map(|blob| blob.size).sum();
        let stored = reference.without_digest().unwrap_or(reference);
        self.put(by, &stored, manifest.target(), total, &platform_of(&manifest, &platform)).await
    }

    /// # Errors
    /// The manager refused.
    pub async fn list(&self) -> Result<Vec<Arc<Image>>, ImageError> {
        match self.0.engine.request(Request::ListImages).await? {
            Response::Images(images) => Ok(images),
            other => unreachable!("ListImages is answered by images, not by {other:?}"),
        }
    }

    /// Removes a name, and then the content that nothing leads to any more.
    ///
    /// # Errors
    /// There is no such name, or services use it and it is not forced.
    pub async fn remove(&self, by: Option<Actor>, name: &str, force: bool) -> Result<(), ImageError> {
        let name = parse(name)?.to_string();
        self.0.engine.request_by(by, Request::RemoveImage { name, force }).await?;
        self.collect_garbage();
        Ok(())
    }

    async fn put(
        &self,
        by: Option<Actor>,
        name: &Reference,
        target: &Descriptor,
        total_bytes: u64,
        platform: &Platform,
    ) -> Result<Arc<Image>, ImageError> {
        let image = Image {
            name: name.to_string(),
            version: 0,
            created_at: Timestamp::ZERO,
            digest: target.digest.to_string(),
            manifest_bytes: target.size,
            total_bytes,
            platform: model_platform(platform),
        };
        match self.0.engine.request_by(by, Request::PutImage(image)).await? {
            Response::Image(image) => Ok(image),
            other => unreachable!("PutImage is answered by an image, not by {other:?}"),
        }
    }
}

fn parse(name: &str) -> Result<Reference, ImageError> {
    name.parse().map_err(|source| ImageError::Name { source })
}

fn platform_of(manifest: &ImageManifest, wanted: &Platform) -> Platform {
    let stated = &manifest.config.platform;
    if stated.os.is_empty() { wanted.clone() } else { stated.clone() }
}

fn model_platform(platform: &Platform) -> swarm_model::Platform {
    swarm_model::Platform {
        os: platform.os.clone(),
        arch: swarm_model::Platform::canonical_arch(&platform.architecture),
    }
}
