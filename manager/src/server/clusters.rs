//! The cluster, and its join tokens.

use std::time::Duration;

use swarm_manager_core::api::{Request as Ask, Response as Answer};
use swarm_model::NodeRole;
use swarm_pki::JoinSecret;
use swarm_proto::v1;
use swarm_proto::v1::clusters_server::Clusters;
use tonic::{Request, Response, Status};
use tracing::info;

use super::status::from_api;
use super::views;
use crate::authority::ClusterAuthority;
use crate::engine::Engine;

pub struct ClusterCalls {
    pub engine: Engine,
    pub authority: ClusterAuthority,
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
        let role = NodeRole::from(request.into_inner().role());
        let rotate = Ask::RotateJoinSecret { role, secret: JoinSecret::generate().reveal() };
        self.engine.request(rotate).await.map_err(|error| from_api(&error))?;
        self.token(role).await
    }

    async fn rotate_root(&self, _: Request<v1::RotateRootRequest>) -> Result<Response<v1::Cluster>, Status> {
        let view = self.authority.rotate().await?;
        info!("the root certificate is being replaced");
        Ok(Response::new(views::cluster(&view)))
    }

    async fn set_certificate_life(
        &self,
        request: Request<v1::SetCertificateLifeRequest>,
    ) -> Result<Response<v1::Cluster>, Status> {
        let life = Duration::from_micros(request.into_inner().certificate_life);
        match self.engine.request(Ask::SetCertificateLife { life }).await.map_err(|error| from_api(&error))? {
            Answer::Cluster(view) => Ok(Response::new(views::cluster(&view))),
            other => unreachable!("SetCertificateLife is answered by a cluster, not by {other:?}"),
        }
    }
}

impl ClusterCalls {
    async fn token(&self, role: NodeRole) -> Result<Response<v1::GetJoinTokenResponse>, Status> {
        let token = self.authority.join_token(role).await?.reveal();
        let managers = self.authority.managers().await?;
        Ok(Response::new(v1::GetJoinTokenResponse { token, managers }))
    }
}
