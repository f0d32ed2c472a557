//! Docker archives: `manifest.json` lists images as a configuration file, layer files and tags.
//!
//! Docker's archive has no manifests, so an OCI manifest is written for each image: the same archive always yields the
//! same bytes. Layers stay as they are.

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::{Candidate, ImportError};
use crate::compression::sniff;
use crate::manifest::Document;
use crate::media_type::{OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST};
use crate::{Compression, Descriptor, Digest, ManifestError, Reference};

const LIST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Field order is byte order: changing it changes the digests of all images loaded from Docker archives.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// The names of one image of the list.
pub(super) struct RepoTags {
    pub(super) config: Digest,
    pub(super) names: Vec<Reference>,
}

fn list(files: &Files) -> Result<Vec<ListedImage>, ImportError> {
    serde_json::from_slice(&files.document(LIST)?)
        .map_err(|source| ImportError::Json { file: LIST.into(), source })
}

fn names(image: &ListedImage) -> Result<Vec<Reference>, ImportError> {
    let tags = image.repo_tags.iter().flatten();
    tags.map(|tag| tag.parse().map_err(|source| ImportError::Name { source })).collect()
}

/// The names in an archive that is an OCI layout as well.
pub(super) fn repo_tags(files: &Files) -> Result<Vec<RepoTags>, ImportError> {
    let listed = list(files)?;
    listed
        .iter()
        .map(|image| Ok(RepoTags { config: files.find(&image.config)?.0, names: names(image)? }))
        .collect()
}

pub(super) fn candidates(files: &mut Files) -> Result<Vec<Candidate>, ImportError> {
    let listed = list(files)?;
    if listed.is_empty() {
        return Err(ImportError::member(LIST, "lists no image"));
    }
    listed.iter().map(|image| candidate(files, image)).collect()
}

fn candidate(files: &mut Files, image: &ListedImage) -> Result<Candidate, ImportError> {
    let names = names(image)?;
    let config = describe(files, &image.config, OCI_CONFIG)?;
    let paths = image.layers.iter().flatten();
    let layers = paths.map(|path| layer(files, path)).collect::<Result<Vec<_>, _>>()?;
    let written =
        WrittenManifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
    let bytes =
        serde_json::to_vec(&written).map_err(|source| ImportError::Json { file: LIST.into(), source })?;
    let size = bytes.len() as u64;
    let digest = files.add_document(bytes.clone());
    let target = Descriptor { media_type: OCI_MANIFEST.into(), digest, size };
    let Document::Manifest(manifest) = Document::parse(&bytes, &target)? else {
        return Err(ImportError::member(LIST, "does not describe an image"));
    };
    match super::oci::complete(files, &target, manifest)? {
        Ok(image) => Ok(Candidate { names, target, manifests: vec![image], indexes: Vec::new() }),
        Err(digest) => Err(ManifestError::Missing { digest }.into()),
    }
}

fn describe(files: &Files, name: &str, media_type: &str) -> Result<Descriptor, ImportError> {
    let (digest, size) = files.find(name)?;
    Ok(Descriptor { media_type: media_type.into(), digest, size })
}

fn layer(files: &Files, name: &str) -> Result<Descriptor, ImportError> {
    let described = describe(files, name, OCI_LAYER)?;
    let mut start = [0; 4];
    let mut filled = 0;
    if let Some(mut content) = files.reader(&described.digest) {
        while let Ok(read @ 1..) = content.read(&mut start[filled..]) {
            filled += read;
        }
    }
    let media_type = match sniff(&start[..filled]) {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    };
    Ok(Descriptor { media_type: media_type.into(), ..described })
}
