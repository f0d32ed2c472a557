//! From a descriptor to the image for one platform: index, manifest, configuration, layers.
//!
//! Documents are read strictly, because two readers that disagree about one document can be told two stories
//! (CVE-2021-41190): the media type of whoever points must agree with the content, and a document is an index or a
//! manifest, never both.

use crate::store::StoreError;
use crate::{Compression, ContentStore, Descriptor, Digest, ImageConfig, MediaKind, Platform};

mod document;

pub(crate) use document::{Document, IndexEntry, Manifest};

/// The largest index, manifest or configuration that is read: what registries accept as a manifest.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Docker's limit on layers of an image; overlayfs itself takes 500.
pub const MAX_LAYERS: usize = 127;
/// All layers of an image, compressed: several times the largest images in use.
pub const MAX_IMAGE_BYTES: u64 = 128 << 30;
/// An index may point to indexes; more steps than this serve no purpose.
const MAX_INDEX_DEPTH: usize = 3;

/// One image for one platform, everything it consists of being known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// The indexes that led to the manifest, outermost first; usually none or one.
    pub indexes: Vec<Descriptor>,
    /// The manifest itself.
    pub manifest: Descriptor,
    /// The configuration's blob.
    pub config_blob: Descriptor,
    /// The configuration.
    pub config: ImageConfig,
    /// The layers, bottom first.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The blob.
    pub blob: Descriptor,
    /// How the blob is compressed.
    pub compression: Compression,
    /// The digest of the uncompressed tar stream.
    pub diff_id: Digest,
}

/// What a store holds of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// All of it.
    Complete(Box<ImageManifest>),
    /// These blobs are missing; when they are there, look again, for they may name more.
    Missing(Vec<Descriptor>),
}

/// Why a descriptor does not lead to an image.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store failed.
    #[error("cannot read {digest}")]
    Store {
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A blob of the image is missing.
    #[error("blob {digest} of the image is missing")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// A document is larger than any document may be.
    #[error(
        "{digest} has {size} bytes, an index, manifest or configuration has at most {MAX_DOCUMENT_BYTES}"
    )]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// A document is not the JSON it should be.
    #[error("{what} {digest} is malformed")]
    Malformed {
        /// "index", "manifest" or "configuration".
        what: &'static str,
        /// The document.
        digest: Digest,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A document contradicts itself or whoever points to it.
    #[error("{digest} is refused: {problem}")]
    Refused {
        /// The document.
        digest: Digest,
        /// The contradiction.
        problem: String,
    },
    /// The image is not built for this platform.
    #[error("image {digest} is not built for {wanted}, but for {}", list(.offered))]
    NoPlatform {
        /// The index or manifest.
        digest: Digest,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: Vec<Platform>,
    },
}

fn list(platforms: &[Platform]) -> String {
    match platforms {
        [] => "no platform that it names".into(),
        some => some.iter().map(Platform::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Where documents are looked up: a store, or what an archive holds before it is committed.
pub(crate) trait Documents {
    fn has(&self, blob: &Descriptor) -> bool;
    /// `None` when it is not there. The caller has checked the size against [`MAX_DOCUMENT_BYTES`].
    fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, ManifestError>;
}

impl Documents for ContentStore {
    fn has(&self, blob: &Descriptor) -> bool {
        self.contains(&blob.digest)
    }

    fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, ManifestError> {
        match ContentStore::read(self, blob, MAX_DOCUMENT_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(ManifestError::Store { digest: blob.digest, source }),
        }
    }
}

impl ImageManifest {
    /// The image for `platform` that `target`, an index or a manifest, leads to. All its blobs must be in the store.
    pub fn load(
        store: &ContentStore,
        target: &Descriptor,
        platform: &Platform,
    ) -> Result<Self, ManifestError> {
        match Self::look_up(store, target, platform)? {
            Lookup::Complete(image) => Ok(*image),
            Lookup::Missing(blobs) => Err(ManifestError::Missing {
                digest: blobs.first().map_or(target.digest, |blob| blob.digest),
            }),
        }
    }

    /// What the store holds of the image for `platform`, and which blobs must be fetched next.
    pub fn look_up(
        store: &ContentStore,
        target: &Descriptor,
        platform: &Platform,
    ) -> Result<Lookup, ManifestError> {
        look_up(store, target, platform)
    }

    /// What the image was loaded as: its outermost index, or its manifest.
    pub fn target(&self) -> &Descriptor {
        self.indexes.first().unwrap_or(&self.manifest)
    }

    /// Every blob that must stay in a store for the image to be loaded again, its target last.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.layers.iter().map(|layer| &layer.blob);
        layers.chain([&self.config_blob, &self.manifest]).chain(self.indexes.iter().rev())
    }
}

pub(crate) fn look_up(
    documents: &impl Documents,
    target: &Descriptor,
    platform: &Platform,
) -> Result<Lookup, ManifestError> {
    let mut at = target.clone();
    let mut indexes = Vec::new();
    for _ in 0..=MAX_INDEX_DEPTH {
        let Some(bytes) = read(documents, &at)? else { return Ok(Lookup::Missing(vec![at])) };
        match Document::parse(&bytes, &at)? {
            Document::Manifest(manifest) => {
                let found = complete(documents, at, manifest, platform)?;
                return Ok(match found {
                    Lookup::Complete(image) => {
                        Lookup::Complete(Box::new(ImageManifest { indexes, ..*image }))
                    }
                    missing @ Lookup::Missing(_) => missing,
                });
            }
            Document::Index(entries) => {
                let next = select(&at.digest, entries, platform)?;
                indexes.push(std::mem::replace(&mut at, next));
            }
        }
    }
    Err(refused(&target.digest, format!("it is an index of indexes, more than {MAX_INDEX_DEPTH} deep")))
}

/// Follows a manifest to its configuration and layers.
fn complete(
    documents: &impl Documents,
    at: Descriptor,
    manifest: Manifest,
    platform: &Platform,
) -> Result<Lookup, ManifestError> {
    check_document_size(&manifest.config)?;
    let blobs = manifest.layers.iter().chain([&manifest.config]);
    let mut missing: Vec<Descriptor> = blobs.filter(|blob| !documents.has(blob)).cloned().collect();
    missing.sort_by_key(|blob| blob.digest);
    missing.dedup_by_key(|blob| blob.digest);
    if !missing.is_empty() {
        return Ok(Lookup::Missing(missing));
    }
    let Some(bytes) = read(documents, &manifest.config)? else {
        return Ok(Lookup::Missing(vec![manifest.config]));
    };
    assemble(at, manifest, &bytes, platform).map(|image| Lookup::Complete(Box::new(image)))
}

/// Joins a manifest with its configuration, whose bytes are `config`.
pub(crate) fn assemble(
    at: Descriptor,
    manifest: Manifest,
    config: &[u8],
    platform: &Platform,
) -> Result<ImageManifest, ManifestError> {
    let digest = manifest.config.digest;
    let malformed = |source| ManifestError::Malformed { what: "configuration", digest, source };
    let config = ImageConfig::parse(config).map_err(malformed)?;
    if platform.preference(&config.platform).is_none() {
        let offered = vec![config.platform];
        return Err(ManifestError::NoPlatform {
            digest: at.digest,
            wanted: Box::new(platform.clone()),
            offered,
        });
    }
    let (blobs, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
    if blobs != diff_ids {
        let problem = format!("the manifest has {blobs} layers, its configuration {diff_ids}");
        return Err(refused(&at.digest, problem));
    }
    let layers = manifest.layers.into_iter().zip(&config.diff_ids);
    let layers = layers.map(|(blob, diff_id)| layer(&at.digest, blob, *diff_id)).collect::<Result<_, _>>()?;
    Ok(ImageManifest { indexes: Vec::new(), manifest: at, config_blob: manifest.config, config, layers })
}

fn layer(manifest: &Digest, blob: Descriptor, diff_id: Digest) -> Result<Layer, ManifestError> {
    match blob.kind() {
        MediaKind::Layer(compression) => Ok(Layer { blob, compression, diff_id }),
        MediaKind::Index | MediaKind::Manifest | MediaKind::Config | MediaKind::Unknown => {
            let (digest, media_type) = (blob.digest, crate::digest::printable(&blob.media_type));
            Err(refused(manifest, format!("layer {digest} has the unsupported media type {media_type:?}")))
        }
    }
}

/// The entry of an index that fits `platform` best; of equals the first.
fn select(
    digest: &Digest,
    entries: Vec<IndexEntry>,
    platform: &Platform,
) -> Result<Descriptor, ManifestError> {
    let best = entries
        .iter()
        .filter_map(|entry| Some((entry.preference(platform)?, entry)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best });
    match best {
        Some((_, entry)) => Ok(entry.descriptor.clone()),
        None => {
            let offered = offered(&entries);
            Err(ManifestError::NoPlatform { digest: *digest, wanted: Box::new(platform.clone()), offered })
        }
    }
}

/// The platforms that an index names, in its order.
pub(crate) fn offered(entries: &[IndexEntry]) -> Vec<Platform> {
    entries.iter().filter(|entry| entry.is_image()).filter_map(|entry| entry.platform.clone()).collect()
}

pub(crate) fn read(documents: &impl Documents, blob: &Descriptor) -> Result<Option<Vec<u8>>, ManifestError> {
    check_document_size(blob)?;
    documents.read(blob)
}

/// Documents are held in memory, so their size is checked before they are fetched, too.
pub(crate) fn check_document_size(blob: &Descriptor) -> Result<(), ManifestError> {
    if blob.size > MAX_DOCUMENT_BYTES {
        return Err(ManifestError::TooLarge { digest: blob.digest, size: blob.size });
    }
    Ok(())
}

pub(crate) fn refused(digest: &Digest, problem: String) -> ManifestError {
    ManifestError::Refused { digest: *digest, problem }
}

#[cfg(test)]
mod tests;
