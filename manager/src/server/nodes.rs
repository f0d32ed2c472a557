//! Nodes.

use swarm_manager_core::api::{NodeView, Request as Ask, Response as Answer};
use swarm_model::Actor;
use swarm_proto::v1;
use swarm_proto::v1::nodes_server::Nodes;
use tonic::{Request, Response, Status};

use super::access::actor;
use super::status::{from_api, from_convert};
use super::views;
use crate::engine::Engine;

pub struct NodeCalls {
    pub engine: Engine,
}

#[tonic::async_trait]
impl Nodes for NodeCalls {
    async fn list(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        match self.engine.request(Ask::ListNodes).await.map_err(|error| from_api(&error))? {
            Answer::Nodes(list) => {
                let nodes = list.iter().map(views::node).collect();
                Ok(Response::new(v1::ListNodesResponse { nodes }))
            }
            other => unreachable!("ListNodes is answered by nodes, not by {other:?}"),
        }
    }

    async fn get(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let view = self.ask(None, Ask::GetNode { node: request.into_inner().node }).await?;
        Ok(Response::new(views::node(&view)))
    }

    async fn update(&self, request: Request<v1::UpdateNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let by = actor(&request);
        let v1::UpdateNodeRequest { node_id: node, version, spec } = request.into_inner();
        let spec = spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))?;
        let spec = spec.try_into().map_err(|error| from_convert(&error))?;
        let view = self.ask(by, Ask::UpdateNode { node, version, spec }).await?;
        Ok(Response::new(views::node(&view)))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let by = actor(&request);
        let v1::RemoveNodeRequest { node_id: node, force } = request.into_inner();
        let removed = self.engine.request_by(by, Ask::RemoveNode { node, force }).await;
        removed.map_err(|error| from_api(&error))?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }
}

impl NodeCalls {
    async fn ask(&self, by: Option<Actor>, request: Ask) -> Result<NodeView, Status> {
        match self.engine.request_by(by, request).await.map_err(|error| from_api(&error))? {
            Answer::Node(view) => Ok(view),
            other => unreachable!("the request is answered by a node, not by {other:?}"),
        }
    }
}
