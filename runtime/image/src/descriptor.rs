//! What points to content: descriptors, the media types that are understood, and platforms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Media types that this crate writes or compares with, from the OCI image specification and Docker's schema 2.
pub mod media_type {
    /// An OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed OCI layer.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A gzip-compressed OCI layer.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A zstd-compressed OCI layer.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// An uncompressed Docker layer.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// A gzip-compressed Docker layer.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A zstd-compressed Docker layer.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// How a layer's tar stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, possibly of several members.
    Gzip,
    /// zstd, possibly of several frames.
    Zstd,
}

/// What a media type says that the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A list of manifests, one per platform.
    Index,
    /// The manifest of one image.
    Manifest,
    /// The configuration of one image.
    Config,
    /// A file system layer.
    Layer(Compression),
    /// Nothing that an image to run is made of.
    Unknown,
}

impl MediaKind {
    /// Classifies a media type.
    pub fn of(media_type: &str) -> Self {
        match media_type {
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => Self::Index,
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => Self::Manifest,
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => Self::Config,
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Self::Layer(Compression::None),
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Self::Layer(Compression::Gzip),
            media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Self::Layer(Compression::Zstd),
            _ => Self::Unknown,
        }
    }
}

/// A pointer to content: what it is, its digest and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type, as given by whoever points.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
}

impl Descriptor {
    /// What the media type says that the content is.
    pub fn kind(&self) -> MediaKind {
        MediaKind::of(&self.media_type)
    }
}

/// An operating system and processor architecture in Go's words, like `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7`; empty when there is none.
    pub variant: String,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {text:?} is not of the form OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT")]
pub struct PlatformError {
    /// The text, cut to a printable length.
    pub text: String,
}

impl Platform {
    /// Linux on `architecture`, in Go's words.
    pub fn linux(architecture: &str, variant: &str) -> Self {
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// The platform that this program was built for.
    pub fn current() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::linux("amd64", ""),
            "x86" => Self::linux("386", ""),
            "aarch64" => Self::linux("arm64", "v8"),
            "arm" => Self::linux("arm", "v7"),
            "powerpc64" => Self::linux("ppc64le", ""),
            "loongarch64" => Self::linux("loong64", ""),
            same_in_go => Self::linux(same_in_go, ""),
        }
    }

    /// Whether an image built for `image` runs here. `None` when not, else a preference: more is better.
    ///
    /// A newer ARM runs what was built for an older variant, and x86-64 machines are taken for the baseline level,
    /// so that an index offering `amd64/v3` beside plain `amd64` yields the plain one.
    pub fn preference(&self, image: &Self) -> Option<u32> {
        if self.os != image.os || self.architecture != image.architecture {
            return None;
        }
        let level = |variant: &str| variant.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
        let unspecified = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            "amd64" => 1,
            _ if self.variant == image.variant => return Some(1),
            _ if image.variant.is_empty() => return Some(0),
            _ => return None,
        };
        let level_or_default =
            |variant: &str| if variant.is_empty() { Some(unspecified) } else { level(variant) };
        let (here, there) = (level_or_default(&self.variant)?, level_or_default(&image.variant)?);
        (there <= here).then_some(there)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let word = |part: &str| {
            let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            !part.is_empty() && part.len() <= 32 && part.bytes().all(byte)
        };
        let mut parts = text.splitn(4, '/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture, parts.next()) {
            (Some(os), Some(architecture), None)
                if word(os) && word(architecture) && variant.is_none_or(word) =>
            {
                Ok(Self {
                    os: os.into(),
                    architecture: architecture.into(),
                    variant: variant.unwrap_or_default().into(),
                })
            }
            _ => Err(PlatformError { text: crate::digest::printable(text) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(here: &str, image: &str, expect: Option<u32>) {
        let (here, image): (Platform, Platform) = (here.parse().unwrap(), image.parse().unwrap());
        assert_eq!(here.preference(&image), expect, "{image} on {here}");
    }

    #[test]
    fn a_platform_runs_its_own_and_older_variants() {
        check("linux/amd64", "linux/amd64", Some(1));
        check("linux/amd64", "linux/amd64/v1", Some(1));
        check("linux/amd64", "linux/amd64/v3", None);
        check("linux/amd64", "linux/arm64", None);
        check("linux/amd64", "windows/amd64", None);
        check("linux/arm64/v8", "linux/arm64", Some(8));
        check("linux/arm/v7", "linux/arm/v6", Some(6));
        check("linux/arm/v6", "linux/arm/v7", None);
        check("linux/riscv64", "linux/riscv64", Some(1));
        check("linux/amd64", "linux/amd64/odd", None);
    }

    #[test]
    fn platforms_have_two_or_three_words() {
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }
}
