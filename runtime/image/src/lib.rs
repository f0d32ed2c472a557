//! Container images: names, a content-addressed blob store, archives, registries, and layers unpacked for overlayfs.
//!
//! Everything that enters here is untrusted: archives come from operators' disks, blobs from registries. Nothing is
//! kept that was not verified against its digest, nothing is read without a bound, and nothing that a layer holds
//! can touch a file outside the layer's own directory.
//!
//! It knows nothing of clusters, containers or mounts: it ends with a list of directories that can be overlaid.

#![forbid(unsafe_code)]

mod reference;
pub use reference::{Reference, ReferenceError};

mod digest;
pub use digest::{Digest, DigestError};

mod descriptor;
pub use descriptor::{Compression, Descriptor, MediaKind, Platform, PlatformError, media_type};

mod store;
pub use store::{BlobWriter, ContentStore, IngestError, Ingested, MAX_BLOB_BYTES, Staged, StoreError};

mod compression;
mod tarball;
pub use tarball::TarError;

mod config;
pub use config::{Healthcheck, ImageConfig};

mod manifest;
pub use manifest::{
    ImageManifest, Layer, Lookup, MAX_DOCUMENT_BYTES, MAX_IMAGE_BYTES, MAX_LAYERS, ManifestError,
};

pub mod archive;

mod layer;
pub use layer::{LayerError, LayerStore, MAX_ENTRIES, MAX_LAYER_BYTES};

mod registry;
pub use registry::{Credentials, Progress, Registry, RegistryError, RegistryOptions, Resolved, Timeouts};
