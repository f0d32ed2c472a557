//! OCI layouts: `index.json` leads to manifests, which are blobs like everything else.

use serde::Deserialize;

use super::docker::{RepoTags, repo_tags};
use super::files::Files;
use super::{Candidate, ImportError};
use crate::manifest::{self, Document, Documents, IndexEntry, Manifest};
use crate::media_type::OCI_INDEX;
use crate::{Descriptor, Digest, ImageManifest, ManifestError, Platform, Reference};

/// The full name, as containerd and BuildKit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// A tag or a full name, as Podman and Skopeo write it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// As deep as [`crate::ImageManifest::load`] follows indexes.
const MAX_INDEX_DEPTH: usize = 3;

#[derive(Deserialize)]
struct LayoutMarker {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

pub(super) fn candidates(files: &Files) -> Result<Vec<Candidate>, ImportError> {
    check_marker(files)?;
    let bytes = files.document("index.json")?;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let pointer = Descriptor { media_type: OCI_INDEX.into(), digest, size };
    let Document::Index(entries) = Document::parse(&bytes, &pointer)? else {
        return Err(ImportError::member("index.json", "is not an index"));
    };
    // `docker save` writes its own list beside; it may know names that the index lacks.
    let tags = if files.contains("manifest.json") { repo_tags(files)? } else { Vec::new() };
    let mut found: Vec<Candidate> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_image()) {
        let names = names(entry)?;
        match found.iter_mut().find(|candidate| candidate.target.digest == entry.descriptor.digest) {
            Some(known) => add_names(known, names),
            None => found.push(candidate(files, entry, names, &tags)?),
        }
    }
    if found.is_empty() { Err(ImportError::member("index.json", "names no image")) } else { Ok(found) }
}

fn check_marker(files: &Files) -> Result<(), ImportError> {
    let file = "oci-layout";
    let marker: LayoutMarker = serde_json::from_slice(&files.document(file)?)
        .map_err(|source| ImportError::Json { file: file.into(), source })?;
    if marker.version.starts_with("1.") {
        return Ok(());
    }
    let version = crate::digest::printable(&marker.version);
    Err(ImportError::member(file, format!("has the version {version:?}, only 1 is supported")))
}

fn names(entry: &IndexEntry) -> Result<Vec<Reference>, ImportError> {
    if let Some(name) = entry.annotations.get(CONTAINERD_NAME) {
        return name.parse().map(|name| vec![name]).map_err(|source| ImportError::Name { source });
    }
    // A tag alone names nothing, and the specification allows texts here that are no references.
    let name = entry.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':']));
    Ok(name.and_then(|name| name.parse().ok()).into_iter().collect())
}

fn candidate(
    files: &Files,
    entry: &IndexEntry,
    names: Vec<Reference>,
    tags: &[RepoTags],
) -> Result<Candidate, ImportError> {
    let target = entry.descriptor.clone();
    let mut found = Candidate { names, target: target.clone(), manifests: Vec::new(), indexes: Vec::new() };
    if let Some(missing) = follow(files, &target, MAX_INDEX_DEPTH, &mut found)?
        && found.manifests.is_empty()
    {
        return Err(ManifestError::Missing { digest: missing }.into());
    }
    if found.manifests.is_empty() {
        return Err(manifest::refused(&target.digest, "it names no image".into()).into());
    }
    for listed in tags {
        if found.manifests.iter().any(|image| image.config_blob.digest == listed.config) {
            add_names(&mut found, listed.names.clone());
        }
    }
    Ok(found)
}

fn add_names(candidate: &mut Candidate, names: Vec<Reference>) {
    for name in names {
        if !candidate.names.contains(&name) {
            candidate.names.push(name);
        }
    }
}

/// Collects what a descriptor leads to. An index may name platforms that the archive does not hold, so what is
/// missing is returned, one example of it, instead of being an error.
fn follow(
    files: &Files,
    at: &Descriptor,
    depth: usize,
    found: &mut Candidate,
) -> Result<Option<Digest>, ImportError> {
    let Some(bytes) = manifest::read(files, at)? else { return Ok(Some(at.digest)) };
    match Document::parse(&bytes, at)? {
        Document::Manifest(manifest) => match complete(files, at, manifest)? {
            Ok(image) => found.manifests.push(image),
            Err(missing) => return Ok(Some(missing)),
        },
        Document::Index(_) if depth == 0 => {
            return Err(manifest::refused(&at.digest, "it is an index of indexes, too deep".into()).into());
        }
        Document::Index(entries) => {
            found.indexes.push(at.clone());
            let mut missing = None;
            for entry in entries.iter().filter(|entry| entry.is_image()) {
                missing = follow(files, &entry.descriptor, depth - 1, found)?.or(missing);
            }
            return Ok(missing);
        }
    }
    Ok(None)
}

/// The image of a manifest, or a blob of it that is not in the archive.
pub(super) fn complete(
    files: &Files,
    at: &Descriptor,
    manifest: Manifest,
) -> Result<Result<ImageManifest, Digest>, ImportError> {
    if let Some(missing) = manifest.layers.iter().chain([&manifest.config]).find(|blob| !files.has(blob)) {
        return Ok(Err(missing.digest));
    }
    let Some(config) = manifest::read(files, &manifest.config)? else {
        return Ok(Err(manifest.config.digest));
    };
    let platform = own_platform(&manifest.config.digest, &config)?;
    Ok(Ok(manifest::assemble(at.clone(), manifest, &config, &platform)?))
}

fn own_platform(digest: &Digest, config: &[u8]) -> Result<Platform, ManifestError> {
    let malformed = |source| ManifestError::Malformed { what: "configuration", digest: *digest, source };
    crate::ImageConfig::parse(config).map(|config| config.platform).map_err(malformed)
}
