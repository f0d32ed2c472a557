//! What a new cluster begins with.

use std::time::{Duration, SystemTime};

use rand::TryRng;
use swarm_manager_core::api::NewNode;
use swarm_model::{ClusterId, MAX_CERTIFICATE_LIFE, NodeId, NodeRole};
use swarm_pki::{Authority, Credentials, NodeIdentity, NodeKey, SigningRequest};

use super::ManagerError;

/// What makes a cluster: its authority, and the credentials of its first manager.
pub(super) struct Founding {
    pub authority: Authority,
    pub root_key: String,
    pub credentials: Credentials,
}

impl Founding {
    pub fn new() -> Result<Self, ManagerError> {
        let now = SystemTime::now();
        let cluster = ClusterId::from_u128(u128::from_be_bytes(random()?));
        let (authority, root_key) = Authority::generate(cluster, now).map_err(ManagerError::Authority)?;
        let credentials = first_credentials(&authority, cluster, MAX_CERTIFICATE_LIFE)?;
        Ok(Self { authority, root_key, credentials })
    }
}

/// Of a manager that nobody else could certify.
pub(super) fn first_credentials(
    authority: &Authority,
    cluster: ClusterId,
    life: Duration,
) -> Result<Credentials, ManagerError> {
    let key = NodeKey::generate().map_err(ManagerError::Credentials)?;
    let request = key.request().map_err(ManagerError::Credentials)?;
    let request = SigningRequest::parse(&request).map_err(ManagerError::Authority)?;
    let node: NodeId = NewNode::id_of_key(&request.key_digest());
    let identity = NodeIdentity { node, role: NodeRole::Manager, cluster };
    let chain = authority.issue(&request, &identity, SystemTime::now(), life);
    let chain = chain.map_err(ManagerError::Authority)?;
    key.certified(&chain, authority.root_pem()).map_err(ManagerError::Credentials)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], ManagerError> {
    let mut bytes = [0; N];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(ManagerError::Randomness)?;
    Ok(bytes)
}
