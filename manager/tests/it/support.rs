//! A manager in a temporary directory, an operator at its local socket, and agents.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_manager::keys::{Keyring, Opened};
use swarm_manager::{Bootstrap, Manager, ManagerConfig};
use swarm_model::{Availability, EngineDescription, Platform, Resources};
use swarm_pki::{Credentials, Dialler, JoinRequest, accept_local, join};
use swarm_proto::v1;
use swarm_proto::v1::sessions_client::SessionsClient;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Server, Uri};

/// For any state to be reached; far above what it takes.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub directory: TempDir,
    pub manager: Manager,
    pub credentials: Credentials,
    pub operator: Channel,
}

pub fn config(directory: &Path) -> ManagerConfig {
    ManagerConfig {
        directory: directory.join("manager"),
        listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        advertise: "manager.test:2377".to_owned(),
        raft_id: None,
        engine: engine("node-1"),
        insecure_registries: Vec::new(),
    }
}

/// Of a manager that ran there.
pub fn keyring(directory: &Path) -> Keyring {
    match Keyring::open(&directory.join("manager")).unwrap() {
        Opened::Unlocked(keyring) => keyring,
        Opened::Locked(_) => panic!("it is locked"),
    }
}

pub fn founding() -> Bootstrap {
    Bootstrap { gateway_pool: "10.192.0.0/10".parse().unwrap(), availability: Availability::Drain }
}

pub fn engine(hostname: &str) -> EngineDescription {
    EngineDescription {
        hostname: hostname.to_owned(),
        platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
        resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30 },
        labels: std::collections::BTreeMap::new(),
        data_address: "10.0.0.2".parse().unwrap(),
        version: "test".to_owned(),
    }
}

impl Cluster {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (manager, credentials) = Manager::bootstrap(config(directory.path()), founding()).await.unwrap();
        let operator = operator(&manager, &directory.path().join("local.sock")).await;
        Self { directory, manager, credentials, operator }
    }

    pub fn address(&self) -> String {
        self.manager.address().to_string()
    }

    pub async fn token(&self, role: v1::NodeRole) -> String {
        let request = v1::GetJoinTokenRequest { role: role as i32 };
        let mut clusters = v1::clusters_client::ClustersClient::new(self.operator.clone());
        clusters.get_join_token(request).await.unwrap().into_inner().token
    }

    pub async fn join(&self, hostname: &str) -> Credentials {
        let request = JoinRequest {
            token: self.token(v1::NodeRole::Worker).await.parse().unwrap(),
            managers: vec![self.address()],
            hostname: hostname.to_owned(),
            data_address: "10.0.0.3".to_owned(),
            manager_address: String::new(),
        };
        join(&request).await.unwrap().credentials
    }

    /// A node that joined and has its session.
    pub async fn agent(&self, hostname: &str) -> Agent {
        let credentials = self.join(hostname).await;
        Agent::open(&self.address(), credentials, hostname).await
    }

    pub fn services(&self) -> v1::services_client::ServicesClient<Channel> {
        v1::services_client::ServicesClient::new(self.operator.clone())
    }

    pub async fn service(&self, name: &str) -> v1::Service {
        let request = v1::GetServiceRequest { service: name.to_owned() };
        self.services().get(request).await.unwrap().into_inner()
    }
}

/// Serves the manager's local routes at `path`, and connects to them.
pub async fn operator(manager: &Manager, path: &Path) -> Channel {
    let incoming = accept_local(UnixListener::bind(path).unwrap());
    let router = Server::builder().add_routes(manager.local_routes());
    tokio::spawn(router.serve_with_incoming(incoming));
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://local").connect_with_connector(connector).await.unwrap()
}

/// Heartbeats, as long as the agent is there.
async fn beat(outgoing: mpsc::WeakSender<v1::AgentMessage>) {
    while let Some(outgoing) = outgoing.upgrade() {
        let heartbeat = v1::agent_message::Message::Heartbeat(v1::agent_message::Heartbeat {});
        let _ = outgoing.send(v1::AgentMessage { message: Some(heartbeat) }).await;
        drop(outgoing);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The agent's side of a session.
pub struct Agent {
    pub credentials: Credentials,
    pub channel: Channel,
    pub outgoing: mpsc::Sender<v1::AgentMessage>,
    pub incoming: Streaming<v1::ManagerMessage>,
}

impl Agent {
    pub async fn open(address: &str, credentials: Credentials, hostname: &str) -> Self {
        let channel = Dialler::new(&credentials).unwrap().connect(address).await.unwrap();
        let (outgoing, messages) = mpsc::channel(16);
        let registration = swarm_model::Registration { engine: engine(hostname), statuses: Vec::new() };
        outgoing.send((&registration).into()).await.unwrap();
        tokio::spawn(beat(outgoing.downgrade()));
        let mut client = SessionsClient::new(channel.clone());
        let incoming = client.open(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { credentials, channel, outgoing, incoming }
    }

    /// Waits for the first message that `pick` takes.
    pub async fn expect<T>(&mut self, pick: impl Fn(v1::manager_message::Message) -> Option<T>) -> T {
        let wait = async {
            loop {
                let message = self.incoming.message().await.unwrap().expect("the session goes on");
                if let Some(picked) = message.message.and_then(&pick) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("the message comes in time")
    }

    pub async fn expect_assignment(&mut self) -> v1::Assignment {
        self.expect(|message| match message {
            v1::manager_message::Message::Assignments(delta) => delta.upsert.into_iter().next(),
            _ => None,
        })
        .await
    }

    pub async fn report(&self, task_id: &str, state: v1::TaskState) {
        let status = v1::TaskStatus { state: state as i32, at: 1, ..v1::TaskStatus::default() };
        let reported = v1::ReportedStatus { task_id: task_id.to_owned(), status: Some(status) };
        let statuses = v1::agent_message::Statuses { statuses: vec![reported] };
        let message = Some(v1::agent_message::Message::Statuses(statuses));
        self.outgoing.send(v1::AgentMessage { message }).await.unwrap();
    }
}

pub fn spec(name: &str, image: &str, replicas: u32) -> v1::ServiceSpec {
    let image = v1::ImageRef { name: image.to_owned(), no_resolve: true, ..Default::default() };
    let container = v1::ContainerSpec { image: Some(image), ..Default::default() };
    let mode = v1::service_mode::Mode::Replicated(v1::service_mode::Replicated { replicas });
    v1::ServiceSpec {
        name: name.to_owned(),
        mode: Some(v1::ServiceMode { mode: Some(mode) }),
        task: Some(v1::TaskSpec { container: Some(container), ..Default::default() }),
        ..Default::default()
    }
}

pub fn create(spec: v1::ServiceSpec) -> v1::CreateServiceRequest {
    v1::CreateServiceRequest { spec: Some(spec), request_id: String::new() }
}

/// Repeats `look` until it finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(look: impl Fn() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the state is reached in time")
}
