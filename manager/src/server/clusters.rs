//! The cluster, and its join tokens.

use std::time::Duration;

use swarm_manager_core::api::{Request as Ask, Response as Answer};
use swarm_model::{Actor, Autolock, NodeRole, Secret};
use swarm_pki::JoinSecret;
use swarm_proto::v1;
use swarm_proto::v1::clusters_server::Clusters;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::info;

use super::access::actor;
use super::status::from_api;
use super::views;
use crate::authority::ClusterAuthority;
use crate::backup;
use crate::engine::Engine;
use crate::keys::{Keyring, UnlockKey};

/// Of a backup, on their way to whoever takes it.
const MAX_BACKUP_PIECES: usize = 4;
/// For one small file to be written.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);

pub struct ClusterCalls {
    pub engine: Engine,
    pub authority: ClusterAuthority,
    pub keyring: Keyring,
}

#[tonic::async_trait]
impl Clusters for ClusterCalls {
    async fn get(&self, _: Request<v1::GetClusterRequest>) -> Result<Response<v1::Cluster>, Status> {
        match self.engine.request(Ask::GetCluster).await.map_err(|error| from_api(&error))? {
            Answer::Cluster(view) => Ok(Response::new(views::cluster(&view))),
            other => unreachable!("GetCluster is answered by a cluster, not by {other:?}"),
        }
    }

    async fn get_join_token(
        &self,
        request: Request<v1::GetJoinTokenRequest>,
    ) -> Result<Response<v1::GetJoinTokenResponse>, Status> {
        let role = request.into_inner().role();
        self.token(role.into()).await
    }

    async fn rotate_join_token(
        &self,
        request: Request<v1::GetJoinTokenRequest>,
    ) -> Result<Response<v1::GetJoinTokenResponse>, Status> {
        let by = actor(&request);
        let role = NodeRole::from(request.into_inner().role());
        let rotate = Ask::RotateJoinSecret { role, secret: JoinSecret::generate().reveal() };
        self.engine.request_by(by, rotate).await.map_err(|error| from_api(&error))?;
        self.token(role).await
    }

    async fn rotate_root(
        &self,
        request: Request<v1::RotateRootRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        let view = self.authority.rotate(actor(&request)).await?;
        info!("the root certificate is being replaced");
        Ok(Response::new(views::cluster(&view)))
    }

    async fn set_certificate_life(
        &self,
        request: Request<v1::SetCertificateLifeRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        let by = actor(&request);
        let life = Duration::from_micros(request.into_inner().certificate_life);
        let set = self.engine.request_by(by, Ask::SetCertificateLife { life }).await;
        match set.map_err(|error| from_api(&error))? {
            Answer::Cluster(view) => Ok(Response::new(views::cluster(&view))),
            other => unreachable!("SetCertificateLife is answered by a cluster, not by {other:?}"),
        }
    }
    type BackupStream = ReceiverStream<Result<v1::BackupPiece, Status>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let captured = self.engine.request(Ask::Capture).await.map_err(|error| from_api(&error))?;
        let Answer::Capture(capture) = captured else { unreachable!("Capture is answered by a capture") };
        let unlock = capture.cluster().and_then(|cluster| cluster.autolock.unlock_key.clone());
        let unlock = unlock.map(|key| key.reveal().parse::<UnlockKey>()).transpose();
        let unlock =
            unlock.map_err(|_| Status::internal("the cluster's stored unlock key cannot be read"))?;
        info!(raft.index = capture.index(), "a backup is taken");
        let (sender, stream) = mpsc::channel(MAX_BACKUP_PIECES);
        // Ends with the caller, who takes the pieces or goes.
        tokio::task::spawn_blocking(move || {
            let mut put =
                |data: Vec<u8>| sender.blocking_send(Ok(v1::BackupPiece { data: data.into() })).is_ok();
            backup::write(&capture, unlock.as_ref(), &mut put);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn set_autolock(
        &self,
        request: Request<v1::SetAutolockRequest>,
    ) -> Result<Response<v1::UnlockKey>, Status> {
        let by = actor(&request);
        let current = self.autolock().await?;
        let key = match (request.into_inner().autolock, &current.unlock_key) {
            (true, Some(_)) | (false, None) => return answer(&current),
            (true, None) => Some(UnlockKey::generate()),
            (false, Some(_)) => None,
        };
        answer(&self.decide(by, key).await?)
    }

    async fn get_unlock_key(
        &self,
        _: Request<v1::GetUnlockKeyRequest>,
    ) -> Result<Response<v1::UnlockKey>, Status> {
        answer(&self.autolock().await?)
    }

    async fn rotate_unlock_key(
        &self,
        request: Request<v1::RotateUnlockKeyRequest>,
    ) -> Result<Response<v1::UnlockKey>, Status> {
        if self.autolock().await?.unlock_key.is_none() {
            return Err(Status::failed_precondition(
                "the managers are not locked, so there is no unlock key; `swarmctl cluster update --autolock=true` makes one",
            ));
        }
        answer(&self.decide(actor(&request), Some(UnlockKey::generate())).await?)
    }
}

fn answer(autolock: &Autolock) -> Result<Response<v1::UnlockKey>, Status> {
    let Some(key) = &autolock.unlock_key else { return Ok(Response::new(v1::UnlockKey::default())) };
    let id = key.reveal().parse::<UnlockKey>().map(|key| key.id());
    let id = id.map_err(|_| Status::internal("the cluster's stored unlock key cannot be read"))?;
    Ok(Response::new(v1::UnlockKey { unlock_key: key.reveal().to_owned(), id }))
}

impl ClusterCalls {
    async fn autolock(&self) -> Result<Autolock, Status> {
        match self.engine.request(Ask::GetClusterSecrets).await.map_err(|error| from_api(&error))? {
            Answer::Secrets(cluster) => Ok(cluster.autolock.clone()),
            other => unreachable!("GetClusterSecrets is answered by secrets, not by {other:?}"),
        }
    }

    /// Returns once this manager's own disk follows; the others do within moments.
    async fn decide(&self, by: Option<Actor>, key: Option<UnlockKey>) -> Result<Autolock, Status> {
        let unlock_key = key.map(|key| Secret::new(key.reveal()));
        let decided = self.engine.request_by(by, Ask::SetAutolock { unlock_key }).await;
        let Answer::Secrets(cluster) = decided.map_err(|error| from_api(&error))? else {
            unreachable!("SetAutolock is answered by secrets");
        };
        let follows = self.keyring.follows(cluster.autolock.version);
        tokio::time::timeout(FOLLOW_TIMEOUT, follows).await.map_err(|_| {
            Status::unavailable(
                "the cluster has taken the change, but the leading manager cannot write the key of its disk yet (its log \
                 says why); `swarmctl cluster unlock-key` shows the key that counts",
            )
        })?;
        Ok(cluster.autolock.clone())
    }

    async fn token(&self, role: NodeRole) -> Result<Response<v1::GetJoinTokenResponse>, Status> {
        let token = self.authority.join_token(role).await?.reveal();
        let managers = self.authority.managers();
        Ok(Response::new(v1::GetJoinTokenResponse { token, managers }))
    }
}
