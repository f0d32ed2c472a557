//! Who may call what. Every call of every service is in one table; what is not in it is refused.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use swarm_manager_core::door::{Operators, RemovedNodes};
use swarm_model::{Actor, NodeRole, OperatorRole};
use swarm_pki::{Caller, OperatorIdentity};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::forward;
use super::status::refuse_removed;

/// Kinds of callers that a call is open to. Root of the manager's own node, over its local socket, is an admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Root of the manager's own node.
    Root,
    /// Operators of every role: to look, to watch, to read logs.
    Readers,
    /// Operators who may change services, tasks and images.
    Deployers,
    /// Operators who may change everything.
    Admins,
    /// Managers of the cluster.
    Managers,
    /// Members of the cluster, managers among them.
    Nodes,
    /// Everybody who can reach the port: a node that joins has no certificate yet.
    Everyone,
}

use Audience::{Admins, Deployers, Everyone, Managers, Nodes, Readers, Root};

/// By path of the call, in order.
pub const TABLE: &[(&str, Audience)] = &[
    ("/swarm.v1.CertificateAuthority/GetRoot", Everyone),
    ("/swarm.v1.CertificateAuthority/IssueNodeCertificate", Everyone),
    ("/swarm.v1.CertificateAuthority/IssueOperatorCertificate", Everyone),
    ("/swarm.v1.CertificateAuthority/RenewNodeCertificate", Nodes),
    ("/swarm.v1.CertificateAuthority/RenewOperatorCertificate", Readers),
    ("/swarm.v1.Clusters/Backup", Admins),
    ("/swarm.v1.Clusters/Get", Readers),
    ("/swarm.v1.Clusters/GetJoinToken", Admins),
    ("/swarm.v1.Clusters/GetUnlockKey", Admins),
    ("/swarm.v1.Clusters/RotateJoinToken", Admins),
    ("/swarm.v1.Clusters/RotateRoot", Admins),
    ("/swarm.v1.Clusters/RotateUnlockKey", Admins),
    ("/swarm.v1.Clusters/SetAutolock", Admins),
    ("/swarm.v1.Clusters/SetCertificateLife", Admins),
    ("/swarm.v1.Events/Subscribe", Readers),
    ("/swarm.v1.Images/GetBlob", Nodes),
    ("/swarm.v1.Images/List", Readers),
    ("/swarm.v1.Images/Load", Deployers),
    ("/swarm.v1.Images/Pull", Deployers),
    ("/swarm.v1.Images/Remove", Deployers),
    ("/swarm.v1.Local/Examine", Root),
    ("/swarm.v1.Local/Init", Root),
    ("/swarm.v1.Local/Join", Root),
    ("/swarm.v1.Local/Leave", Root),
    ("/swarm.v1.Local/Recover", Root),
    ("/swarm.v1.Local/Renew", Root),
    ("/swarm.v1.Local/Restore", Root),
    ("/swarm.v1.Local/Status", Root),
    ("/swarm.v1.Local/Unlock", Root),
    ("/swarm.v1.Logs/Publish", Nodes),
    ("/swarm.v1.Logs/Subscribe", Readers),
    ("/swarm.v1.Nodes/Get", Readers),
    ("/swarm.v1.Nodes/List", Readers),
    ("/swarm.v1.Nodes/Remove", Admins),
    ("/swarm.v1.Nodes/Update", Admins),
    ("/swarm.v1.Operators/Invite", Admins),
    ("/swarm.v1.Operators/List", Admins),
    ("/swarm.v1.Operators/Remove", Admins),
    ("/swarm.v1.Raft/Send", Managers),
    ("/swarm.v1.Services/Create", Deployers),
    ("/swarm.v1.Services/Get", Readers),
    ("/swarm.v1.Services/List", Readers),
    ("/swarm.v1.Services/Remove", Deployers),
    ("/swarm.v1.Services/Rollback", Deployers),
    ("/swarm.v1.Services/Update", Deployers),
    ("/swarm.v1.Sessions/Open", Nodes),
    ("/swarm.v1.Tasks/Get", Readers),
    ("/swarm.v1.Tasks/List", Readers),
    ("/swarm.v1.Watch/Watch", Readers),
];

impl Audience {
    pub fn includes(self, caller: Caller) -> bool {
        match (self.least_role(), caller) {
            (_, Caller::Root) => self != Managers && self != Nodes,
            (Some(least), Caller::Operator(operator)) => operator.role >= least,
            (None, Caller::Operator(_) | Caller::Anyone) => self == Everyone,
            (None, Caller::Node(node)) => match self {
                Everyone | Nodes => true,
                Managers => node.role == NodeRole::Manager,
                Root | Readers | Deployers | Admins => false,
            },
            (Some(_), Caller::Node(_) | Caller::Anyone) => false,
        }
    }

    /// Of operators, where it is for some of them.
    fn least_role(self) -> Option<OperatorRole> {
        match self {
            Readers => Some(OperatorRole::ReadOnly),
            Deployers => Some(OperatorRole::Deployer),
            Admins => Some(OperatorRole::Admin),
            Root | Managers | Nodes | Everyone => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Root => "root of the node itself, over its local socket",
            Readers => "operators",
            Deployers => "operators with the role deployer or admin",
            Admins => "operators with the role admin",
            Managers => "managers of the cluster",
            Nodes => "members of the cluster",
            Everyone => "everyone",
        }
    }
}

/// # Errors
/// PERMISSION_DENIED where the table does not let `caller` in; it says who they are, and whom the call is for.
fn check(path: &str, caller: Option<Caller>, actor: Option<&Actor>) -> Result<(), Status> {
    let known = TABLE.binary_search_by_key(&path, |(known, _)| known);
    let audience = known.ok().map(|at| TABLE[at].1);
    let refuse = |audience: &str| {
        let call = path.strip_prefix("/swarm.v1.").unwrap_or(path).replacen('/', ".", 1);
        let who = actor.map_or_else(String::new, |actor| format!("you are {actor}; "));
        Err(Status::permission_denied(format!("{who}{call} is for {audience}")))
    };
    match (audience, caller) {
        (Some(audience), Some(caller)) if audience.includes(caller) => Ok(()),
        (Some(audience), _) => refuse(audience.name()),
        (None, _) => refuse("nobody"),
    }
}

/// A service behind the table.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    service: S,
    gate: Gate,
}

/// What is asked of every call before it is let in.
#[derive(Debug, Clone)]
pub struct Gate {
    pub door: Door,
    /// Of this manager's node, for what its root does.
    pub hostname: Arc<str>,
    pub removed: watch::Receiver<RemovedNodes>,
    pub operators: watch::Receiver<Operators>,
}

/// Where calls come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The TLS port: callers are whom their certificates prove.
    Network,
    /// The node's local socket, which only root can open: every caller is root.
    Local,
}

impl<S> Guarded<S> {
    pub fn new(service: S, gate: Gate) -> Self {
        Self { service, gate }
    }
}

impl Gate {
    /// # Errors
    /// PERMISSION_DENIED where the caller is a node or an operator that was removed, or where the table does not let it
    /// in. Of a call that is forwarded, the manager that forwards it and whoever it speaks for are both looked at.
    fn admit(&self, request: &mut Request<Body>) -> Result<(), Status> {
        let caller = |request: &Request<Body>| request.extensions().get::<Caller>().copied();
        self.check_member(caller(request))?;
        if self.door == Door::Local {
            request.extensions_mut().insert(forward::root_of(&self.hostname));
        }
        forward::unwrap(request);
        let caller = caller(request);
        self.check_member(caller)?;
        if let Some(Caller::Operator(identity)) = caller {
            request.extensions_mut().insert(self.actor(identity));
        }
        check(request.uri().path(), caller, request.extensions().get())
    }

    /// # Errors
    /// PERMISSION_DENIED for who was removed: a certificate outlives its membership. For nodes, the time of the removal
    /// is in the trailer.
    fn check_member(&self, caller: Option<Caller>) -> Result<(), Status> {
        match caller {
            Some(Caller::Node(identity)) => match self.removed.borrow().get(identity.node) {
                Some(record) => Err(refuse_removed(identity.node, record.at)),
                None => Ok(()),
            },
            Some(Caller::Operator(identity)) => match self.operators.borrow().removal(identity.operator) {
                Some(record) => Err(Status::permission_denied(format!(
                    "the operator {} was removed by {}; an admin can make a new token with `swarmctl cluster \
                     operator-token`",
                    record.name, record.by
                ))),
                None => Ok(()),
            },
            Some(Caller::Root | Caller::Anyone) | None => Ok(()),
        }
    }

    /// A manager that has not applied the enrolment yet does not know the name.
    fn actor(&self, identity: OperatorIdentity) -> Actor {
        let operators = self.operators.borrow();
        let account = operators.account(identity.operator);
        let name = account.map_or_else(|| identity.operator.to_string(), |account| account.name.clone());
        Actor { name, role: identity.role }
    }
}

/// On whose behalf a call is made, for what it changes.
pub fn actor<T>(request: &tonic::Request<T>) -> Option<Actor> {
    request.extensions().get().cloned()
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if self.gate.door == Door::Local {
            request.extensions_mut().insert(Caller::Root);
        }
        match self.gate.admit(&mut request) {
            Ok(()) => Either::Left(self.service.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prost::Message;
    use swarm_model::{ClusterId, NodeId, OperatorId, RemovedNode, Timestamp};
    use swarm_pki::NodeIdentity;

    use super::*;

    fn node(role: NodeRole) -> Caller {
        let (node, cluster) = (NodeId::from_u128(1), ClusterId::from_u128(2));
        Caller::Node(NodeIdentity { node, role, cluster })
    }

    fn operator(role: OperatorRole) -> Caller {
        let (operator, cluster) = (OperatorId::from_u128(3), ClusterId::from_u128(2));
        Caller::Operator(OperatorIdentity { operator, role, cluster })
    }

    #[test]
    fn each_role_may_what_those_before_it_may() {
        let allowed = |role| {
            let paths = TABLE.iter().filter(|(path, _)| check(path, Some(operator(role)), None).is_ok());
            paths.map(|(path, _)| *path).collect::<Vec<_>>()
        };
        let roles = OperatorRole::ALL.map(allowed);
        assert!(roles.is_sorted_by(|less, more| less.iter().all(|path| more.contains(path))));
        let may = |role: usize, path: &str| roles[role].iter().any(|allowed| allowed.ends_with(path));
        assert!(may(0, "Services/List") && may(0, "Logs/Subscribe") && !may(0, "Services/Create"));
        assert!(may(1, "Services/Create") && may(1, "Images/Load"));
        assert!(!may(1, "Nodes/Update") && !may(1, "Clusters/GetJoinToken") && !may(1, "Operators/Invite"));
        assert!(may(2, "Nodes/Update") && may(2, "Operators/Invite"));
        assert!(!may(2, "Local/Leave") && !may(2, "Raft/Send") && !may(2, "Sessions/Open"));
        let actor = Actor { name: "alice".to_owned(), role: OperatorRole::ReadOnly };
        let refused =
            check("/swarm.v1.Services/Create", Some(operator(actor.role)), Some(&actor)).unwrap_err();
        assert_eq!(
            refused.message(),
            "you are alice (read-only); Services.Create is for operators with the role deployer or admin"
        );
    }

    #[test]
    fn every_call_of_the_protocol_is_in_the_table_and_nothing_else() {
        let set = prost_types::FileDescriptorSet::decode(swarm_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut calls: Vec<String> = Vec::new();
        for file in &set.file {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                calls.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
        calls.sort();
        let table: Vec<&str> = TABLE.iter().map(|(path, _)| *path).collect();
        assert!(table.is_sorted(), "the table is in order");
        assert_eq!(table, calls);
    }

    #[test]
    fn what_is_not_in_the_table_is_for_nobody() {
        for caller in [None, Some(Caller::Root), Some(node(NodeRole::Manager)), Some(Caller::Anyone)] {
            assert!(check("/swarm.v1.Services/Burn", caller, None).is_err());
            assert!(check("", caller, None).is_err());
        }
        assert!(check("/swarm.v1.CertificateAuthority/GetRoot", None, None).is_err());
    }

    #[test]
    fn callers_get_exactly_what_is_theirs() {
        let allowed = |caller| {
            let paths = TABLE.iter().filter(|(path, _)| check(path, Some(caller), None).is_ok());
            paths.map(|(path, _)| *path).collect::<Vec<_>>()
        };
        let everyone = [
            "/swarm.v1.CertificateAuthority/GetRoot",
            "/swarm.v1.CertificateAuthority/IssueNodeCertificate",
            "/swarm.v1.CertificateAuthority/IssueOperatorCertificate",
        ];
        assert_eq!(allowed(Caller::Anyone), everyone);
        let of_nodes = [
            "/swarm.v1.CertificateAuthority/RenewNodeCertificate",
            "/swarm.v1.Images/GetBlob",
            "/swarm.v1.Logs/Publish",
            "/swarm.v1.Sessions/Open",
        ];
        assert_eq!(allowed(node(NodeRole::Worker)), [&everyone[..], &of_nodes].concat());
        let of_managers = [&everyone[..], &of_nodes[..3], &["/swarm.v1.Raft/Send"], &of_nodes[3..]].concat();
        assert_eq!(allowed(node(NodeRole::Manager)), of_managers);
        assert!(!allowed(Caller::Root).contains(&"/swarm.v1.Sessions/Open"));
        assert!(allowed(Caller::Root).contains(&"/swarm.v1.Services/Create"));
    }

    /// A service behind the door that answers whatever comes through.
    fn answer_of(
        path: &str,
        door: Door,
        caller: Option<Caller>,
        stated: Option<&str>,
    ) -> Option<tonic::Code> {
        let removed = RemovedNode::new(Timestamp::from_micros(7));
        let (_, removed) = watch::channel([(NodeId::from_u128(9), removed)].into_iter().collect());
        let through = tower::service_fn(|_: Request<Body>| ready(Ok(Response::new(Body::empty()))));
        let (_, operators) = watch::channel(Operators::default());
        let gate = Gate { door, hostname: "node-1".into(), removed, operators };
        let mut guarded = Guarded::new(through, gate);
        let mut request = Request::builder().uri(path);
        if let Some(stated) = stated {
            request = request.header("swarm-caller", stated);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().extend(
            caller
                .map(|caller| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(caller);
                    extensions
                })
                .unwrap_or_default(),
        );
        let response = guarded.call(request).now_or_never().unwrap().unwrap();
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    fn removed(role: NodeRole) -> Caller {
        let (node, cluster) = (NodeId::from_u128(9), ClusterId::from_u128(2));
        Caller::Node(NodeIdentity { node, role, cluster })
    }

    #[test]
    fn every_call_is_open_to_exactly_whom_it_is_declared_for() {
        let denied = Some(tonic::Code::PermissionDenied);
        let members = [node(NodeRole::Worker), node(NodeRole::Manager)];
        for (path, audience) in TABLE {
            let operators = OperatorRole::ALL.map(operator);
            let others = [Caller::Anyone, Caller::Root].into_iter().chain(operators);
            for caller in members.into_iter().chain(others) {
                let expect = if audience.includes(caller) { None } else { denied };
                assert_eq!(
                    answer_of(path, Door::Network, Some(caller), None),
                    expect,
                    "{path} of {caller:?}"
                );
            }
            // Removed nodes get nothing at all, not even what everybody gets; nor does who has a removed node speak for it.
            for role in [NodeRole::Worker, NodeRole::Manager] {
                let caller = Some(removed(role));
                assert_eq!(answer_of(path, Door::Network, caller, None), denied, "{path}, removed");
                assert_eq!(
                    answer_of(path, Door::Network, caller, Some("root node-1")),
                    denied,
                    "{path}, removed"
                );
            }
            let manager = Some(node(NodeRole::Manager));
            let stated = format!("manager {}", NodeId::from_u128(9));
            assert_eq!(
                answer_of(path, Door::Network, manager, Some(&stated)),
                denied,
                "{path}, for a removed one"
            );
            let worker = Some(node(NodeRole::Worker));
            let expect = if audience.includes(node(NodeRole::Worker)) { None } else { denied };
            assert_eq!(answer_of(path, Door::Network, worker, Some("root node-1")), expect, "{path}, a liar");
            let local = if audience.includes(Caller::Root) { None } else { denied };
            assert_eq!(answer_of(path, Door::Local, None, None), local, "{path}, locally");
            // A path is what is in the table, to the letter.
            let (service, method) = path.rsplit_once('/').unwrap();
            let (upper, encoded) = (path.to_uppercase(), format!("{service}%2f{method}"));
            for malformed in
                [&path[1..], &format!("/{path}"), &format!("{path}/"), &upper, &encoded, &path.to_lowercase()]
            {
                if malformed.parse::<http::Uri>().is_ok() && !malformed.starts_with("//") {
                    let answer = answer_of(malformed, Door::Local, None, None);
                    assert_eq!(answer, denied, "{malformed}");
                }
            }
        }
    }
}
