//! Certificates, tokens and connections together, over real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use swarm_model::{ClusterId, NodeId, NodeRole};
use swarm_pki::{
    Authority, Caller, Credentials, Dialler, Expelled, JoinError, JoinRequest, JoinSecret, JoinToken,
    NodeIdentity, NodeKey, SigningRequest, accept_tls, join, server_config,
};
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_client::CertificateAuthorityClient;
use swarm_proto::v1::certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer};
use tonic::{Request, Response, Status};

struct Cluster {
    id: ClusterId,
    authority: Authority,
    token: JoinToken,
}

impl Cluster {
    fn new(id: u128) -> Self {
        let id = ClusterId::from_u128(id);
        let (authority, key) = Authority::generate(id, SystemTime::now()).unwrap();
        let reloaded = Authority::load(authority.root_pem(), &key).unwrap();
        let token = JoinToken { root: authority.root_digest(), secret: JoinSecret::generate() };
        Self { id, authority: reloaded, token }
    }

    fn member(&self, node: u128, role: NodeRole) -> Credentials {
        let key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&key.request().unwrap()).unwrap();
        let identity = NodeIdentity { node: NodeId::from_u128(node), role, cluster: self.id };
        let chain = self.authority.issue(&request, &identity, SystemTime::now()).unwrap();
        key.certified(&chain, self.authority.root_pem()).unwrap()
    }
}

/// Signs for whoever has the token; notes who called.
struct Door {
    cluster: Cluster,
    callers: Arc<Mutex<Vec<Caller>>>,
}

impl Door {
    fn note<T>(&self, request: &Request<T>) {
        self.callers.lock().unwrap().push(*request.extensions().get::<Caller>().expect("always there"));
    }
}

#[tonic::async_trait]
impl CertificateAuthority for Door {
    async fn get_root(
        &self,
        request: Request<v1::GetRootRequest>,
    ) -> Result<Response<v1::GetRootResponse>, Status> {
        self.note(&request);
        let root_certificate = self.cluster.authority.root_pem().to_owned();
        Ok(Response::new(v1::GetRootResponse { root_certificate, now: 0 }))
    }

    async fn issue_node_certificate(
        &self,
        request: Request<v1::IssueNodeCertificateRequest>,
    ) -> Result<Response<v1::IssueNodeCertificateResponse>, Status> {
        self.note(&request);
        let request = request.into_inner();
        let token: JoinToken = request.token.parse().map_err(|_| Status::invalid_argument("no token"))?;
        if !token.secret.matches(&self.cluster.token.secret) {
            return Err(Status::permission_denied("the join token is not valid"));
        }
        let csr = SigningRequest::parse(&request.csr).unwrap();
        let identity =
            NodeIdentity { node: NodeId::from_u128(7), role: NodeRole::Worker, cluster: self.cluster.id };
        Ok(Response::new(v1::IssueNodeCertificateResponse {
            node_id: identity.node.to_string(),
            role: v1::NodeRole::Worker as i32,
            certificate_chain: self.cluster.authority.issue(&csr, &identity, SystemTime::now()).unwrap(),
            cluster_id: self.cluster.id.to_string(),
            managers: vec!["10.0.0.1:2377".to_owned()],
            raft_id: 0,
        }))
    }

    /// Makes the node a manager.
    async fn renew_node_certificate(
        &self,
        request: Request<v1::RenewNodeCertificateRequest>,
    ) -> Result<Response<v1::IssueNodeCertificateResponse>, Status> {
        self.note(&request);
        let csr = SigningRequest::parse(&request.into_inner().csr).unwrap();
        let identity =
            NodeIdentity { node: NodeId::from_u128(7), role: NodeRole::Manager, cluster: self.cluster.id };
        Ok(Response::new(v1::IssueNodeCertificateResponse {
            node_id: identity.node.to_string(),
            role: v1::NodeRole::Manager as i32,
            certificate_chain: self.cluster.authority.issue(&csr, &identity, SystemTime::now()).unwrap(),
            cluster_id: self.cluster.id.to_string(),
            managers: vec!["10.0.0.1:2377".to_owned()],
            raft_id: 9,
        }))
    }
}

struct Server {
    address: String,
    token: JoinToken,
    callers: Arc<Mutex<Vec<Caller>>>,
}

async fn serve(cluster: Cluster, credentials: &Credentials) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = Arc::new(ArcSwap::new(server_config(credentials).unwrap()));
    let incoming = accept_tls(listener, config, cluster.id, Expelled::default());
    let (token, callers) = (cluster.token, Arc::default());
    let door = Door { cluster, callers: Arc::clone(&callers) };
    let router = tonic::transport::Server::builder().add_service(CertificateAuthorityServer::new(door));
    tokio::spawn(router.serve_with_incoming(incoming));
    Server { address, token, callers }
}

async fn manager(id: u128) -> Server {
    let cluster = Cluster::new(id);
    let credentials = cluster.member(1, NodeRole::Manager);
    serve(cluster, &credentials).await
}

fn request(token: JoinToken, managers: &[&str]) -> JoinRequest {
    JoinRequest {
        token,
        managers: managers.iter().map(|address| (*address).to_owned()).collect(),
        hostname: "node-7".to_owned(),
        data_address: "10.0.0.7".to_owned(),
        manager_address: String::new(),
    }
}

#[tokio::test]
async fn a_node_joins_with_the_token_and_is_known_by_its_certificate() {
    let server = manager(1).await;
    // The first address answers nothing: port 1 of the loopback.
    let joined = join(&request(server.token, &["127.0.0.1:1", &server.address])).await.unwrap();
    assert_eq!(joined.managers, ["10.0.0.1:2377"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.pem");
    assert!(Credentials::load(&path).unwrap().is_none());
    joined.credentials.save(&path).unwrap();
    joined.credentials.save(&path).unwrap();
    let kept = Credentials::load(&path).unwrap().unwrap();
    assert_eq!(kept.identity(), joined.credentials.identity());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let reversed = |text: &str| text.chars().rev().collect::<String>();
    let wrapped = folder.path().join("wrapped.pem");
    joined.credentials.save_wrapped(&wrapped, reversed).unwrap();
    assert!(!std::fs::read_to_string(&wrapped).unwrap().contains("BEGIN PRIVATE KEY"));
    assert!(Credentials::load(&wrapped).is_err());
    assert_eq!(Credentials::identity_in(&wrapped).unwrap().as_ref(), Some(kept.identity()));
    for either in [&wrapped, &path] {
        let again = Credentials::load_wrapped(either, |text| Some(reversed(text))).unwrap().unwrap();
        assert!(Dialler::new(&again).is_ok());
    }

    let channel = Dialler::new(&kept).unwrap().connect(&server.address).await.unwrap();
    CertificateAuthorityClient::new(channel).get_root(v1::GetRootRequest {}).await.unwrap();
    let callers = server.callers.lock().unwrap().clone();
    assert_eq!(callers, [Caller::Anyone, Caller::Anyone, Caller::Node(*kept.identity())]);
}

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_root_are_refused() {
    let server = manager(2).await;
    let wrong_secret = JoinToken { secret: JoinSecret::generate(), ..server.token };
    let refused = join(&request(wrong_secret, &[&server.address])).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refused { code: tonic::Code::PermissionDenied, .. }), "{refused}");

    let wrong_root = JoinToken { root: Cluster::new(2).token.root, ..server.token };
    let calls = server.callers.lock().unwrap().len();
    let refused = join(&request(wrong_root, &[&server.address])).await.unwrap_err();
    assert!(matches!(refused, JoinError::WrongRoot { .. }), "{refused}");
    assert_eq!(server.callers.lock().unwrap().len(), calls + 1, "the secret was sent to an unproven manager");

    let nobody = join(&request(server.token, &["127.0.0.1:1"])).await.unwrap_err();
    assert!(nobody.to_string().contains("127.0.0.1:1: Connection refused"), "{nobody}");
}

#[tokio::test]
async fn members_of_another_cluster_and_workers_posing_as_managers_are_refused() {
    let server = manager(3).await;
    let foreign = Dialler::new(&Cluster::new(3).member(9, NodeRole::Manager)).unwrap();
    assert!(foreign.connect(&server.address).await.is_err());

    let cluster = Cluster::new(4);
    let (worker, dialler) =
        (cluster.member(5, NodeRole::Worker), Dialler::new(&cluster.member(6, NodeRole::Worker)).unwrap());
    let posing = serve(cluster, &worker).await;
    assert!(dialler.connect(&posing.address).await.is_err());
}

#[tokio::test]
async fn a_manager_is_dialled_by_its_node_id() {
    let cluster = Cluster::new(5);
    let (first, worker) = (cluster.member(1, NodeRole::Manager), cluster.member(2, NodeRole::Worker));
    let server = serve(cluster, &first).await;
    let dialler = Dialler::new(&worker).unwrap();
    assert!(dialler.connect_to(NodeId::from_u128(1), &server.address).await.is_ok());
    assert!(dialler.connect_to(NodeId::from_u128(3), &server.address).await.is_err());
    assert!(dialler.connect("no port").await.is_err());
}

#[tokio::test]
async fn a_silent_caller_holds_up_nobody() {
    let server = manager(6).await;
    let _silent = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    join(&request(server.token, &[&server.address])).await.unwrap();
}

#[test]
fn signing_requests_are_checked() {
    assert!(SigningRequest::parse("nonsense").is_err());
    assert!(SigningRequest::parse(&"x".repeat(10_000)).is_err());
    let good = NodeKey::generate().unwrap().request().unwrap();
    let flipped = good.replace("MI", "MJ");
    assert!(SigningRequest::parse(&flipped).is_err());
    assert!(SigningRequest::parse(&good).is_ok());
}

#[tokio::test]
async fn a_member_renews_its_certificate_and_gets_its_role() {
    let server = manager(3).await;
    let joined = join(&request(server.token, &[&server.address])).await.unwrap();
    let managers = ["127.0.0.1:1".to_owned(), server.address.clone()];
    let renewed = swarm_pki::renew(&joined.credentials, &managers, "10.0.0.7:2377").await.unwrap();
    assert_eq!(renewed.raft_id, Some(9));
    let identity = renewed.credentials.identity();
    assert_eq!((identity.node, identity.role), (joined.credentials.identity().node, NodeRole::Manager));
}
