//! What an image's name means at the moment a service is admitted: exact content, and where the nodes get it from.
//!
//! The cluster's own store is asked first, then the registry, within a bound. A service runs what was resolved here
//! until it is updated, however the tag moves.

use std::time::Duration;

use swarm_image::{Platform, Reference, RegistryError};
use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_model::{Image, ImageRef, PullSource};

use super::{ImageError, Images, model_platform, parse};

/// The registry's time to answer, connection and authorisation included.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// An image as a spec is to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    pub image: ImageRef,
    /// Empty: not known, any.
    pub platforms: Vec<swarm_model::Platform>,
}

/// Whether the registry is asked for what the cluster does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskRegistry {
    Yes,
    /// `--no-resolve-image`: each node takes what the tag means when it pulls.
    No,
}

impl Images {
    /// Resolves a name as the operator wrote it.
    ///
    /// # Errors
    /// Nobody has it, or the registry did not answer.
    pub async fn resolve(&self, name: &str, ask: AskRegistry) -> Result<ResolvedImage, ImageError> {
        let reference = parse(name)?;
        let candidates = match self.find(&reference).await? {
            Found::Here(image) => return Ok(from_cluster(&reference, &image)),
            Found::Similar(candidates) => candidates,
        };
        match ask {
            AskRegistry::Yes => self.ask_registry(&reference, candidates).await,
            AskRegistry::No => Ok(ResolvedImage {
                image: ImageRef {
                    name: stored_name(&reference),
                    digest: reference.digest().map(ToString::to_string),
                    source: PullSource::Registry,
                },
                platforms: Vec::new(),
            }),
        }
    }

    async fn find(&self, reference: &Reference) -> Result<Found, ImageError> {
        if let Some(digest) = reference.digest() {
            let digest = digest.to_string();
            let here = self.list().await?.into_iter().find(|image| image.digest == digest);
            return Ok(here.map_or(Found::Similar(Vec::new()), |image| Found::Here((*image).clone())));
        }
        let request = Request::GetImage { name: reference.to_string() };
        match self.0.engine.request(request).await {
            Ok(Response::Image(image)) => Ok(Found::Here((*image).clone())),
            Ok(other) => unreachable!("GetImage is answered by an image, not by {other:?}"),
            Err(ApiError::NotFound { candidates, .. }) => Ok(Found::Similar(candidates)),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask_registry(
        &self,
        reference: &Reference,
        candidates: Vec<String>,
    ) -> Result<ResolvedImage, ImageError> {
        let (name, registry) = (reference.familiar(), reference.domain().to_owned());
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, self.0.registry.resolve(reference)).await;
        match answer {
            Ok(Ok(resolved)) => Ok(ResolvedImage {
                image: ImageRef {
                    name: stored_name(reference),
                    digest: Some(resolved.target.digest.to_string()),
                    source: PullSource::Registry,
                },
                platforms: distinct(&resolved.platforms),
            }),
            Ok(Err(RegistryError::NotFound { .. })) => {
                Err(ImageError::Unknown { name, registry, candidates })
            }
            Ok(Err(source)) if source.is_transient() => {
                Err(ImageError::Unreachable { name, registry, candidates, source: Some(Box::new(source)) })
            }
            Ok(Err(source)) => {
                Err(ImageError::NotGiven { name, registry, candidates, source: Box::new(source) })
            }
            Err(_) => Err(ImageError::Unreachable { name, registry, candidates, source: None }),
        }
    }
}

enum Found {
    Here(Image),
    Similar(Vec<String>),
}

fn from_cluster(reference: &Reference, image: &Image) -> ResolvedImage {
    ResolvedImage {
        image: ImageRef {
            name: stored_name(reference),
            digest: Some(image.digest.clone()),
            source: PullSource::Cluster,
        },
        platforms: vec![image.platform.clone()],
    }
}

/// With its tag and without its digest, which a spec holds apart. A reference by digest alone keeps it.
fn stored_name(reference: &Reference) -> String {
    reference.without_digest().unwrap_or_else(|| reference.clone()).to_string()
}

/// What an index calls a platform so that nobody runs it: signatures and attestations.
const NO_PLATFORM: &str = "unknown";

/// Variants of one architecture are one platform to the scheduler.
fn distinct(platforms: &[Platform]) -> Vec<swarm_model::Platform> {
    let real = platforms.iter().filter(|platform| platform.os != NO_PLATFORM);
    let mut distinct: Vec<_> = real.map(model_platform).collect();
    distinct.sort();
    distinct.dedup();
    distinct
}
