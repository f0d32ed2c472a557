//! An image of the cluster's own store: the name and what it stands for. The content lies on the managers' disks.

use serde::{Deserialize, Serialize};

use crate::{Platform, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Canonical name with tag, as `docker.io/library/web:1`. The key.
    pub name: String,
    pub version: u64,
    pub created_at: Timestamp,
    /// Digest of the manifest, `sha256:…`.
    pub digest: String,
    /// Size of the manifest in bytes.
    pub manifest_bytes: u64,
    /// Size of all blobs in bytes.
    pub total_bytes: u64,
    pub platform: Platform,
}
