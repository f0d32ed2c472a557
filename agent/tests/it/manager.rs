//! A manager that a test plays by hand: sessions are handed to the test, image content and logs are served.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::BoxStream;
use swarm_agent::{AgentConfig, Managers, Parallelism, UnreachableError};
use swarm_image::ContentStore;
use swarm_model::{
    AgentMessage, Assignment, AssignmentsDelta, ClusterId, ManagerMessage, NodeId, Registration,
    TableVersion, TaskId, TaskState, TaskStatus, Welcome,
};
use swarm_proto::convert::FromAgent;
use swarm_proto::v1 as wire;
use swarm_proto::v1::images_server::{Images, ImagesServer};
use swarm_proto::v1::logs_server::{Logs, LogsServer};
use swarm_proto::v1::sessions_server::{Sessions, SessionsServer};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

pub const CLUSTER: ClusterId = ClusterId::from_u128(11);
pub const NODE: NodeId = NodeId::from_u128(12);
/// Nothing here takes longer unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Manager {
    pub address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    /// Log entries, in the order of their arrival.
    pub logs: mpsc::Receiver<wire::LogEntry>,
    /// Answer to sessions instead of taking them.
    pub refusal: Arc<Mutex<Option<Status>>>,
    _server: AbortOnDropHandle<()>,
}

/// The manager's end of a session.
pub struct Session {
    inbound: Streaming<wire::AgentMessage>,
    outbound: mpsc::Sender<Result<wire::ManagerMessage, Status>>,
    number: u64,
}

#[derive(Clone)]
struct Service {
    sessions: mpsc::Sender<Session>,
    logs: mpsc::Sender<wire::LogEntry>,
    refusal: Arc<Mutex<Option<Status>>>,
    content: Option<ContentStore>,
}

impl Manager {
    pub async fn start(content: Option<ContentStore>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (session_sender, sessions) = mpsc::channel(8);
        let (log_sender, logs) = mpsc::channel(1_024);
        let refusal = Arc::default();
        let service =
            Service { sessions: session_sender, logs: log_sender, refusal: Arc::clone(&refusal), content };
        let server = Server::builder()
            .add_service(SessionsServer::new(service.clone()))
            .add_service(ImagesServer::new(service.clone()))
            .add_service(LogsServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = AbortOnDropHandle::new(tokio::spawn(async { server.await.unwrap() }));
        Self { address, sessions, logs, refusal, _server: server }
    }

    pub async fn session(&mut self) -> Session {
        tokio::time::timeout(LIMIT, self.sessions.recv()).await.expect("no session came").unwrap()
    }

    pub async fn log(&mut self) -> wire::LogEntry {
        tokio::time::timeout(LIMIT, self.logs.recv()).await.expect("no log entry came").unwrap()
    }
}

/// Plain connections: TLS has its own tests.
pub fn managers() -> Managers {
    Managers::new(|manager| {
        Box::pin(async move {
            let endpoint = Endpoint::from_shared(format!("http://{manager}")).unwrap();
            let failed =
                |error: tonic::transport::Error| UnreachableError { manager, reason: error.to_string() };
            endpoint.connect().await.map_err(failed)
        })
    })
}

pub fn config(addresses: &[SocketAddr]) -> AgentConfig {
    let description = swarm_agent::describe(
        Some("node-1".to_owned()),
        Default::default(),
        std::net::Ipv4Addr::LOCALHOST,
        "test".to_owned(),
    );
    AgentConfig {
        cluster: CLUSTER,
        node: NODE,
        engine: description,
        managers: addresses.iter().map(ToString::to_string).collect(),
        parallelism: Parallelism::for_cpus(2),
    }
}

impl Session {
    /// The agent's next message. Heartbeats are answered.
    async fn receive(&mut self) -> FromAgent {
        let message = tokio::time::timeout(LIMIT, self.inbound.next()).await.expect("no message came");
        let message = message.expect("the session ended").unwrap().try_into().unwrap();
        if matches!(message, FromAgent::Message(AgentMessage::Heartbeat)) {
            self.send(ManagerMessage::Heartbeat { heartbeat_ms: 0 }).await;
        }
        message
    }

    pub async fn registration(&mut self) -> Registration {
        match self.receive().await {
            FromAgent::Registration(registration) => registration,
            FromAgent::Message(message) => panic!("{message:?} came first"),
        }
    }

    pub async fn message(&mut self) -> AgentMessage {
        match self.receive().await {
            FromAgent::Message(message) => message,
            FromAgent::Registration(_) => panic!("a second registration came"),
        }
    }

    /// The next status of `task` that is at least `state`.
    pub async fn status(&mut self, task: TaskId, state: TaskState) -> TaskStatus {
        loop {
            if let AgentMessage::Statuses(statuses) = self.message().await {
                let found = statuses.into_iter().find(|(of, status)| *of == task && status.state >= state);
                if let Some((_, status)) = found {
                    return status;
                }
            }
        }
    }

    pub async fn send(&self, message: ManagerMessage) {
        self.outbound.send(Ok((&message).into())).await.unwrap();
    }

    pub async fn welcome(&self, addresses: &[SocketAddr]) {
        let managers = addresses.iter().map(ToString::to_string).collect();
        let gateway_pool = "10.192.0.0/10".parse().unwrap();
        let welcome = Welcome {
            cluster: CLUSTER,
            node: NODE,
            index: 1,
            gateway_pool,
            heartbeat_ms: 1_000,
            role: swarm_model::NodeRole::Worker,
            managers,
        };
        self.send(ManagerMessage::Welcome(welcome)).await;
    }

    /// Assigns exactly these tasks.
    pub async fn assign(&mut self, upsert: Vec<Assignment>) {
        self.number += 1;
        let version = TableVersion { epoch: 1, number: self.number };
        let delta = AssignmentsDelta { base: None, version, upsert, remove: Vec::new() };
        self.send(ManagerMessage::Assignments(delta)).await;
    }

    pub async fn end(self, status: Status) {
        self.outbound.send(Err(status)).await.unwrap();
    }
}

#[tonic::async_trait]
impl Sessions for Service {
    type OpenStream = ReceiverStream<Result<wire::ManagerMessage, Status>>;

    async fn open(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let (outbound, messages) = mpsc::channel(64);
        // Numbers rise from session to session, as a leader's do.
        let micros = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let number = u64::try_from(micros).unwrap();
        let session = Session { inbound: request.into_inner(), outbound, number };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

#[tonic::async_trait]
impl Images for Service {
    type PullStream = BoxStream<'static, Result<wire::PullImageProgress, Status>>;
    type GetBlobStream = BoxStream<'static, Result<wire::BlobChunk, Status>>;

    async fn get_blob(
        &self,
        request: Request<wire::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        use std::io::Read;
        let digest = request.into_inner().digest.parse().unwrap();
        let content = self.content.as_ref().ok_or_else(|| Status::not_found("no images"))?;
        let mut file = content.open_blob(&digest).map_err(|error| Status::not_found(error.to_string()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let total_bytes = bytes.len() as u64;
        let chunks: Vec<_> = bytes
            .chunks(1 << 20)
            .map(|chunk| Ok(wire::BlobChunk { total_bytes, data: chunk.to_vec().into() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn load(
        &self,
        _: Request<Streaming<wire::LoadImageRequest>>,
    ) -> Result<Response<wire::LoadImageResponse>, Status> {
        Err(Status::unimplemented("not for agents"))
    }

    async fn pull(&self, _: Request<wire::PullImageRequest>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unimplemented("not for agents"))
    }

    async fn list(
        &self,
        _: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        Err(Status::unimplemented("not for agents"))
    }

    async fn remove(
        &self,
        _: Request<wire::RemoveImageRequest>,
    ) -> Result<Response<wire::RemoveImageResponse>, Status> {
        Err(Status::unimplemented("not for agents"))
    }
}

#[tonic::async_trait]
impl Logs for Service {
    type SubscribeStream = BoxStream<'static, Result<wire::LogEntry, Status>>;

    async fn subscribe(
        &self,
        _: Request<wire::SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("not for agents"))
    }

    async fn publish(
        &self,
        request: Request<Streaming<wire::PublishLogsRequest>>,
    ) -> Result<Response<wire::PublishLogsResponse>, Status> {
        let mut inbound = request.into_inner();
        while let Some(batch) = inbound.message().await? {
            for entry in batch.entries {
                self.logs.send(entry).await.map_err(|_| Status::cancelled("the test is over"))?;
            }
        }
        // Tells the test that the stream is complete.
        let end = wire::LogEntry { notice: "end".to_owned(), ..wire::LogEntry::default() };
        self.logs.send(end).await.map_err(|_| Status::cancelled("the test is over"))?;
        Ok(Response::new(wire::PublishLogsResponse {}))
    }
}
