//! Why an image was not brought in, not found, or not removed; for operators.

use std::fmt;

use swarm_image::archive::ImportError;
use swarm_image::{Reference, ReferenceError, RegistryError, StoreError};
use swarm_manager_core::api::ApiError;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the image's name was refused")]
    Name {
        #[source]
        source: ReferenceError,
    },
    #[error(
        "{name} is neither in the cluster's image store nor at registry {registry}{}: load it with `swarmctl image \
         load -i FILE`, or check the name", DidYouMean(.candidates)
    )]
    Unknown { name: String, registry: String, candidates: Vec<String> },
    #[error(
        "{name} is not in the cluster's image store{}, and registry {registry} did not tell what it is, within \
         bounds: load it with `swarmctl image load -i FILE`, try again, or pass --no-resolve-image",
        DidYouMean(.candidates)
    )]
    Unreachable {
        name: String,
        registry: String,
        candidates: Vec<String>,
        #[source]
        source: Option<Box<RegistryError>>,
    },
    #[error(
        "{name} is not in the cluster's image store{}, and registry {registry} does not give it: load it with \
         `swarmctl image load -i FILE`, or check the name", DidYouMean(.candidates)
    )]
    NotGiven {
        name: String,
        registry: String,
        candidates: Vec<String>,
        #[source]
        source: Box<RegistryError>,
    },
    #[error("{name} cannot be had from registry {registry}")]
    Refused {
        name: String,
        registry: String,
        #[source]
        source: Box<RegistryError>,
    },
    #[error("the archive was refused")]
    Import(#[source] ImportError),
    #[error("the archive's image has no name: give it one before it is saved, as with `docker tag`")]
    Nameless,
    #[error("too many images are loaded or pulled at this moment; try again")]
    Busy,
    #[error("reading the image was interrupted")]
    Interrupted,
    #[error("the image store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ImageError {
    /// For a pull that the operator asked for by name: the cluster's store is no alternative.
    pub(super) fn from_registry(reference: &Reference, source: RegistryError) -> Self {
        let (name, registry) = (reference.familiar(), reference.domain().to_owned());
        Self::Refused { name, registry, source: Box::new(source) }
    }
}

struct DidYouMean<'a>(&'a [String]);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            candidates => write!(f, " (did you mean {}?)", candidates.join(" or ")),
        }
    }
}
