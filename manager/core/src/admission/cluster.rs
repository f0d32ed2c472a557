//! Bootstrap of a cluster, and its join secrets.

use std::time::Duration;

use swarm_model::{Autolock, Cluster, MAX_CERTIFICATE_LIFE, NodeRole, RootRotation, Secret};

use super::{Admitted, Answer, Desk, Reserved, Verdict};
use crate::addresses;
use crate::api::{ApiError, CreateCluster, Kind};
use crate::store::Action;

impl Desk<'_> {
    pub(super) fn create_cluster(&mut self, create: CreateCluster) -> Result<Verdict, ApiError> {
        if let Some(cluster) = self.store.cluster() {
            return if cluster.id == create.id {
                Ok(Verdict::AlreadyDone(Answer::Cluster))
            } else {
                Err(ApiError::FailedPrecondition(format!(
                    "this node is part of cluster {} already; `swarmctl cluster leave` ends that",
                    cluster.id
                )))
            };
        }
        let capacity = addresses::node_capacity(create.gateway_pool);
        if capacity == 0 {
            return Err(ApiError::FailedPrecondition(format!(
                "the gateway pool {} has no room for a node: every node needs a /22 of it, and the first one stays \
                 unused; give a larger one, as 10.192.0.0/10",
                create.gateway_pool
            )));
        }
        let cluster = Cluster {
            id: create.id,
            version: 0,
            created_at: self.now,
            updated_at: self.now,
            root_certificate: create.root_certificate,
            root_key: create.root_key,
            join: create.join,
            gateway_pool: create.gateway_pool,
            heartbeat_ms: create.heartbeat_ms.max(1),
            certificate_life: MAX_CERTIFICATE_LIFE,
            rotation: None,
            autolock: Autolock::default(),
        };
        let node = self.new_node(create.node, 1);
        Ok(Verdict::Propose(Admitted {
            actions: vec![Action::CreateCluster(Box::new(cluster)), Action::CreateNode(Box::new(node))],
            reserved: Reserved { node_index: Some(1), ..Reserved::default() },
            answer: Answer::Cluster,
        }))
    }

    pub(super) fn rotate_join_secret(&mut self, role: NodeRole, secret: String) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        Ok(Admitted::one(Action::SetJoinSecret { role, secret }, Answer::Secrets))
    }

    pub(super) fn rotate_root(
        &mut self,
        base: u64,
        rotation: Box<RootRotation>,
    ) -> Result<Verdict, ApiError> {
        let current = self.need_cluster()?.version;
        if current != base {
            return Err(ApiError::OutOfSequence { kind: Kind::Cluster, given: base, current });
        }
        Ok(Admitted::one(Action::BeginRootRotation { base, rotation }, Answer::Cluster))
    }

    pub(super) fn set_certificate_life(&mut self, life: Duration) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        if life < Cluster::MIN_CERTIFICATE_LIFE || life > MAX_CERTIFICATE_LIFE {
            return Err(ApiError::TooLarge {
                what: "the life of a certificate in seconds",
                size: life.as_secs(),
                limit: MAX_CERTIFICATE_LIFE.as_secs(),
            });
        }
        Ok(Admitted::one(Action::SetCertificateLife { life }, Answer::Cluster))
    }

    pub(super) fn set_autolock(&mut self, unlock_key: Option<Secret>) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        Ok(Admitted::one(Action::SetAutolock { unlock_key }, Answer::Secrets))
    }

    pub(super) fn need_cluster(&self) -> Result<&Cluster, ApiError> {
        self.store.cluster().map(|cluster| &**cluster).ok_or_else(no_cluster)
    }
}

pub(crate) fn no_cluster() -> ApiError {
    ApiError::FailedPrecondition(
        "this node is not part of a cluster; `swarmctl cluster init` makes one, `swarmctl cluster join` enters one"
            .to_owned(),
    )
}
