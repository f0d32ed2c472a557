//! Importing images from archives: what `docker save`, `podman save`, `skopeo`, `buildctl` and `ctr` write.
//!
//! Docker archives (`manifest.json` with layer files) and OCI layouts (`index.json` with blobs) are accepted, as a tar
//! stream that may be compressed with gzip or zstd, or, for OCI layouts, as a directory. A stream is read once, so it
//! may come from a socket.
//!
//! Nothing enters the store before everything was verified: digests, sizes, media types, and each layer against the
//! `diff_id` that its configuration states. Until then contents are unnamed files, which vanish by themselves.
//!
//! It does not export and does not remember names: the caller keeps what [`ImportedImage`] tells.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{
    ContentStore, Descriptor, Digest, ImageManifest, ManifestError, Platform, Reference, ReferenceError,
    StoreError, TarError,
};

mod docker;
mod files;
mod oci;
mod verify;

use files::Files;

/// The largest archive that is read, decompressed: several of the largest images in use.
pub const MAX_ARCHIVE_BYTES: u64 = 64 << 30;
/// Members of one archive: a hundred images of a hundred layers, each with three files in Docker's old format.
const MAX_MEMBERS: usize = 30_000;
/// Each staged content is an open file; the usual soft limit of a process is 1,024.
const MAX_STAGED_FILES: usize = 512;

/// What an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The images, in the archive's order.
    pub images: Vec<ImportedImage>,
    /// The blobs that were not in the store before.
    pub written: Vec<Digest>,
}

/// One image of an archive, complete in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedImage {
    /// Its names; an archive may hold an image without any.
    pub names: Vec<Reference>,
    /// The manifest, or an index over several platforms.
    pub target: Descriptor,
    /// The platforms that it is complete for.
    pub platforms: Vec<Platform>,
    /// Every blob that it consists of, `target` last.
    pub blobs: Vec<Descriptor>,
}

/// Why an archive was not imported. Nothing of it is in the store, save where the store itself failed at the end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stream is not a tar archive, is damaged, or ends early.
    #[error("cannot read the archive")]
    Tar {
        /// Where and why.
        #[source]
        source: TarError,
    },
    /// It is a tar archive of something else.
    #[error(
        "the archive holds no image: there is neither `index.json` nor `manifest.json` in it; make one with \
         `docker save`"
    )]
    NoImage,
    /// It has more members or larger documents than any archive needs.
    #[error("the archive is beyond a limit: {what}")]
    Limit {
        /// Which limit.
        what: String,
    },
    /// A member is not what it should be.
    #[error("`{file}` in the archive {problem}")]
    Member {
        /// The name of the member.
        file: String,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },
    /// A member is not the JSON it should be.
    #[error("`{file}` in the archive is malformed")]
    Json {
        /// The name of the member.
        file: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A layer is not the one that the configuration states.
    #[error("layer {layer} in the archive does not match its configuration, which states {diff_id}")]
    WrongLayer {
        /// The digest of the layer as it is.
        layer: Digest,
        /// The digest that the decompressed layer should have.
        diff_id: Digest,
    },
    /// A layer cannot be decompressed.
    #[error("layer {layer} in the archive cannot be decompressed")]
    Layer {
        /// The digest of the layer as it is.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name in the archive is not an image reference.
    #[error("an image in the archive has an invalid name")]
    Name {
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A manifest, index or configuration is not acceptable, or a blob is missing.
    #[error("an image in the archive is not usable")]
    Image {
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The store failed.
    #[error("cannot store the archive's content")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
}

impl ImportError {
    fn member(file: &str, problem: impl Into<String>) -> Self {
        Self::Member { file: crate::digest::printable(file), problem: problem.into() }
    }
}

impl From<ManifestError> for ImportError {
    fn from(source: ManifestError) -> Self {
        Self::Image { source }
    }
}

impl From<StoreError> for ImportError {
    fn from(source: StoreError) -> Self {
        Self::Store { source }
    }
}

impl From<TarError> for ImportError {
    fn from(source: TarError) -> Self {
        Self::Tar { source }
    }
}

/// Imports an archive from a stream. Blocks.
pub fn import(source: impl Read, store: &ContentStore) -> Result<Import, ImportError> {
    commit(Files::from_tar(source, store)?)
}

/// Imports an archive file, or a directory that is an OCI layout. Blocks.
pub fn import_path(path: &Path, store: &ContentStore) -> Result<Import, ImportError> {
    let open = |source| ImportError::Open { path: path.to_owned(), source };
    let file = File::open(path).map_err(open)?;
    if file.metadata().map_err(open)?.is_dir() {
        commit(Files::from_directory(path, &file, store)?)
    } else {
        import(file, store)
    }
}

/// An image whose parts are known and present, but not yet verified in depth.
struct Candidate {
    names: Vec<Reference>,
    target: Descriptor,
    /// One per platform.
    manifests: Vec<ImageManifest>,
    /// Indexes on the way from `target` to the manifests, outermost first.
    indexes: Vec<Descriptor>,
}

fn commit(mut files: Files) -> Result<Import, ImportError> {
    let candidates = if files.contains("index.json") {
        oci::candidates(&files)?
    } else if files.contains("manifest.json") {
        docker::candidates(&mut files)?
    } else {
        return Err(ImportError::NoImage);
    };
    verify::layers(&files, &candidates)?;
    let images: Vec<_> = candidates.into_iter().map(ImportedImage::from).collect();
    let mut written = Vec::new();
    for blob in images.iter().flat_map(|image| &image.blobs) {
        if files.commit(&blob.digest)? {
            written.push(blob.digest);
        }
    }
    Ok(Import { images, written })
}

impl From<Candidate> for ImportedImage {
    fn from(candidate: Candidate) -> Self {
        let platforms = candidate.manifests.iter().map(|image| image.config.platform.clone()).collect();
        let mut blobs: Vec<Descriptor> = Vec::new();
        let all = candidate.manifests.iter().flat_map(ImageManifest::blobs);
        for blob in all.chain(candidate.indexes.iter().rev()) {
            if blobs.iter().all(|known| known.digest != blob.digest) {
                blobs.push(blob.clone());
            }
        }
        Self { names: candidate.names, target: candidate.target, platforms, blobs }
    }
}
