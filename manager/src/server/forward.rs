//! Calls that only the leader can answer: a manager that follows hands them on whole, and says for whom.
//!
//! A call whose manager answers that it does not lead has done nothing, so it is tried again, within a limit, at
//! whoever leads then; so is a read, and a call for which no connection came about. A write whose connection broke is
//! not: its outcome is unknown.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use swarm_manager_core::door::Leadership;
use swarm_model::{Actor, NodeRole, OperatorRole};
use swarm_pki::{Caller, NodeIdentity, OperatorIdentity};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tower::Service;

use super::MAX_MESSAGE_BYTES;
use super::quorum::no_leader;
use super::status::is_not_leader;
use crate::engine::Engine;
use crate::peers::Peers;

/// Calls that every manager answers itself: agents look for the leader themselves, and have their content from anybody;
/// the audit trail is everywhere.
const OWN: &[&str] = &[
    "/swarm.v1.Events/Subscribe",
    "/swarm.v1.Images/GetBlob",
    "/swarm.v1.Logs/Publish",
    "/swarm.v1.Raft/Send",
    "/swarm.v1.Sessions/Open",
];
/// Calls that cannot be sent twice: what is uploaded is not kept.
const STREAMED: &[&str] = &["/swarm.v1.Images/Load"];
/// Of a call that waits for a leader. An election takes well under a second.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Before a leader that does not answer is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// For an answer of a manager that no longer leads, which may be on its way.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Frame around a message.
const FRAME_BYTES: usize = 5;
/// Says for whom a manager forwards a call. Believed of managers only.
const CALLER_HEADER: &str = "swarm-caller";

/// Marks a call that was forwarded once: it is not forwarded again.
#[derive(Debug, Clone, Copy)]
struct Forwarded;

/// The way to the leader.
#[derive(Clone)]
pub struct Forward {
    pub engine: Engine,
    pub peers: Peers,
}

/// A service that is asked where the leader is.
#[derive(Clone)]
pub struct Led<S> {
    service: S,
    forward: Forward,
}

impl<S> Led<S> {
    pub fn new(service: S, forward: Forward) -> Self {
        Self { service, forward }
    }
}

impl<S: NamedService> NamedService for Led<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Led<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if OWN.contains(&path) || request.extensions().get::<Forwarded>().is_some() {
            return Box::pin(self.service.call(request));
        }
        let (service, forward) = (self.service.clone(), self.forward.clone());
        Box::pin(async move {
            let answered = if STREAMED.contains(&request.uri().path()) {
                forward.once(request, service).await
            } else {
                forward.until_answered(request, service).await
            };
            Ok(answered.unwrap_or_else(Status::into_http))
        })
    }
}

/// Where a call goes.
enum Way {
    Here,
    /// To the manager with this Raft id.
    There(u64, Channel),
}

/// Why a forwarded call has no answer.
struct Lost {
    /// Nothing was sent.
    unsent: bool,
}

impl Forward {
    async fn once<S>(&self, request: Request<Body>, mut service: S) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        match self.way(Instant::now() + LEADER_WAIT).await? {
            Way::Here => Ok(service.call(request).await.unwrap_or_else(|never| match never {})),
            Way::There(leader, channel) => self.send(leader, channel, request).await.map_err(|_| broke_off()),
        }
    }

    async fn until_answered<S>(&self, request: Request<Body>, service: S) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let deadline = Instant::now() + LEADER_WAIT;
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_MESSAGE_BYTES + FRAME_BYTES).collect().await;
        let body = body.map_err(|_| Status::invalid_argument("the request is cut short, or too large"))?;
        let body = body.to_bytes();
        let mut leadership = self.engine.leadership();
        loop {
            leadership.mark_unchanged();
            match self.attempt(&parts, &body, service.clone(), deadline).await? {
                Some(response) if !is_not_leader(response.headers()) || Instant::now() >= deadline => {
                    return Ok(response);
                }
                Some(_) | None => drop(tokio::time::timeout(PAUSE, leadership.changed()).await),
            }
        }
    }

    /// `None`: nothing was done, or nothing is lost by doing it again.
    async fn attempt<S>(
        &self,
        parts: &Parts,
        body: &Bytes,
        mut service: S,
        deadline: Instant,
    ) -> Result<Option<Response<Body>>, Status>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
        match self.way(deadline).await? {
            Way::Here => Ok(Some(service.call(request).await.unwrap_or_else(|never| match never {}))),
            Way::There(leader, channel) => match self.send(leader, channel, request).await {
                Ok(response) => Ok(Some(response)),
                Err(lost) if lost.unsent || is_read(parts.uri.path()) => Ok(None),
                Err(_) => Err(broke_off()),
            },
        }
    }

    /// Waits until it is known who leads, and that it can be reached.
    async fn way(&self, deadline: Instant) -> Result<Way, Status> {
        let mut leadership = self.engine.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            match now {
                Leadership::Leader { .. } => return Ok(Way::Here),
                Leadership::Follower { leader: Some(leader) } => {
                    // A leader whose host is gone may be dialled for seconds; another one is elected in the meantime.
                    tokio::select! {
                        dialled = timeout_at(deadline, self.peers.leader(leader)) => match dialled {
                            Ok(Ok(channel)) => return Ok(Way::There(leader, channel)),
                            Ok(Err(_)) | Err(_) => {
                                let _ = tokio::time::timeout(PAUSE, leadership.changed()).await;
                            }
                        },
                        _ = leadership.changed() => {}
                    }
                }
                Leadership::Follower { leader: None } => {
                    let _ = timeout_at(deadline, leadership.changed()).await;
                }
            }
            if Instant::now() >= deadline {
                return Err(no_leader(&self.engine, &self.peers).await);
            }
        }
    }

    async fn send(
        &self,
        leader: u64,
        mut channel: Channel,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Lost> {
        wrap(&mut request);
        let sent = async {
            poll_fn(|context| channel.poll_ready(context)).await?;
            channel.call(request).await
        };
        let unsent = tokio::select! {
            biased;
            sent = sent => match sent {
                Ok(response) => return Ok(response),
                Err(error) => never_connected(&error),
            },
            () = self.superseded(leader) => false,
        };
        self.peers.hang_up_leader(leader).await;
        Err(Lost { unsent })
    }

    /// Waits until somebody else leads. The one who did may be cut off, and his connection not be broken for long.
    async fn superseded(&self, leader: u64) {
        let mut leadership = self.engine.leadership();
        let leads = |now: &Leadership| *now == Leadership::Follower { leader: Some(leader) };
        while leadership.wait_for(|now| !leads(now)).await.is_ok() {
            tokio::time::sleep(LAST_WORDS).await;
            if !leads(&leadership.borrow()) {
                return;
            }
        }
        // The engine stops; the call ends with it.
        std::future::pending().await
    }
}

/// States the caller for the leader.
fn wrap(request: &mut Request<Body>) {
    let caller = match request.extensions().get::<Caller>() {
        Some(Caller::Root) => {
            let actor = request.extensions().get::<Actor>().map_or("root", |actor| actor.name.as_str());
            format!("root {}", actor.strip_prefix("root@").unwrap_or(actor))
        }
        Some(Caller::Operator(OperatorIdentity { operator, role, .. })) => {
            format!("operator {operator} {role}")
        }
        Some(Caller::Node(NodeIdentity { node, role: NodeRole::Manager, .. })) => format!("manager {node}"),
        Some(Caller::Node(NodeIdentity { node, role: NodeRole::Worker, .. })) => format!("worker {node}"),
        Some(Caller::Anyone) | None => "anyone".to_owned(),
    };
    let value = HeaderValue::from_str(&caller).expect("ids and host names are graphic ASCII");
    request.headers_mut().insert(CALLER_HEADER, value);
}

/// Root of the node that is called so. Whatever else a host name may hold, it is shown as letters.
pub fn root_of(hostname: &str) -> Actor {
    let graphic = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    Actor {
        name: format!("root@{}", hostname.chars().map(graphic).collect::<String>()),
        role: OperatorRole::Admin,
    }
}

/// Takes the statement of a manager that forwards a call. Of anybody else it counts for nothing.
pub fn unwrap(request: &mut Request<Body>) {
    let Some(stated) = request.headers_mut().remove(CALLER_HEADER) else { return };
    let Some(Caller::Node(sender)) = request.extensions().get::<Caller>().copied() else { return };
    if sender.role != NodeRole::Manager {
        return;
    }
    if let Some((caller, actor)) = stated.to_str().ok().and_then(|stated| parse(stated, sender)) {
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Forwarded);
        if let Some(actor) = actor {
            request.extensions_mut().insert(actor);
        }
    }
}

fn parse(stated: &str, sender: NodeIdentity) -> Option<(Caller, Option<Actor>)> {
    let node = |role, id: &str| Some(Caller::Node(NodeIdentity { node: id.parse().ok()?, role, ..sender }));
    let caller = match stated.split_once(' ') {
        None if stated == "anyone" => Caller::Anyone,
        Some(("root", hostname)) => return Some((Caller::Root, Some(root_of(hostname)))),
        Some(("operator", operator)) => {
            let (id, role) = operator.split_once(' ')?;
            let (operator, role) = (id.parse().ok()?, role.parse().ok()?);
            Caller::Operator(OperatorIdentity { operator, role, cluster: sender.cluster })
        }
        Some(("manager", id)) => node(NodeRole::Manager, id)?,
        Some(("worker", id)) => node(NodeRole::Worker, id)?,
        None | Some(_) => return None,
    };
    Some((caller, None))
}

fn is_read(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    method.starts_with("Get") || method == "List" || method == "Watch"
}

fn never_connected(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut);
        }
        cause = error.source();
    }
    false
}

fn broke_off() -> Status {
    Status::unavailable(
        "the outcome is unknown: the connection to the leading manager broke; look whether it was done, then repeat it",
    )
}

#[cfg(test)]
mod tests {
    use swarm_model::{ClusterId, NodeId};

    use super::*;

    fn caller_after(sender: Option<Caller>, stated: &str) -> (Option<Caller>, bool) {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Caller::Anyone);
        if let Some(sender) = sender {
            request.extensions_mut().insert(sender);
        }
        request.headers_mut().insert(CALLER_HEADER, HeaderValue::from_str(stated).unwrap());
        unwrap(&mut request);
        assert!(!request.headers().contains_key(CALLER_HEADER));
        let forwarded = request.extensions().get::<Forwarded>().is_some();
        (request.extensions().get::<Caller>().copied(), forwarded)
    }

    fn node(role: NodeRole) -> Caller {
        let (node, cluster) = (NodeId::from_u128(1), ClusterId::from_u128(2));
        Caller::Node(NodeIdentity { node, role, cluster })
    }

    #[test]
    fn only_managers_speak_for_others() {
        let manager = node(NodeRole::Manager);
        assert_eq!(caller_after(Some(manager), "root node-1"), (Some(Caller::Root), true));
        assert_eq!(caller_after(Some(manager), "nonsense"), (Some(manager), false));
        assert_eq!(caller_after(Some(manager), "worker x"), (Some(manager), false));
        let worker = node(NodeRole::Worker);
        assert_eq!(caller_after(Some(worker), "root node-1"), (Some(worker), false));
        assert_eq!(caller_after(None, "root node-1"), (Some(Caller::Anyone), false));
    }

    #[test]
    fn who_is_stated_is_who_is_understood() {
        let identity = OperatorIdentity {
            operator: swarm_model::OperatorId::from_u128(5),
            role: OperatorRole::Deployer,
            cluster: ClusterId::from_u128(2),
        };
        let operator = Caller::Operator(identity);
        for caller in
            [Caller::Root, operator, Caller::Anyone, node(NodeRole::Worker), node(NodeRole::Manager)]
        {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(caller);
            wrap(&mut request);
            let stated = request.headers()[CALLER_HEADER].to_str().unwrap().to_owned();
            assert_eq!(caller_after(Some(node(NodeRole::Manager)), &stated).0, Some(caller));
        }
    }
}
