//! Raft messages from other managers, in the order in which they were sent.

use swarm_proto::v1;
use swarm_proto::v1::raft_server::Raft;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::status::from_api;
use crate::engine::Engine;

pub struct RaftCalls {
    pub engine: Engine,
    pub stopping: CancellationToken,
}

#[tonic::async_trait]
impl Raft for RaftCalls {
    async fn send(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<Response<v1::RaftSummary>, Status> {
        let mut messages = request.into_inner();
        loop {
            let next = tokio::select! {
                next = messages.message() => next?,
                () = self.stopping.cancelled() => return Err(Status::unavailable("this manager stops")),
            };
            let Some(next) = next else { return Ok(Response::new(v1::RaftSummary {})) };
            self.engine.receive_raft(next.message).await.map_err(|error| from_api(&error))?;
        }
    }
}
