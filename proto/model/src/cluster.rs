//! The cluster object: exactly one.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Timestamp};

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
    /// Size of each node's block: /22 holds 1,024 addresses; offsets 0 to 10 are reserved.
    pub const NODE_BLOCK_PREFIX: u8 = 22;
    /// First offset in a node's block that a task may have.
    pub const FIRST_TASK_OFFSET: u16 = 11;
}
