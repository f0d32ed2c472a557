//! The agents' sessions: one stream each, about the node that its certificate names.
//!
//! Messages to an agent wait in the engine's bounded queue and nowhere else; an agent that does not take them is cut
//! there.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use swarm_manager_core::door::CloseReason;
use swarm_model::{ManagerMessage, NodeId, NodeRole, Registration};
use swarm_pki::Caller;
use swarm_proto::convert::FromAgent;
use swarm_proto::v1;
use swarm_proto::v1::sessions_server::Sessions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::status::{from_api, from_convert, not_leader, refuse_removed};
use crate::engine::{AgentSession, Engine};
use crate::peers::Peers;

/// For an agent to say who and what it is, from opening the stream.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);
/// More nodes than an address plan holds, since an old session may end after its successor began.
const MAX_SESSIONS: usize = 8_192;

pub struct SessionCalls {
    engine: Engine,
    peers: Peers,
    room: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl SessionCalls {
    pub fn new(engine: Engine, peers: Peers, stopping: CancellationToken) -> Self {
        Self { engine, peers, room: Arc::new(Semaphore::new(MAX_SESSIONS)), stopping }
    }
}

#[tonic::async_trait]
impl Sessions for SessionCalls {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<v1::ManagerMessage, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let node = calling_node(&request)?;
        let room = Arc::clone(&self.room).try_acquire_owned();
        let room = room.map_err(|_| Status::resource_exhausted("this manager has too many sessions"))?;
        let mut inbound = request.into_inner();
        let registration = registration(&mut inbound).await?;
        let mut session = match self.engine.open_session(node, registration).await {
            Ok(session) => session,
            Err(error) => return Err(from_api(&error)),
        };
        let ended = self.stopping.child_token();
        let (_, nothing) = mpsc::channel(1);
        let outbound = Outbound {
            messages: std::mem::replace(&mut session.messages, nothing),
            peers: self.peers.clone(),
            _ended: ended.clone().drop_guard(),
            _room: room,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = receive(node, &session, inbound) => {}
                () = ended.cancelled() => {}
            }
            // Dropping the session closes it, and with it the outbound stream.
        });
        Ok(Response::new(Box::pin(stream::unfold(Some(outbound), Outbound::next))))
    }
}

async fn registration(inbound: &mut Streaming<v1::AgentMessage>) -> Result<Registration, Status> {
    let first = tokio::time::timeout(REGISTRATION_TIMEOUT, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no registration came"))??;
    let first = first.ok_or_else(|| Status::invalid_argument("the session has no registration"))?;
    match FromAgent::try_from(first).map_err(|error| from_convert(&error))? {
        FromAgent::Registration(registration) => Ok(registration),
        FromAgent::Message(_) => Err(Status::invalid_argument("a session begins with a registration")),
    }
}

/// Hands everything in until the agent ends the stream, or breaks its rules.
async fn receive(node: NodeId, session: &AgentSession, mut inbound: Streaming<v1::AgentMessage>) {
    loop {
        let message = match inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(status) => return debug!(node.id = %node, %status, "a session broke"),
        };
        let message = match FromAgent::try_from(message) {
            Ok(FromAgent::Message(message)) => message,
            Ok(FromAgent::Registration(_)) => {
                return debug!(node.id = %node, "a session was ended: it registered twice");
            }
            Err(error) => return debug!(node.id = %node, %error, "a session was ended: a bad message"),
        };
        if session.send(message).await.is_err() {
            return;
        }
    }
}

/// What goes to the agent.
struct Outbound {
    messages: mpsc::Receiver<Result<ManagerMessage, CloseReason>>,
    peers: Peers,
    /// Ends the inbound half when the agent is gone.
    _ended: DropGuard,
    _room: OwnedSemaphorePermit,
}

impl Outbound {
    async fn next(this: Option<Self>) -> Option<(Result<v1::ManagerMessage, Status>, Option<Self>)> {
        let mut this = this?;
        match this.messages.recv().await {
            Some(Ok(message)) => Some((Ok((&message).into()), Some(this))),
            Some(Err(reason)) => Some((Err(this.closed(&reason)), None)),
            None => Some((Err(Status::unavailable("this manager ended the session")), None)),
        }
    }

    fn closed(&self, reason: &CloseReason) -> Status {
        let message = reason.to_string();
        match reason {
            CloseReason::NotLeader { leader } => {
                let address = leader.and_then(|leader| self.peers.address(leader));
                not_leader(message, address.as_deref())
            }
            CloseReason::Removed { node, at } => refuse_removed(*node, *at),
            CloseReason::UnknownNode(_) => Status::permission_denied(message),
            CloseReason::Superseded(_) | CloseReason::RoleChanged(_) => Status::aborted(message),
            CloseReason::Silent(_) => Status::deadline_exceeded(message),
            CloseReason::Stopped => Status::unavailable(message),
        }
    }
}

/// The table of access lets only nodes through to where this is asked.
pub fn calling_node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    calling_member(request).map(|(node, _)| node)
}

/// [`calling_node`], and what its certificate says that it is.
pub fn calling_member<T>(request: &Request<T>) -> Result<(NodeId, NodeRole), Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Node(identity)) => Ok((identity.node, identity.role)),
        Some(Caller::Root | Caller::Operator(_) | Caller::Anyone) | None => {
            Err(Status::permission_denied("only members of the cluster may call this"))
        }
    }
}
