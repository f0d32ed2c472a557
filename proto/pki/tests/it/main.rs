//! Certificates, tokens and connections together, over real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use swarm_model::{ClusterId, MAX_CERTIFICATE_LIFE as LIFE, NodeId, NodeRole};
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
    /// Its key, PEM.
    key: String,
    token: JoinToken,
}

impl Cluster {
    fn new(id: u128) -> Self {
        let id = ClusterId::from_u128(id);
        let (authority, key) = Authority::generate(id, SystemTime::now()).unwrap();
        let reloaded = Authority::load(authority.root_pem(), &key).unwrap();
        let token = JoinToken { root: authority.root_digest(), secret: JoinSecret::generate() };
        Self { id, authority: reloaded, key, token }
    }

    fn reloaded(&self) -> Authority {
        Authority::load(self.authority.root_pem(), &self.key).unwrap()
    }

    fn member(&self, node: u128, role: NodeRole) -> Credentials {
        let key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&key.request().unwrap()).unwrap();
        let identity = NodeIdentity { node: NodeId::from_u128(node), role, cluster: self.id };
        let chain = self.authority.issue(&request, &identity, SystemTime::now(), LIFE).unwrap();
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
        Ok(Response::new(v1::GetRootResponse { root_certificate, now: 0, root_certificates: String::new() }))
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
            certificate_chain: self
                .cluster
                .authority
                .issue(&csr, &identity, SystemTime::now(), LIFE)
                .unwrap(),
            cluster_id: self.cluster.id.to_string(),
            managers: vec!["10.0.0.1:2377".to_owned()],
            raft_id: 0,
            root_certificates: self.cluster.authority.root_pem().to_owned(),
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
            certificate_chain: self
                .cluster
                .authority
                .issue(&csr, &identity, SystemTime::now(), LIFE)
                .unwrap(),
            cluster_id: self.cluster.id.to_string(),
            managers: vec!["10.0.0.1:2377".to_owned()],
            raft_id: 9,
            root_certificates: self.cluster.authority.root_pem().to_owned(),
        }))
    }

    async fn issue_operator_certificate(
        &self,
        _: Request<v1::IssueOperatorCertificateRequest>,
    ) -> Result<Response<v1::IssueOperatorCertificateResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn renew_operator_certificate(
        &self,
        _: Request<v1::RenewOperatorCertificateRequest>,
    ) -> Result<Response<v1::IssueOperatorCertificateResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
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

/// Whether somebody with the one's credentials comes through to a manager with the other's, and is believed.
async fn reaches(caller: &Credentials, manager: &Credentials, cluster: &Cluster) -> bool {
    let door = Cluster {
        id: cluster.id,
        authority: cluster.reloaded(),
        key: cluster.key.clone(),
        token: cluster.token,
    };
    let server = serve(door, manager).await;
    let Ok(channel) = Dialler::new(caller).unwrap().connect(&server.address).await else { return false };
    let called = CertificateAuthorityClient::new(channel).get_root(v1::GetRootRequest {}).await;
    called.is_ok() && *server.callers.lock().unwrap() == [Caller::Node(*caller.identity())]
}

#[tokio::test]
async fn while_a_root_is_replaced_everybody_believes_everybody_and_afterwards_the_old_one_is_refused() {
    let cluster = Cluster::new(8);
    let now = SystemTime::now();
    let (new, key) = Authority::generate(cluster.id, now).unwrap();
    let cross_signed = cluster.authority.cross_sign(&new, cluster.id, now).unwrap();
    let issuer = Authority::load(new.root_pem(), &key).unwrap().vouched_for(cross_signed);
    let (old_root, both) = (
        cluster.authority.root_pem().to_owned(),
        format!("{}{}", cluster.authority.root_pem(), new.root_pem()),
    );
    let next = Cluster { id: cluster.id, authority: issuer, key, token: cluster.token };
    let certified =
        |by: &Cluster, node, roots: &str| by.member(node, NodeRole::Manager).trusting(roots).unwrap();
    // Has not heard of it; has; has renewed; and has renewed while nobody told it of the new root.
    let members = [
        certified(&cluster, 1, &old_root),
        certified(&cluster, 2, &both),
        certified(&next, 3, &both),
        certified(&next, 4, &old_root),
    ];
    let root = |authority: &Authority| authority.root_digest();
    assert_eq!(members[1].issued_by().unwrap(), Some(root(&cluster.authority)));
    assert_eq!(members[1].issuing_root().unwrap(), root(&new));
    assert_eq!(members[2].issued_by().unwrap(), Some(root(&new)));
    assert_eq!(members[3].issued_by().unwrap(), None);
    for caller in &members {
        for manager in &members {
            assert!(reaches(caller, manager, &cluster).await, "{caller:?} at {manager:?}");
        }
    }
    let after = certified(&next, 5, new.root_pem());
    assert!(reaches(&members[2], &after, &cluster).await && reaches(&after, &members[2], &cluster).await);
    for old in &members[..2] {
        assert!(!reaches(old, &after, &cluster).await && !reaches(&after, old, &cluster).await);
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.pem");
    members[2].save(&path).unwrap();
    // As often as it is written, it stays the same.
    let written = std::fs::read(&path).unwrap();
    Credentials::load(&path).unwrap().unwrap().save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), written);
    let kept = Credentials::load(&path).unwrap().unwrap();
    assert_eq!((kept.roots_pem(), kept.issued_by().unwrap()), (both.as_str(), Some(root(&new))));
    assert!(reaches(&kept, &members[0], &cluster).await);
    assert!(kept.trusting("").is_err() && kept.trusting(&format!("{both}{both}")).is_err());
}

#[test]
fn a_short_lived_certificate_says_when_it_was_made() {
    let cluster = Cluster::new(9);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for seconds in [10, 3_599, 3_600, 7_200, 86_400] {
        let key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&key.request().unwrap()).unwrap();
        let identity =
            NodeIdentity { node: NodeId::from_u128(1), role: NodeRole::Worker, cluster: cluster.id };
        let life = Duration::from_secs(seconds);
        let chain = cluster.authority.issue(&request, &identity, now, life).unwrap();
        let credentials = key.certified(&chain, cluster.authority.root_pem()).unwrap();
        assert_eq!(credentials.made_at().unwrap(), now, "{seconds}");
        assert_eq!(credentials.validity().unwrap().1, now + life);
    }
}
