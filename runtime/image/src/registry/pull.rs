//! From a reference to verified blobs in a store.

use std::io;

use futures_util::{StreamExt, TryStreamExt};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio_util::io::StreamReader;

use super::auth::{self, AuthError};
use super::http::{self, HttpError};
use super::{Progress, RegistryError, Resolved, Shared};
use crate::digest::printable;
use crate::manifest::{self, Document, Lookup, MAX_DOCUMENT_BYTES};
use crate::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::{
    ContentStore, Descriptor, Digest, ImageConfig, ImageManifest, IngestError, ManifestError, MediaKind,
    Platform, Reference,
};

/// Docker's number: more connections only take bandwidth from one another.
const MAX_PARALLEL: usize = 3;
/// Index of an index of an index, manifest, then configuration and layers: more rounds than that lead nowhere.
const MAX_ROUNDS: usize = 8;
/// What is read of an error's body.
const MAX_ERROR_BYTES: u64 = 8 << 10;

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_REGISTRY: &str = "registry-1.docker.io";

/// One image at its registry.
struct Source<'a> {
    shared: &'a Shared,
    reference: &'a Reference,
}

pub(super) async fn resolve(shared: &Shared, reference: &Reference) -> Result<Resolved, RegistryError> {
    let source = Source { shared, reference };
    let (target, bytes) = source.target().await?;
    let platforms = match source.image(Document::parse(&bytes, &target))? {
        Document::Index(entries) => manifest::offered(&entries),
        Document::Manifest(manifest) => vec![source.config_platform(&manifest.config).await?],
    };
    Ok(Resolved { target, platforms })
}

pub(super) async fn pull(
    shared: &Shared,
    reference: &Reference,
    platform: &Platform,
    store: &ContentStore,
    progress: &(impl Fn(Progress) + Send + Sync),
) -> Result<ImageManifest, RegistryError> {
    let source = Source { shared, reference };
    let (target, bytes) = source.target().await?;
    source.image(Document::parse(&bytes, &target))?;
    store
        .write_bytes(&target.media_type, &bytes)
        .map_err(|source| RegistryError::Store { reference: Box::new(reference.clone()), source })?;
    pull_target(shared, reference, &target, platform, store, progress).await
}

pub(super) async fn pull_target(
    shared: &Shared,
    reference: &Reference,
    target: &Descriptor,
    platform: &Platform,
    store: &ContentStore,
    progress: &(impl Fn(Progress) + Send + Sync),
) -> Result<ImageManifest, RegistryError> {
    let source = Source { shared, reference };
    for _ in 0..MAX_ROUNDS {
        match source.image(ImageManifest::look_up(store, target, platform))? {
            Lookup::Complete(image) => return Ok(*image),
            Lookup::Missing(blobs) => {
                progress(Progress::Fetching(blobs.clone()));
                futures_util::stream::iter(blobs)
                    .map(|blob| source.fetch(blob, store, progress))
                    .buffer_unordered(MAX_PARALLEL)
                    .try_collect::<()>()
                    .await?;
            }
        }
    }
    Err(source.bad_answer("its documents lead to no image".into()))
}

impl Source<'_> {
    /// The document that the reference names, verified as far as it can be: against the reference's digest if it has
    /// one, else against the one that the registry states.
    async fn target(&self) -> Result<(Descriptor, Vec<u8>), RegistryError> {
        let digest = self.reference.digest().map(Digest::to_string);
        let name = digest.as_deref().or(self.reference.tag()).unwrap_or("latest");
        let accept = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let response = self.get(&format!("manifests/{name}"), &accept).await?;
        let content_type = http::header(response.headers(), "content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let stated = http::header(response.headers(), "docker-content-digest").map(str::to_owned);
        let body = http::body(response, MAX_DOCUMENT_BYTES, self.shared.http.timeouts()).await;
        let bytes = body.map_err(|error| self.http(error))?;

        let digest = Digest::of(&bytes);
        if let Some(pinned) = self.reference.digest().filter(|pinned| **pinned != digest) {
            return Err(self.bad_answer(format!("asked for {pinned}, it gives {digest}")));
        }
        // A digest of another algorithm is not ours to judge.
        let stated = stated.and_then(|stated| stated.parse::<Digest>().ok());
        if let Some(stated) = stated.filter(|stated| *stated != digest) {
            return Err(self.bad_answer(format!("it states the digest {stated}, but gives {digest}")));
        }
        if !matches!(MediaKind::of(&media_type), MediaKind::Index | MediaKind::Manifest) {
            let media_type = printable(&media_type);
            return Err(
                self.bad_answer(format!("{media_type:?} is not the media type of an image or an index"))
            );
        }
        Ok((Descriptor { media_type, digest, size: bytes.len() as u64 }, bytes))
    }

    async fn config_platform(&self, config: &Descriptor) -> Result<Platform, RegistryError> {
        self.image(manifest::check_document_size(config))?;
        let response = self.get(&format!("blobs/{}", config.digest), "*/*").await?;
        let body = http::body(response, config.size, self.shared.http.timeouts()).await;
        let bytes = body.map_err(|error| self.http(error))?;
        let (expected, actual) = (config.digest, Digest::of(&bytes));
        if expected != actual {
            return Err(self.blob(IngestError::WrongDigest { expected, actual }));
        }
        let malformed =
            |source| ManifestError::Malformed { what: "configuration", digest: config.digest, source };
        self.image(ImageConfig::parse(&bytes).map(|config| config.platform).map_err(malformed))
    }

    async fn fetch(
        &self,
        blob: Descriptor,
        store: &ContentStore,
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let digest = blob.digest;
        let response = match blob.kind() {
            MediaKind::Index | MediaKind::Manifest => {
                self.get(&format!("manifests/{digest}"), &blob.media_type).await?
            }
            MediaKind::Config | MediaKind::Layer(_) | MediaKind::Unknown => {
                self.get(&format!("blobs/{digest}"), "*/*").await?
            }
        };
        let chunks = response.bytes_stream().map_err(|error| io::Error::other(error.without_url()));
        let received = |bytes| progress(Progress::Received { digest, bytes });
        let after = self.shared.http.timeouts().for_body(blob.size);
        let ingest = store.ingest_async(&blob, StreamReader::new(chunks), received);
        match tokio::time::timeout(after, ingest).await {
            Ok(Ok(_)) => {
                progress(Progress::Stored(digest));
                Ok(())
            }
            Ok(Err(source)) => Err(self.blob(source)),
            Err(_) => Err(self.http(HttpError::TimedOut("send a blob", after))),
        }
    }

    /// The answer to a GET below the repository, authorised if the registry asks for it.
    async fn get(&self, path: &str, accept: &str) -> Result<Response, RegistryError> {
        let Shared { http, tokens, .. } = self.shared;
        let url = self.url(path)?;
        let known = tokens.get(self.reference);
        let response =
            http.get(url.clone(), accept, known.as_ref()).await.map_err(|error| self.http(error))?;
        // A host that the registry redirects to has no say in where credentials go.
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != url.origin() {
            return self.successful(response).await;
        }
        let credentials = self.shared.options.credentials.get(self.reference.domain());
        let authorized = auth::authorize(http, &url, response.headers(), self.reference, credentials).await;
        let authorization = authorized.map_err(|error| match error {
            AuthError::Denied(message) => self.unauthorized(message),
            AuthError::Http(error) => self.http(error),
        })?;
        let response = http.get(url, accept, Some(&authorization)).await.map_err(|error| self.http(error))?;
        let response = self.successful(response).await?;
        tokens.set(self.reference, authorization);
        Ok(response)
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let domain = self.reference.domain();
        let insecure = self.shared.options.insecure.contains(domain);
        let scheme = if insecure || is_loopback(domain) { "http" } else { "https" };
        let host = if domain == DOCKER_HUB { DOCKER_HUB_REGISTRY } else { domain };
        let url = format!("{scheme}://{host}/v2/{}/{path}", self.reference.repository());
        Url::parse(&url).map_err(|error| self.bad_answer(format!("{url} is no URL: {error}")))
    }

    async fn successful(&self, response: Response) -> Result<Response, RegistryError> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let (reference, registry) = (self.boxed(), self.reference.domain().to_owned());
        if status == StatusCode::NOT_FOUND {
            return Err(RegistryError::NotFound { reference, registry });
        }
        let message = self.message(response).await;
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(message),
            StatusCode::TOO_MANY_REQUESTS => {
                RegistryError::Unavailable { registry, status: status.as_u16(), message }
            }
            _ if status.is_server_error() => {
                RegistryError::Unavailable { registry, status: status.as_u16(), message }
            }
            _ => self.bad_answer(format!("HTTP status {} {message}", status.as_u16())),
        })
    }

    /// What the registry says about an error; nothing, if it does not say it properly.
    async fn message(&self, response: Response) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Said>,
        }
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            message: String,
        }
        let body = http::body(response, MAX_ERROR_BYTES, self.shared.http.timeouts()).await;
        let said = body.ok().and_then(|body| serde_json::from_slice::<Errors>(&body).ok());
        said.and_then(|said| said.errors.into_iter().next())
            .map(|said| printable(&said.message))
            .unwrap_or_default()
    }

    fn boxed(&self) -> Box<Reference> {
        Box::new(self.reference.clone())
    }

    fn image<T>(&self, result: Result<T, ManifestError>) -> Result<T, RegistryError> {
        result.map_err(|source| RegistryError::Image { reference: self.boxed(), source })
    }

    fn blob(&self, source: IngestError) -> RegistryError {
        RegistryError::Blob { reference: self.boxed(), source }
    }

    fn unauthorized(&self, message: String) -> RegistryError {
        let (reference, registry) = (self.boxed(), self.reference.domain().to_owned());
        RegistryError::Unauthorized { reference, registry, message }
    }

    fn bad_answer(&self, problem: String) -> RegistryError {
        let (reference, registry) = (self.boxed(), self.reference.domain().to_owned());
        RegistryError::BadAnswer { reference, registry, problem }
    }

    fn http(&self, error: HttpError) -> RegistryError {
        let registry = self.reference.domain().to_owned();
        match error {
            HttpError::Unreachable(source) => RegistryError::Unreachable { registry, source },
            HttpError::TimedOut(what, after) => RegistryError::TimedOut { registry, what, after },
            HttpError::Bad(problem) => self.bad_answer(problem),
        }
    }
}

/// Whether a domain, with or without a port, is this machine: nobody is between us and it.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_in_the_clear() {
        for here in ["localhost", "localhost:5000", "127.0.0.1", "127.8.8.8:5000", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(here), "{here}");
        }
        for there in ["ghcr.io", "127.0.0.1.nip.io", "10.0.0.1:5000", "[::2]:5000", "localhost.example.com"] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
