//! The cluster object: exactly one.

use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, MAX_CERTIFICATE_LIFE, Timestamp};

/// The cluster as the managers hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Certificate of the cluster's CA, PEM.
    pub root_certificate: String,
    /// Private key of the CA, PKCS#8 PEM. Never leaves the managers.
    pub root_key: String,
    pub join: JoinSecrets,
    /// Addresses of the tasks' gateway network; node i holds the i-th /22 of it.
    pub gateway_pool: Ipv4Net,
    /// Heartbeat interval told to agents, milliseconds.
    pub heartbeat_ms: u32,
    /// Of certificates that are issued from now on.
    #[serde(default = "longest")]
    pub certificate_life: Duration,
    /// While another root takes the place of this one.
    #[serde(default)]
    pub rotation: Option<Box<RootRotation>>,
    /// Whether managers lock their disks.
    #[serde(default)]
    pub autolock: Autolock,
}

fn longest() -> Duration {
    MAX_CERTIFICATE_LIFE
}

/// A new root on its way: it issues from the beginning on, and becomes the root once every node has a certificate of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    pub started_at: Timestamp,
    /// Certificate of the root to come, PEM.
    pub root_certificate: String,
    /// Its private key, PKCS#8 PEM. Never leaves the managers.
    pub root_key: String,
    /// The root to come, signed by the current one, PEM: for who does not know it yet.
    pub cross_signed: String,
    /// Of the root to come, as in join tokens; what nodes report.
    pub root_digest: String,
    /// From the end of the rotation on.
    pub join: JoinSecrets,
}

/// Keys do not appear in logs.
impl std::fmt::Debug for RootRotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootRotation")
            .field("started_at", &self.started_at)
            .field("root_digest", &self.root_digest)
            .finish_non_exhaustive()
    }
}

/// Whether managers wrap the keys of their disks, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autolock {
    /// `None`: they do not.
    pub unlock_key: Option<Secret>,
    /// Index of the log entry that said so; 0: none did. A newer one counts.
    pub version: u64,
}

/// A text that shows nowhere by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Secrets do not appear in logs.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The secret halves of the two join tokens: 25 base36 characters each.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSecrets {
    pub worker: String,
    pub manager: String,
}

/// Secrets do not appear in logs.
impl std::fmt::Debug for JoinSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinSecrets(…)")
    }
}

impl Cluster {
    /// Shortest life of a certificate.
    pub const MIN_CERTIFICATE_LIFE: Duration = Duration::from_secs(1);

    /// The root certificates that nodes are to believe, PEM; the last one issues.
    pub fn roots(&self) -> String {
        let next = self.rotation.as_ref().map_or("", |rotation| &rotation.root_certificate);
        format!("{}{next}", self.root_certificate)
    }

    /// Size of each node's block: /22 holds 1,024 addresses; offsets 0 to 10 are reserved.
    pub const NODE_BLOCK_PREFIX: u8 = 22;
    /// First offset in a node's block that a task may have.
    pub const FIRST_TASK_OFFSET: u16 = 11;
}
