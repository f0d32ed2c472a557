//! Raft messages from other managers, in the order in which they were sent; large ones in pieces.
//!
//! The table of access lets only managers of the cluster through. The leader knows who is one by now, and hears nobody
//! else; a follower may be the one that does not know yet, and Raft itself ignores who is no member.

use bytes::{Bytes, BytesMut};
use swarm_manager_core::door::Leadership;
use swarm_model::NodeId;
use swarm_proto::v1;
use swarm_proto::v1::raft_server::Raft;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::sessions::calling_node;
use super::status::from_api;
use crate::engine::Engine;
use crate::peers::Peers;

/// A snapshot of the largest cluster: a million tasks at 1 KiB, and as much again.
const MAX_RAFT_BYTES: usize = 2 << 30;

pub struct RaftCalls {
    pub engine: Engine,
    pub peers: Peers,
    pub stopping: CancellationToken,
}

#[tonic::async_trait]
impl Raft for RaftCalls {
    async fn send(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<Response<v1::RaftSummary>, Status> {
        let node = calling_node(&request)?;
        self.check_member(node)?;
        let mut messages = request.into_inner();
        let mut pieces = Pieces::default();
        loop {
            let next = tokio::select! {
                next = messages.message() => next?,
                () = self.stopping.cancelled() => return Err(Status::unavailable("this manager stops")),
            };
            let Some(next) = next else { return Ok(Response::new(v1::RaftSummary {})) };
            if next.sender_raft_id != 0 {
                self.peers.introduce(node, &next);
                continue;
            }
            let received = match pieces.add(next)? {
                None => Ok(()),
                Some((message, state)) if state.is_empty() => self.engine.receive_raft(message).await,
                Some((message, state)) => self.engine.receive_snapshot(message, state).await,
            };
            received.map_err(|error| from_api(&error))?;
        }
    }
}

impl RaftCalls {
    fn check_member(&self, node: NodeId) -> Result<(), Status> {
        let leads = matches!(*self.engine.leadership().borrow(), Leadership::Leader { .. });
        let members = self.engine.members();
        if leads && members.borrow().iter().all(|member| member.node != node) {
            return Err(Status::permission_denied(
                "the calling node is not a manager of this cluster any more",
            ));
        }
        Ok(())
    }
}

/// What has come of a message in pieces, and of the state that it announces.
#[derive(Default)]
struct Pieces {
    message: BytesMut,
    state: BytesMut,
}

impl Pieces {
    /// The message that this piece completes, and its state.
    fn add(&mut self, next: v1::RaftMessage) -> Result<Option<(Bytes, Bytes)>, Status> {
        if self.message.is_empty() && !next.more {
            return Ok(Some((next.message, Bytes::new())));
        }
        if self.message.len() + self.state.len() + next.message.len() + next.state.len() > MAX_RAFT_BYTES {
            return Err(Status::resource_exhausted("the message is larger than any snapshot may be"));
        }
        self.message.extend_from_slice(&next.message);
        self.state.extend_from_slice(&next.state);
        let take = |part: &mut BytesMut| std::mem::take(part).freeze();
        Ok((!next.more).then(|| (take(&mut self.message), take(&mut self.state))))
    }
}
