//! Indexes and manifests as JSON, and the checks that one document alone must pass.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{MAX_IMAGE_BYTES, MAX_LAYERS, ManifestError, refused};
use crate::digest::printable;
use crate::{Descriptor, MediaKind, Platform};

/// An index or a manifest.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<IndexEntry>),
    Manifest(Manifest),
}

/// A manifest whose shape has been checked.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What an index points to.
#[derive(Debug)]
pub(crate) struct IndexEntry {
    pub(crate) descriptor: Descriptor,
    pub(crate) platform: Option<Platform>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl IndexEntry {
    /// Build attestations are listed for the platform `unknown/unknown`.
    pub(crate) fn is_image(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        matches!(self.descriptor.kind(), MediaKind::Index | MediaKind::Manifest) && !unknown
    }

    /// [`Platform::preference`]; an entry that names no platform is the last choice, and its configuration decides.
    pub(crate) fn preference(&self, here: &Platform) -> Option<u32> {
        if !self.is_image() {
            return None;
        }
        self.platform.as_ref().map_or(Some(0), |platform| here.preference(platform))
    }
}

/// Both kinds at once, so that a document that claims to be both is noticed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<WireEntry>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    media_type: String,
    digest: crate::Digest,
    size: u64,
    platform: Option<WirePlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WirePlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Document {
    /// Reads the document that `pointer` describes and that has been verified against its digest.
    pub(crate) fn parse(bytes: &[u8], pointer: &Descriptor) -> Result<Self, ManifestError> {
        let digest = pointer.digest;
        let refuse = |problem: String| Err(refused(&digest, problem));
        let what = match pointer.kind() {
            MediaKind::Index => "index",
            MediaKind::Manifest => "manifest",
            MediaKind::Config | MediaKind::Layer(_) | MediaKind::Unknown => {
                let media_type = printable(&pointer.media_type);
                return refuse(format!("{media_type:?} is not the media type of an image or an index"));
            }
        };
        let wire: Wire = serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed {
            what,
            digest,
            source,
        })?;
        if wire.schema_version != 2 || wire.fs_layers.is_some() {
            return refuse(format!("schema version {} is not supported, only 2", wire.schema_version));
        }
        if let Some(own) = wire.media_type.filter(|own| *own != pointer.media_type) {
            let own = printable(&own);
            return refuse(format!("it is pointed to as {}, but calls itself {own:?}", pointer.media_type));
        }
        match (pointer.kind(), wire.manifests, wire.config, wire.layers) {
            (MediaKind::Index, Some(entries), None, None) => {
                Ok(Self::Index(entries.into_iter().map(IndexEntry::from).collect()))
            }
            (MediaKind::Manifest, None, Some(config), Some(layers)) => {
                Manifest { config, layers }.checked(pointer).map(Self::Manifest)
            }
            _ => refuse(format!(
                "it is not (only) an {what}: an index has `manifests`, a manifest has `config` and `layers`"
            )),
        }
    }
}

impl Manifest {
    fn checked(self, pointer: &Descriptor) -> Result<Self, ManifestError> {
        let refuse = |problem: String| Err(refused(&pointer.digest, problem));
        if self.config.kind() != MediaKind::Config {
            let media_type = printable(&self.config.media_type);
            return refuse(format!("it is not a container image: its configuration is {media_type:?}"));
        }
        if self.layers.len() > MAX_LAYERS {
            return refuse(format!(
                "it has {} layers, at most {MAX_LAYERS} are supported",
                self.layers.len()
            ));
        }
        let bytes = self.layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
        if bytes.is_none_or(|bytes| bytes > MAX_IMAGE_BYTES) {
            return refuse(format!("its layers have more than {MAX_IMAGE_BYTES} bytes together"));
        }
        Ok(self)
    }
}

impl From<WireEntry> for IndexEntry {
    fn from(wire: WireEntry) -> Self {
        let platform = wire.platform.map(|platform| Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
        });
        Self {
            descriptor: Descriptor { media_type: wire.media_type, digest: wire.digest, size: wire.size },
            platform,
            annotations: wire.annotations.unwrap_or_default(),
        }
    }
}
