//! Who may call what. Every call of every service is in one table; what is not in it is refused.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use swarm_manager_core::door::RemovedNodes;
use swarm_model::NodeRole;
use swarm_pki::Caller;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::forward;
use super::status::refuse_removed;

/// Kinds of callers that a call is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Root of the manager's own node, over its local socket.
    Operators,
    /// Managers of the cluster.
    Managers,
    /// Members of the cluster, managers among them.
    Nodes,
    /// Everybody who can reach the port: a node that joins has no certificate yet.
    Everyone,
}

use Audience::{Everyone, Managers, Nodes, Operators};

/// By path of the call.
pub const TABLE: &[(&str, Audience)] = &[
    ("/swarm.v1.CertificateAuthority/GetRoot", Everyone),
    ("/swarm.v1.CertificateAuthority/IssueNodeCertificate", Everyone),
    ("/swarm.v1.CertificateAuthority/RenewNodeCertificate", Nodes),
    ("/swarm.v1.Clusters/Backup", Operators),
    ("/swarm.v1.Clusters/Get", Operators),
    ("/swarm.v1.Clusters/GetJoinToken", Operators),
    ("/swarm.v1.Clusters/GetUnlockKey", Operators),
    ("/swarm.v1.Clusters/RotateJoinToken", Operators),
    ("/swarm.v1.Clusters/RotateRoot", Operators),
    ("/swarm.v1.Clusters/RotateUnlockKey", Operators),
    ("/swarm.v1.Clusters/SetAutolock", Operators),
    ("/swarm.v1.Clusters/SetCertificateLife", Operators),
    ("/swarm.v1.Images/GetBlob", Nodes),
    ("/swarm.v1.Images/List", Operators),
    ("/swarm.v1.Images/Load", Operators),
    ("/swarm.v1.Images/Pull", Operators),
    ("/swarm.v1.Images/Remove", Operators),
    ("/swarm.v1.Local/Examine", Operators),
    ("/swarm.v1.Local/Init", Operators),
    ("/swarm.v1.Local/Join", Operators),
    ("/swarm.v1.Local/Leave", Operators),
    ("/swarm.v1.Local/Recover", Operators),
    ("/swarm.v1.Local/Renew", Operators),
    ("/swarm.v1.Local/Restore", Operators),
    ("/swarm.v1.Local/Status", Operators),
    ("/swarm.v1.Local/Unlock", Operators),
    ("/swarm.v1.Logs/Publish", Nodes),
    ("/swarm.v1.Logs/Subscribe", Operators),
    ("/swarm.v1.Nodes/Get", Operators),
    ("/swarm.v1.Nodes/List", Operators),
    ("/swarm.v1.Nodes/Remove", Operators),
    ("/swarm.v1.Nodes/Update", Operators),
    ("/swarm.v1.Raft/Send", Managers),
    ("/swarm.v1.Services/Create", Operators),
    ("/swarm.v1.Services/Get", Operators),
    ("/swarm.v1.Services/List", Operators),
    ("/swarm.v1.Services/Remove", Operators),
    ("/swarm.v1.Services/Rollback", Operators),
    ("/swarm.v1.Services/Update", Operators),
    ("/swarm.v1.Sessions/Open", Nodes),
    ("/swarm.v1.Tasks/Get", Operators),
    ("/swarm.v1.Tasks/List", Operators),
    ("/swarm.v1.Watch/Watch", Operators),
];

impl Audience {
    pub fn includes(self, caller: Caller) -> bool {
        match (self, caller) {
            (Everyone, _) | (Operators, Caller::Operator) | (Nodes, Caller::Node(_)) => true,
            (Managers, Caller::Node(identity)) => identity.role == NodeRole::Manager,
            (Operators, Caller::Node(_) | Caller::Anyone)
            | (Managers | Nodes, Caller::Operator | Caller::Anyone) => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operators => "root on a manager, over the local socket",
            Managers => "managers of the cluster",
            Nodes => "members of the cluster",
            Everyone => "everyone",
        }
    }
}

/// # Errors
/// PERMISSION_DENIED where the table does not let `caller` in.
fn check(path: &str, caller: Option<Caller>) -> Result<(), Status> {
    let audience = TABLE.iter().find(|(known, _)| *known == path).map(|(_, audience)| *audience);
    match (audience, caller) {
        (Some(audience), Some(caller)) if audience.includes(caller) => Ok(()),
        (Some(audience), _) => Err(Status::permission_denied(format!("{path} is for {}", audience.name()))),
        (None, _) => Err(Status::permission_denied(format!("{path} is for nobody"))),
    }
}

/// # Errors
/// PERMISSION_DENIED, with the time of the removal in the trailer, for a node that was removed: its certificate outlives
/// its membership.
fn check_member(caller: Option<Caller>, removed: &RemovedNodes) -> Result<(), Status> {
    match caller {
        Some(Caller::Node(identity)) => match removed.get(identity.node) {
            Some(record) => Err(refuse_removed(identity.node, record.at)),
            None => Ok(()),
        },
        Some(Caller::Operator | Caller::Anyone) | None => Ok(()),
    }
}

/// A service behind the table.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    service: S,
    door: Door,
    removed: watch::Receiver<RemovedNodes>,
}

/// Where calls come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The TLS port: callers are whom their certificates prove.
    Network,
    /// The node's local socket, which only root can open: every caller is an operator.
    Local,
}

impl<S> Guarded<S> {
    pub fn new(service: S, door: Door, removed: watch::Receiver<RemovedNodes>) -> Self {
        Self { service, door, removed }
    }

    /// # Errors
    /// PERMISSION_DENIED where the caller is a node that was removed, or where the table does not let it in. Of a call
    /// that is forwarded, the manager that forwards it and whoever it speaks for are both looked at.
    fn admit(&self, request: &mut Request<Body>) -> Result<(), Status> {
        let caller = |request: &Request<Body>| request.extensions().get::<Caller>().copied();
        check_member(caller(request), &self.removed.borrow())?;
        forward::unwrap(request);
        check_member(caller(request), &self.removed.borrow())?;
        check(request.uri().path(), caller(request))
    }
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
        if self.door == Door::Local {
            request.extensions_mut().insert(Caller::Operator);
        }
        match self.admit(&mut request) {
            Ok(()) => Either::Left(self.service.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prost::Message;
    use swarm_model::{ClusterId, NodeId, RemovedNode, Timestamp};
    use swarm_pki::NodeIdentity;

    use super::*;

    fn node(role: NodeRole) -> Caller {
        let (node, cluster) = (NodeId::from_u128(1), ClusterId::from_u128(2));
        Caller::Node(NodeIdentity { node, role, cluster })
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
        for caller in [None, Some(Caller::Operator), Some(node(NodeRole::Manager)), Some(Caller::Anyone)] {
            assert!(check("/swarm.v1.Services/Burn", caller).is_err());
            assert!(check("", caller).is_err());
        }
        assert!(check("/swarm.v1.CertificateAuthority/GetRoot", None).is_err());
    }

    #[test]
    fn callers_get_exactly_what_is_theirs() {
        let allowed = |caller| {
            let paths = TABLE.iter().filter(|(path, _)| check(path, Some(caller)).is_ok());
            paths.map(|(path, _)| *path).collect::<Vec<_>>()
        };
        let everyone =
            ["/swarm.v1.CertificateAuthority/GetRoot", "/swarm.v1.CertificateAuthority/IssueNodeCertificate"];
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
        assert!(!allowed(Caller::Operator).contains(&"/swarm.v1.Sessions/Open"));
        assert!(allowed(Caller::Operator).contains(&"/swarm.v1.Services/Create"));
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
        let mut guarded = Guarded::new(through, door, removed);
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
            for caller in members.into_iter().chain([Caller::Anyone, Caller::Operator]) {
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
                    answer_of(path, Door::Network, caller, Some("operator")),
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
            assert_eq!(answer_of(path, Door::Network, worker, Some("operator")), expect, "{path}, a liar");
            let local = if audience.includes(Caller::Operator) { None } else { denied };
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
