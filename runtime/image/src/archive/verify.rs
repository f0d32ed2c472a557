//! The last check before anything enters the store: each layer, decompressed, is what the configuration states.

use std::collections::BTreeSet;
use std::io::{self, Read};

use super::files::Files;
use super::{Candidate, ImportError};
use crate::compression::{Inflate, InflateLimits};
use crate::digest::Hasher;
use crate::layer::MAX_LAYER_BYTES;
use crate::{Compression, Digest, Layer, ManifestError};

pub(super) fn layers(files: &Files, candidates: &[Candidate]) -> Result<(), ImportError> {
    let mut verified = BTreeSet::new();
    for layer in candidates.iter().flat_map(|candidate| &candidate.manifests).flat_map(|image| &image.layers)
    {
        if verified.insert((layer.blob.digest, layer.diff_id)) {
            verify(files, layer)?;
        }
    }
    Ok(())
}

fn verify(files: &Files, layer: &Layer) -> Result<(), ImportError> {
    let blob = layer.blob.digest;
    let actual = match layer.compression {
        Compression::None => blob,
        Compression::Gzip | Compression::Zstd => {
            let content = files.reader(&blob).ok_or(ManifestError::Missing { digest: blob })?;
            decompressed(content, layer.compression)
                .map_err(|source| ImportError::Layer { layer: blob, source })?
        }
    };
    if actual != layer.diff_id {
        return Err(ImportError::WrongLayer { layer: blob, diff_id: layer.diff_id });
    }
    Ok(())
}

fn decompressed(content: impl Read, compression: Compression) -> io::Result<Digest> {
    let mut inflated = Inflate::new(content, compression, InflateLimits::up_to(MAX_LAYER_BYTES))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match inflated.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
