//! Image references in Docker's grammar: `nginx`, `shop/web:1.4`, `localhost:5000/a/b@sha256:…`.
//!
//! A parsed reference is normalised: it always has a domain and a repository, and a tag unless it has a digest. The
//! grammar is that of github.com/distribution/reference; what Docker guesses (the domain `docker.io`, the prefix
//! `library/`, the tag `latest`) is guessed here in the same way and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::printable;
use crate::{Digest, DigestError};

/// Domain and repository together, as in distribution/reference.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;
/// A name, a tag, a digest and their separators; anything longer is refused before it is looked at.
const MAX_REFERENCE_BYTES: usize = MAX_NAME_BYTES + 1 + MAX_TAG_BYTES + 1 + "sha256:".len() + 64;

const DOCKER_HUB: &str = "docker.io";
/// What old Docker versions wrote for [`DOCKER_HUB`].
const DOCKER_HUB_LEGACY: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// The normalised name of an image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference. Every variant names the offending part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("an image reference cannot be empty")]
    Empty,
    /// The whole is longer than any reference can be.
    #[error("an image reference has at most {MAX_REFERENCE_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The registry's host and port are malformed.
    #[error(
        "image reference {reference:?}: {domain:?} is not a registry host (letters, digits, `-` and `.`, or an IPv6 \
         address in brackets, with an optional `:PORT`)"
    )]
    Domain {
        /// The whole.
        reference: String,
        /// The part before the first slash.
        domain: String,
    },
    /// A component of the repository is malformed.
    #[error(
        "image reference {reference:?}: repository component {component:?} is not lowercase letters and digits, \
         separated by one `.`, one or two `_`, or any number of `-`"
    )]
    Repository {
        /// The whole.
        reference: String,
        /// The component between two slashes.
        component: String,
    },
    /// Domain and repository are too long together.
    #[error(
        "image reference {reference:?}: the name has {bytes} bytes, at most {MAX_NAME_BYTES} are allowed"
    )]
    NameTooLong {
        /// The whole, cut.
        reference: String,
        /// The length of domain and repository.
        bytes: usize,
    },
    /// 64 hex digits could be an image id as well as a name.
    #[error("image reference {reference:?} is 64 hexadecimal digits: write `NAME@sha256:…` to name a digest")]
    BareDigest {
        /// The whole.
        reference: String,
    },
    /// The tag is malformed.
    #[error(
        "image reference {reference:?}: tag {tag:?} is not 1 to {MAX_TAG_BYTES} letters, digits, `_`, `.` or `-`, \
         starting with neither `.` nor `-`"
    )]
    Tag {
        /// The whole.
        reference: String,
        /// The part after the last colon.
        tag: String,
    },
    /// The digest is malformed.
    #[error("image reference {reference:?}: the part after `@` is not a digest")]
    Digest {
        /// The whole.
        reference: String,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
}

impl Reference {
    /// The registry's host and optional port; `docker.io` when none was given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path within the registry, such as `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and repository, such as `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The same image pinned to `digest`; the tag is kept for people to read.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same image by tag alone; `None` when it has none.
    pub fn without_digest(&self) -> Option<Self> {
        self.tag.is_some().then(|| Self { digest: None, ..self.clone() })
    }

    /// The short form that people write: without `docker.io`, `library/`; the tag stays.
    pub fn familiar(&self) -> String {
        let name = if self.domain == DOCKER_HUB {
            self.repository.strip_prefix(OFFICIAL_PREFIX).unwrap_or(&self.repository).to_owned()
        } else {
            self.name()
        };
        format!("{name}{}", self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}"));
        format!("{}{}", tag.unwrap_or_default(), digest.unwrap_or_default())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::TooLong { bytes: text.len() });
        }
        if is_image_id(text) {
            return Err(ReferenceError::BareDigest { reference: text.into() });
        }
        let (rest, digest) = split_digest(text)?;
        let (name, tag) = split_tag(rest);
        let (domain, repository) = split_domain(name);
        check_domain(text, &domain)?;
        check_repository(text, &repository)?;
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { reference: printable(text), tag: printable(tag) });
        }
        let bytes = domain.len() + 1 + repository.len();
        if bytes > MAX_NAME_BYTES {
            return Err(ReferenceError::NameTooLong { reference: printable(text), bytes });
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { domain, repository, tag, digest })
    }
}

fn is_image_id(text: &str) -> bool {
    Digest::from_hex(text).is_ok()
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    let Some((rest, digest)) = text.split_once('@') else { return Ok((text, None)) };
    match digest.parse() {
        Ok(digest) => Ok((rest, Some(digest))),
        Err(source) => Err(ReferenceError::Digest { reference: printable(text), source }),
    }
}

/// A colon after the last slash starts the tag; one before it belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// Docker's rule: the first component is a host if it could not be a user of the Docker Hub.
fn split_domain(name: &str) -> (String, String) {
    let explicit = name.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':']) || *first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (domain, repository) = explicit.unwrap_or((DOCKER_HUB, name));
    let domain = if domain == DOCKER_HUB_LEGACY { DOCKER_HUB } else { domain };
    if domain == DOCKER_HUB && !repository.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL_PREFIX}{repository}"));
    }
    (domain.to_owned(), repository.to_owned())
}

fn check_domain(reference: &str, domain: &str) -> Result<(), ReferenceError> {
    if is_domain(domain) {
        return Ok(());
    }
    Err(ReferenceError::Domain { reference: printable(reference), domain: printable(domain) })
}

fn is_domain(domain: &str) -> bool {
    if let Some(bracketed) = domain.strip_prefix('[') {
        let Some((address, rest)) = bracketed.split_once(']') else { return false };
        let port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    host.split('.').all(is_host_label) && port.is_none_or(is_port)
}

fn is_host_label(label: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn check_repository(reference: &str, repository: &str) -> Result<(), ReferenceError> {
    match repository.split('/').find(|component| !is_path_component(component)) {
        None => Ok(()),
        Some(component) => Err(ReferenceError::Repository {
            reference: printable(reference),
            component: printable(component),
        }),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && component.split(|c: char| c.is_ascii() && alphanumeric(c as u8)).all(is_separator)
}

/// What stands between two alphanumeric characters of a component.
fn is_separator(between: &str) -> bool {
    matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let inside = |b: u8| word(b) || b == b'.' || b == b'-';
    tag.len() <= MAX_TAG_BYTES && tag.bytes().next().is_some_and(word) && tag.bytes().all(inside)
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// The canonical form: `docker.io/library/nginx:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.repository, self.suffix())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
