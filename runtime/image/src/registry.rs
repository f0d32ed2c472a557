//! Pulling from registries that speak the OCI distribution protocol.
//!
//! A registry is not trusted: every body has a bound, every wait a limit, every blob is verified against the digest
//! that led to it, and credentials go to the registry's own host or to the token service that it names over TLS. Hosts
//! on the loopback interface are spoken to in plain HTTP, all others through TLS with the system's root certificates,
//! unless they are listed as insecure.
//!
//! Nothing is retried here: when and how often is the caller's decision ([`RegistryError::is_transient`]). What a
//! failed pull already brought is kept, verified, so the next attempt goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    ContentStore, Descriptor, Digest, ImageManifest, IngestError, ManifestError, Platform, Reference,
    StoreError,
};

mod auth;
mod http;
mod pull;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Domains, as in references, that are spoken to without encryption.
    pub insecure: BTreeSet<String>,
    /// Credentials by domain.
    pub credentials: BTreeMap<String, Credentials>,
    /// Limits on waiting.
    pub timeouts: Timeouts,
}

/// A user of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password or access token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Limits on waiting for a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, its TLS handshake included.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// For a body of no size; each [`Timeouts::floor_bytes_per_second`] bytes add a second.
    pub body: Duration,
    /// The slowest transfer that is waited for.
    pub floor_bytes_per_second: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            body: Duration::from_secs(60),
            floor_bytes_per_second: 16 << 10,
        }
    }
}

impl Timeouts {
    /// For a whole body.
    fn for_body(&self, size: u64) -> Duration {
        self.body + Duration::from_secs(size / self.floor_bytes_per_second.max(1))
    }
}

/// A client for all registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    options: RegistryOptions,
    http: http::Http,
    tokens: auth::Tokens,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What a name means at its registry now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The index or manifest: what to pin a service to, so that each node takes its own platform from it.
    pub target: Descriptor,
    /// The platforms that it offers. An index may leave them open, and then this is empty.
    pub platforms: Vec<Platform>,
}

impl Resolved {
    /// Whether there is an image for `platform`, as far as the registry tells.
    pub fn offers(&self, platform: &Platform) -> bool {
        self.platforms.is_empty()
            || self.platforms.iter().any(|offered| platform.preference(offered).is_some())
    }
}

/// A step of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// These blobs are missing and will be fetched; a pull has up to three such rounds.
    Fetching(Vec<Descriptor>),
    /// So much of a blob has come.
    Received {
        /// The blob.
        digest: Digest,
        /// Bytes so far.
        bytes: u64,
    },
    /// A blob is verified and on disk.
    Stored(Digest),
}

/// Why a registry did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry does not have it.
    #[error("{} does not exist in the registry {registry}: check its name and tag", reference.familiar())]
    NotFound {
        /// What was asked for.
        reference: Box<Reference>,
        /// The registry's domain.
        registry: String,
    },
    /// The registry does not give it to us. Many say so of images that do not exist.
    #[error(
        "registry {registry} does not give access to {}{}: it may not exist, or credentials are missing or wrong",
        reference.familiar(), detail(.message)
    )]
    Unauthorized {
        /// What was asked for.
        reference: Box<Reference>,
        /// The registry's domain.
        registry: String,
        /// What the registry says about it; may be empty.
        message: String,
    },
    /// No connection, or it broke.
    #[error("cannot reach the registry {registry}")]
    Unreachable {
        /// The registry's domain.
        registry: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry did not answer in time.
    #[error("the registry {registry} did not {what} within {} s", after.as_secs_f32())]
    TimedOut {
        /// The registry's domain.
        registry: String,
        /// What it should have done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The registry is there, but cannot serve now.
    #[error("the registry {registry} is unavailable: HTTP status {status}{}", detail(.message))]
    Unavailable {
        /// The registry's domain.
        registry: String,
        /// 429 or one of 500 to 599.
        status: u16,
        /// What the registry says about it; may be empty.
        message: String,
    },
    /// The registry's answer breaks the protocol.
    #[error("the registry {registry} gave a bad answer for {}: {problem}", reference.familiar())]
    BadAnswer {
        /// What was asked for.
        reference: Box<Reference>,
        /// The registry's domain.
        registry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The image is not acceptable or not built for the platform.
    #[error("image {} is not usable", reference.familiar())]
    Image {
        /// What was asked for.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A blob did not come, or is not what its digest or size says.
    #[error("cannot pull {}", reference.familiar())]
    Blob {
        /// What was asked for.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: IngestError,
    },
    /// The store failed.
    #[error("cannot store {}", reference.familiar())]
    Store {
        /// What was asked for.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: StoreError,
    },
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl RegistryError {
    /// Whether trying again later may help, nothing else being changed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Unavailable { .. } => true,
            Self::Blob { source, .. } => match source {
                IngestError::Read { .. } | IngestError::Truncated { .. } => true,
                IngestError::TooLarge { .. }
                | IngestError::TooLong { .. }
                | IngestError::WrongDigest { .. }
                | IngestError::Store { .. } => false,
            },
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::BadAnswer { .. }
            | Self::Image { .. }
            | Self::Store { .. } => false,
        }
    }
}

impl Registry {
    /// A client. The TLS side is set up when it is first needed, so a host without root certificates can still use
    /// local registries.
    pub fn new(options: RegistryOptions) -> Self {
        let http = http::Http::new(options.timeouts);
        Self { shared: Arc::new(Shared { options, http, tokens: auth::Tokens::default() }) }
    }

    /// What `reference` means now; of a pinned one, whether it exists.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        pull::resolve(&self.shared, reference).await
    }

    /// Pulls the image for `platform` into `store`: what is there already is not fetched again.
    ///
    /// `progress` is called from within; it must not block. Dropping the future stops the pull.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &ContentStore,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<ImageManifest, RegistryError> {
        pull::pull(&self.shared, reference, platform, store, &progress).await
    }

    /// [`Registry::pull`] of a `target` that was resolved before: if all is in the store, the registry is not asked.
    pub async fn pull_target(
        &self,
        reference: &Reference,
        target: &Descriptor,
        platform: &Platform,
        store: &ContentStore,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<ImageManifest, RegistryError> {
        pull::pull_target(&self.shared, reference, target, platform, store, &progress).await
    }
}
