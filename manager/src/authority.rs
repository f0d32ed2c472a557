//! Admission of nodes: who shows a valid join token becomes a member and gets its certificate.
//!
//! A node's id comes of its public key, so a join that is repeated with the same key is the same node.

mod operators;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::SystemTime;

use swarm_manager_core::api::{ApiError, ClusterView, NewNode, Request, Response};
use swarm_model::{
    Actor, Cluster, EngineDescription, JoinSecrets, Node, NodeId, NodeRole, Platform, Resources,
    RootRotation, Timestamp,
};
use swarm_pki::{
    Authority, AuthorityError, FormerError, JoinSecret, JoinToken, NodeIdentity, SigningRequest,
    former_member,
};

use crate::engine::Engine;
pub use operators::Grant;

/// As in DNS.
const MAX_HOSTNAME_BYTES: usize = 253;

/// Signs with the cluster's root, which it takes from the replicated state each time, so that there is one truth.
#[derive(Clone)]
pub struct ClusterAuthority {
    engine: Engine,
}

/// What a joining node says about itself.
#[derive(Debug)]
pub struct Candidate {
    /// PKCS#10, PEM.
    pub request: String,
    pub token: String,
    pub hostname: String,
    pub data_address: String,
    /// Where it will answer, if it becomes a manager.
    pub manager_address: String,
    /// Of a member that comes back after its certificate expired; else empty. PEM.
    pub expired_certificate: String,
}

/// A new member's certificate.
#[derive(Debug)]
pub struct Admission {
    pub identity: NodeIdentity,
    /// PEM, leaf first.
    pub certificate_chain: String,
    /// To be believed, PEM.
    pub root_certificates: String,
    pub managers: Vec<String>,
    /// Of a manager.
    pub raft_id: Option<u64>,
}

/// Why a node was not admitted; for its operator. It never repeats the token.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error("the operator token is malformed: {0}")]
    OperatorToken(swarm_pki::ParseOperatorTokenError),
    #[error("the join token is malformed: {0}")]
    Token(swarm_pki::ParseTokenError),
    #[error(
        "the join token is not valid here: it was rotated, or is of another cluster; `swarmctl cluster join-token \
         worker` on a manager prints the current one"
    )]
    Refused,
    #[error("node {0} is no member of this cluster any more")]
    Stranger(NodeId),
    #[error("the expired certificate proves no member of this cluster")]
    Former(#[source] FormerError),
    #[error(
        "this node is a manager, and the token is for workers; `swarmctl cluster join-token manager` prints the one it \
         needs"
    )]
    TokenOfWorker,
    #[error("this manager was demoted, and the others still have to take it out; ask again in a moment")]
    Leaving,
    #[error("{what} {value:?} is not valid")]
    Description { what: &'static str, value: String },
    #[error("the signing request was refused")]
    Request(#[source] AuthorityError),
    #[error("the cluster's certificate authority failed")]
    Authority(#[source] AuthorityError),
    #[error("the cluster's stored join secrets cannot be read")]
    Stored,
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClusterAuthority {
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Begins to replace the root: the new one issues from now on, and takes over once every node has a certificate of it.
    ///
    /// # Errors
    /// The manager cannot write, or the cluster changed at the same moment.
    pub async fn rotate(&self, by: Option<Actor>) -> Result<ClusterView, AdmissionError> {
        let cluster = self.cluster().await?;
        let old = load(&cluster)?;
        let now = SystemTime::now();
        let (new, root_key) = Authority::generate(cluster.id, now).map_err(AdmissionError::Authority)?;
        let cross_signed = old.cross_sign(&new, cluster.id, now).map_err(AdmissionError::Authority)?;
        let rotation = RootRotation {
            started_at: Timestamp::ZERO,
            root_certificate: new.root_pem().to_owned(),
            root_key,
            cross_signed,
            root_digest: new.root_digest().to_string(),
            join: JoinSecrets {
                worker: JoinSecret::generate().reveal(),
                manager: JoinSecret::generate().reveal(),
            },
        };
        let request = Request::RotateRoot { base: cluster.version, rotation: Box::new(rotation) };
        match self.engine.request_by(by, request).await? {
            Response::Cluster(view) => Ok(view),
            other => unreachable!("RotateRoot is answered by a cluster, not by {other:?}"),
        }
    }

    /// The root certificate that join tokens pin, and all that are to be believed, PEM.
    ///
    /// # Errors
    /// The manager cannot answer.
    pub async fn roots(&self) -> Result<(String, String), AdmissionError> {
        let cluster = self.cluster().await?;
        Ok((cluster.root_certificate.clone(), cluster.roots()))
    }

    /// The current token for nodes of `role`.
    ///
    /// # Errors
    /// The manager cannot answer.
    pub async fn join_token(&self, role: NodeRole) -> Result<JoinToken, AdmissionError> {
        let cluster = self.cluster().await?;
        let root = load(&cluster)?.root_digest();
        Ok(JoinToken { root, secret: secret(&cluster, role)? })
    }

    /// `host:port` of the managers, as this one knows them: to ask the core for all nodes would cost it more than the rest
    /// of a join.
    pub fn managers(&self) -> Vec<String> {
        self.engine.members().borrow().iter().map(|member| member.address.clone()).collect()
    }

    /// Makes the candidate a member.
    ///
    /// # Errors
    /// The token or the request is refused, or the manager cannot write.
    pub async fn admit(&self, candidate: Candidate) -> Result<Admission, AdmissionError> {
        let token: JoinToken = candidate.token.parse().map_err(AdmissionError::Token)?;
        let cluster = self.cluster().await?;
        let authority = load(&cluster)?;
        let role = self.role_of(&token, &cluster, &authority)?;
        let request = SigningRequest::parse(&candidate.request).map_err(AdmissionError::Request)?;
        if !candidate.expired_certificate.is_empty() {
            return self.take_back(&cluster, role, &request, candidate).await;
        }
        let node = NewNode::id_of_key(&request.key_digest());
        self.enter(node, role, candidate).await?;
        let member = self.member(node).await?;
        self.certify(&request, &cluster, &member, role)
    }

    /// A member whose certificate expired while it was off: it proves the key of that certificate, and has a token that is
    /// as good as what it is.
    async fn take_back(
        &self,
        cluster: &Cluster,
        token: NodeRole,
        request: &SigningRequest,
        candidate: Candidate,
    ) -> Result<Admission, AdmissionError> {
        let former = former_member(&candidate.expired_certificate, request, &cluster.roots());
        let former = former.map_err(AdmissionError::Former)?;
        if former.cluster != cluster.id || self.engine.removed().borrow().get(former.node).is_some() {
            return Err(AdmissionError::Stranger(former.node));
        }
        let member = self.member(former.node).await?;
        if (member.acting_role(), token) == (NodeRole::Manager, NodeRole::Worker) {
            return Err(AdmissionError::TokenOfWorker);
        }
        let member = self.seated(member, candidate.manager_address).await?;
        let role = member.spec.role;
        self.certify(request, cluster, &member, role)
    }

    /// A certificate for this manager itself, from what it knows without asking the others: its own expired, so that they
    /// do not listen, and all of theirs may have, too. Whoever removed it meanwhile refuses it all the same.
    ///
    /// # Errors
    /// It is no manager, as far as it knows.
    pub async fn renew_own(&self, node: NodeId, request: &str) -> Result<Admission, AdmissionError> {
        let request = SigningRequest::parse(request).map_err(AdmissionError::Request)?;
        let peek = async |what| self.engine.request(Request::Peek(Box::new(what))).await;
        let cluster = match peek(Request::GetClusterSecrets).await? {
            Response::Secrets(cluster) => cluster,
            other => unreachable!("GetClusterSecrets is answered by secrets, not by {other:?}"),
        };
        let member = match peek(Request::GetMember { node }).await {
            Ok(Response::Member(member)) if member.raft_id.is_some() => member,
            Ok(_) | Err(ApiError::NotFound { .. }) => return Err(AdmissionError::Stranger(node)),
            Err(error) => return Err(error.into()),
        };
        self.certify(&request, &cluster, &member, NodeRole::Manager)
    }

    /// Signs a new key of the member `node`, with the role that it has now.
    ///
    /// # Errors
    /// It is no member, its request is refused, or the manager cannot write.
    pub async fn renew(
        &self,
        node: NodeId,
        request: &str,
        manager_address: String,
    ) -> Result<Admission, AdmissionError> {
        let cluster = self.cluster().await?;
        let request = SigningRequest::parse(request).map_err(AdmissionError::Request)?;
        let member = self.seated(self.member(node).await?, manager_address).await?;
        let role = member.spec.role;
        self.certify(&request, &cluster, &member, role)
    }

    /// As the member is to be from its next certificate on: a promoted one gets its place among the managers.
    async fn seated(&self, member: Arc<Node>, manager_address: String) -> Result<Arc<Node>, AdmissionError> {
        match (member.spec.role, member.raft_id) {
            (NodeRole::Worker, Some(_)) => Err(AdmissionError::Leaving),
            (NodeRole::Worker, None) | (NodeRole::Manager, Some(_)) => Ok(member),
            (NodeRole::Manager, None) => {
                let (node, address) = (member.id, checked_address(manager_address)?);
                match self.engine.request(Request::SeatManager { node, address }).await? {
                    Response::Member(member) => Ok(member),
                    other => unreachable!("SeatManager is answered by a member, not by {other:?}"),
                }
            }
        }
    }

    fn certify(
        &self,
        request: &SigningRequest,
        cluster: &Cluster,
        member: &Node,
        role: NodeRole,
    ) -> Result<Admission, AdmissionError> {
        let identity = NodeIdentity { node: member.id, role, cluster: cluster.id };
        let issuer = load_issuer(cluster)?;
        let chain = issuer.issue(request, &identity, SystemTime::now(), cluster.certificate_life);
        Ok(Admission {
            identity,
            certificate_chain: chain.map_err(AdmissionError::Authority)?,
            root_certificates: cluster.roots(),
            managers: self.managers(),
            raft_id: member.raft_id,
        })
    }

    async fn member(&self, node: NodeId) -> Result<Arc<Node>, AdmissionError> {
        match self.engine.request(Request::GetMember { node }).await {
            Ok(Response::Member(member)) => Ok(member),
            Err(ApiError::NotFound { .. }) => Err(AdmissionError::Stranger(node)),
            Err(error) => Err(error.into()),
            Ok(other) => unreachable!("GetMember is answered by a member, not by {other:?}"),
        }
    }

    /// Both secrets are compared whatever the first comparison says, each in constant time.
    fn role_of(
        &self,
        token: &JoinToken,
        cluster: &Cluster,
        authority: &Authority,
    ) -> Result<NodeRole, AdmissionError> {
        let worker = token.secret.matches(&secret(cluster, NodeRole::Worker)?);
        let manager = token.secret.matches(&secret(cluster, NodeRole::Manager)?);
        match (token.root == authority.root_digest(), worker, manager) {
            (true, true, _) => Ok(NodeRole::Worker),
            (true, false, true) => Ok(NodeRole::Manager),
            (true, false, false) | (false, _, _) => Err(AdmissionError::Refused),
        }
    }

    async fn enter(&self, id: NodeId, role: NodeRole, candidate: Candidate) -> Result<(), AdmissionError> {
        let refuse = |what, value: &str| AdmissionError::Description {
            what,
            value: value.chars().take(MAX_HOSTNAME_BYTES).collect(),
        };
        let hostname = candidate.hostname;
        let clean = |byte: u8| byte.is_ascii_graphic();
        if hostname.is_empty() || hostname.len() > MAX_HOSTNAME_BYTES || !hostname.bytes().all(clean) {
            return Err(refuse("host name", &hostname));
        }
        let data_address = candidate.data_address.parse();
        let engine = EngineDescription {
            hostname,
            // The rest comes with its first session.
            platform: Platform { os: "linux".to_owned(), arch: String::new() },
            resources: Resources::default(),
            labels: std::collections::BTreeMap::new(),
            data_address: data_address.map_err(|_| refuse("data address", &candidate.data_address))?,
            version: String::new(),
        };
        let manager_address = match role {
            NodeRole::Worker => None,
            NodeRole::Manager => Some(checked_address(candidate.manager_address)?),
        };
        let node = NewNode { id, role, engine, manager_address };
        self.engine.request(Request::AdmitNode(node)).await?;
        Ok(())
    }

    async fn cluster(&self) -> Result<Arc<Cluster>, AdmissionError> {
        match self.engine.request(Request::GetClusterSecrets).await? {
            Response::Secrets(cluster) => Ok(cluster),
            other => unreachable!("GetClusterSecrets is answered by secrets, not by {other:?}"),
        }
    }
}

/// `host:port`, as a manager says of itself. Other managers will dial it.
fn checked_address(address: String) -> Result<String, AdmissionError> {
    match address.parse::<SocketAddrV4>() {
        Ok(parsed) if !parsed.ip().is_unspecified() && parsed.port() != 0 => Ok(address),
        Ok(_) | Err(_) => Err(AdmissionError::Description {
            what: "manager address",
            value: address.chars().take(MAX_HOSTNAME_BYTES).collect(),
        }),
    }
}

/// Who issues: the root to come, while there is one.
fn load_issuer(cluster: &Cluster) -> Result<Authority, AdmissionError> {
    match &cluster.rotation {
        None => load(cluster),
        Some(rotation) => {
            let next = Authority::load(&rotation.root_certificate, &rotation.root_key);
            Ok(next.map_err(AdmissionError::Authority)?.vouched_for(rotation.cross_signed.clone()))
        }
    }
}

fn load(cluster: &Cluster) -> Result<Authority, AdmissionError> {
    Authority::load(&cluster.root_certificate, &cluster.root_key).map_err(AdmissionError::Authority)
}

fn secret(cluster: &Cluster, role: NodeRole) -> Result<JoinSecret, AdmissionError> {
    let stored = match role {
        NodeRole::Worker => &cluster.join.worker,
        NodeRole::Manager => &cluster.join.manager,
    };
    stored.parse().map_err(|_| AdmissionError::Stored)
}
