//! The service of the local socket that is about this node alone.

use std::sync::Arc;
use std::time::SystemTime;

use swarm_manager::keys::{KeyError, ParseUnlockKeyError, UnlockKey};
use swarm_model::{Availability, NodeRole};
use swarm_pki::Credentials;
use swarm_proto::v1;
use swarm_proto::v1::local_server::{Local, LocalServer};
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::membership::{Beginning, Membership, abandon, join_request};
use super::place::{Place, Record, Seat};
use super::recovery::Upload;
use super::{Node, Renewal, address, departure, doctor};

/// Addresses of the tasks' gateway network, unless the operator names others (docs/adr/0004).
const DEFAULT_GATEWAY_POOL: &str = "10.192.0.0/10";

pub struct LocalService(Arc<Node>);

impl LocalService {
    pub const PREFIX: &'static str = "/swarm.v1.Local/";

    pub fn server(node: Arc<Node>) -> LocalServer<Self> {
        LocalServer::new(Self(node))
    }

    async fn answer(&self) -> Response<v1::LocalStatus> {
        let node = &self.0;
        let mut status = v1::LocalStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: node.config.hostname.clone(),
            ..Default::default()
        };
        if let Some(membership) = &*node.membership.lock().await {
            membership.describe(&mut status);
            status.notice = expiry_notice(membership.credentials(), SystemTime::now());
        } else if node.locked.lock().await.is_some() {
            describe_locked(&Place::new(&node.config), &mut status);
        }
        if let Some(removal) = &*node.removal.lock().await {
            status.node_id = removal.node.to_string();
            status.cluster_id = removal.cluster.to_string();
            status.notice = removal.to_string();
        }
        Response::new(status)
    }

    async fn init(&self, request: v1::InitRequest) -> anyhow::Result<()> {
        let node = &self.0;
        let advertise = address::advertised(&request.advertise_address, node.config.listen.port())?;
        let data_address = match request.data_address.as_str() {
            "" => *advertise.ip(),
            text => *address::advertised(text, 0)?.ip(),
        };
        let pool = if request.gateway_pool.is_empty() { DEFAULT_GATEWAY_POOL } else { &request.gateway_pool };
        let pool: ipnet::Ipv4Net =
            pool.parse().map_err(|_| anyhow::anyhow!("{pool:?} is not a CIDR block"))?;
        anyhow::ensure!(
            pool.prefix_len() <= 20,
            "the gateway pool {pool} is too small: a /20 holds three nodes, a /10 4095"
        );
        let availability = v1::NodeAvailability::try_from(request.availability).unwrap_or_default();
        let bootstrap = swarm_manager::Bootstrap {
            gateway_pool: pool.trunc(),
            availability: Availability::from(availability),
        };
        let record = Record {
            advertise,
            data_address,
            managers: vec![advertise.to_string()],
            seat: None,
            removed_at: None,
        };
        let membership = Membership::found(
            &node.config,
            record,
            node.engine(data_address),
            Beginning::New(bootstrap),
            &node.door,
        )
        .await?;
        info!(node.id = %membership.credentials().identity().node, "cluster made");
        node.keep(membership).await;
        Ok(())
    }

    async fn join(&self, request: v1::JoinRequest) -> anyhow::Result<()> {
        let node = &self.0;
        anyhow::ensure!(!request.managers.is_empty(), "name a manager to join through: HOST[:PORT]");
        let managers =
            request.managers.iter().map(|text| address::manager(text)).collect::<Result<Vec<_>, _>>()?;
        let advertise = address::advertised(&request.advertise_address, node.config.listen.port())?;
        let data_address = match request.data_address.as_str() {
            "" => *advertise.ip(),
            text => *address::advertised(text, 0)?.ip(),
        };
        let token = request.token.trim().parse::<swarm_pki::JoinToken>()?;
        let engine = node.engine(data_address);
        let asked = join_request(token, managers.clone(), &engine, advertise);
        let joined = swarm_pki::join(&asked).await?;
        let managers = if joined.managers.is_empty() { managers } else { joined.managers };
        let seat = joined.raft_id.map(|raft_id| Seat { raft_id, joined: false });
        let record = Record { advertise, data_address, managers, seat, removed_at: None };
        let entered = Membership::enter(&node.config, record, engine, joined.credentials, &node.door);
        let membership = entered.await?;
        info!(node.id = %membership.credentials().identity().node, "joined the cluster");
        node.keep(membership).await;
        Ok(())
    }

    /// The certificate expired while the node was off, or all managers that it knew are gone: with a token, and with a
    /// manager's address, it goes on as the node that it was.
    async fn join_again(&self, request: v1::JoinRequest) -> anyhow::Result<()> {
        let node = &self.0;
        let managers =
            request.managers.iter().map(|text| address::manager(text)).collect::<Result<Vec<_>, _>>()?;
        let token = request.token.trim().parse::<swarm_pki::JoinToken>()?;
        let (expired, asked) = match &*node.membership.lock().await {
            None => anyhow::bail!("this node is in no cluster"),
            Some(member) => {
                let record = member.record();
                let engine = node.engine(record.data_address);
                (Arc::clone(member.credentials()), join_request(token, managers, &engine, record.advertise))
            }
        };
        let joined = swarm_pki::join_again(&expired, &asked).await?;
        node.adopt(joined).await
    }

    async fn refuse_member(&self) -> Result<(), Status> {
        if let Some(removal) = &*self.0.removal.lock().await {
            return Err(Status::failed_precondition(removal.to_string()));
        }
        if self.0.locked.lock().await.is_some() {
            return Err(Status::failed_precondition(
                "this node is a manager that is locked: run `swarmctl cluster unlock`; or to forget its cluster: swarmctl \
                 cluster leave --force",
            ));
        }
        match &*self.0.membership.lock().await {
            None => Ok(()),
            Some(membership) => Err(Status::failed_precondition(format!(
                "this node is in cluster {} already; to leave it: swarmctl cluster leave",
                membership.credentials().identity().cluster
            ))),
        }
    }
}

#[tonic::async_trait]
impl Local for LocalService {
    async fn status(&self, _: Request<v1::LocalStatusRequest>) -> Result<Response<v1::LocalStatus>, Status> {
        Ok(self.answer().await)
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Result<Response<v1::LocalStatus>, Status> {
        let _change = self.0.change.lock().await;
        self.refuse_member().await?;
        self.init(request.into_inner()).await.map_err(|error| told(&error))?;
        Ok(self.answer().await)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::LocalStatus>, Status> {
        let _change = self.0.change.lock().await;
        let request = request.into_inner();
        if self.0.may_join_again(&request.managers).await {
            self.join_again(request).await.map_err(|error| told(&error))?;
            return Ok(self.answer().await);
        }
        self.refuse_member().await?;
        self.join(request).await.map_err(|error| told(&error))?;
        Ok(self.answer().await)
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let node = &self.0;
        node.renew(Renewal::OfCertificate).await.map_err(|error| told(&error))?;
        let membership = node.membership.lock().await;
        let Some(member) = membership.as_ref() else {
            return Err(Status::failed_precondition("this node is in no cluster"));
        };
        let (_, until) = member.credentials().validity().map_err(|error| told(&error.into()))?;
        let until = until.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros();
        let valid_until = u64::try_from(until).unwrap_or(u64::MAX);
        Ok(Response::new(v1::RenewResponse { valid_until }))
    }

    async fn unlock(&self, request: Request<v1::UnlockRequest>) -> Result<Response<v1::LocalStatus>, Status> {
        let _change = self.0.change.lock().await;
        let key: UnlockKey = request
            .into_inner()
            .unlock_key
            .parse()
            .map_err(|error: ParseUnlockKeyError| Status::invalid_argument(error.to_string()))?;
        self.0.unlock(&key).await.map_err(|error| match error.downcast_ref::<KeyError>() {
            Some(KeyError::WrongKey { .. }) => Status::permission_denied(format!("{error:#}")),
            _ => told(&error),
        })?;
        Ok(self.answer().await)
    }

    async fn restore(
        &self,
        request: Request<Streaming<v1::RestoreRequest>>,
    ) -> Result<Response<v1::RestoreResponse>, Status> {
        self.refuse_member().await?;
        let upload = Upload::receive(request.into_inner()).await.map_err(|error| told(&error))?;
        let _change = self.0.change.lock().await;
        self.refuse_member().await?;
        let restored = self.0.restore(upload).await.map_err(|error| told(&error))?;
        let status = Some(self.answer().await.into_inner());
        Ok(Response::new(v1::RestoreResponse { status, ..restored }))
    }

    async fn recover(
        &self,
        request: Request<v1::RecoverRequest>,
    ) -> Result<Response<v1::RecoverResponse>, Status> {
        let _change = self.0.change.lock().await;
        if self.0.locked.lock().await.is_some() {
            return Err(Status::failed_precondition(
                "this manager is locked: run `swarmctl cluster unlock` first; it needs no other manager for that",
            ));
        }
        Ok(Response::new(self.0.recover(request.into_inner().confirmed).await?))
    }

    async fn examine(&self, _: Request<v1::ExamineRequest>) -> Result<Response<v1::ExamineResponse>, Status> {
        let findings = self.examine_node().await.map_err(|error| told(&error))?;
        Ok(Response::new(v1::ExamineResponse { findings: findings.into_iter().map(Into::into).collect() }))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let node = &self.0;
        let _change = node.change.lock().await;
        let force = request.into_inner().force;
        let leaving = match &*node.membership.lock().await {
            // Nobody is left to ask.
            None if node.removal.lock().await.is_some() => None,
            None if node.locked.lock().await.is_some() => return self.leave_locked(force).await,
            None => return Err(Status::failed_precondition("this node is in no cluster")),
            Some(member) => member.manager().cloned().map(|one| (member.credentials().identity().node, one)),
        };
        if let Some((id, manager)) = leaving
            && !force
        {
            departure::step_back(id, &manager).await?;
        }
        if let Some(member) = node.membership.lock().await.take() {
            member.stop(&node.door, true).await;
        }
        Place::new(&node.config).forget().map_err(|error| told(&error))?;
        *node.removal.lock().await = None;
        info!("left the cluster");
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

/// What can be told without the key.
fn describe_locked(place: &Place, status: &mut v1::LocalStatus) {
    status.locked = true;
    status.role = v1::NodeRole::Manager as i32;
    if let Ok(identity) = place.identity() {
        status.node_id = identity.node.to_string();
        status.cluster_id = identity.cluster.to_string();
    }
    if let Ok(Some(record)) = place.record() {
        status.managers = record.managers;
        status.data_address = record.data_address.to_string();
    }
}

impl LocalService {
    /// A locked manager can tell nobody that it leaves.
    async fn leave_locked(&self, force: bool) -> Result<Response<v1::LeaveResponse>, Status> {
        let node = &self.0;
        if !force {
            return Err(Status::failed_precondition(
                "this manager is locked, so it cannot tell the others that it leaves: run `swarmctl cluster unlock` first, \
                 or to forget its state for good: swarmctl cluster leave --force",
            ));
        }
        let place = Place::new(&node.config);
        let gone = async {
            if let Some(record) = place.record()? {
                let engine = node.engine(record.data_address);
                abandon(&node.config, &record, engine, &place.identity()?).await?;
            }
            place.forget()
        };
        gone.await.map_err(|error| told(&error))?;
        *node.locked.lock().await = None;
        node.door.close();
        info!("left the cluster");
        Ok(Response::new(v1::LeaveResponse {}))
    }

    /// What is known of the membership is copied out first: examining takes a while, and holds nothing up.
    async fn examine_node(&self) -> anyhow::Result<Vec<doctor::Finding>> {
        let node = &self.0;
        let member = node.membership.lock().await.as_ref().map(Membership::to_examine);
        let data_address = member.as_ref().map(|(record, _)| record.data_address);
        let directory = node.config.data_dir.clone();
        let machine = tokio::task::spawn_blocking(move || doctor::examine_machine(&directory, data_address));
        let mut findings = machine.await?;
        if node.locked.lock().await.is_some() {
            findings.push(doctor::locked());
        }
        if let Some((member, credentials)) = member {
            findings.extend(doctor::examine_membership(&credentials, &member.managers).await);
        }
        Ok(findings)
    }
}

/// The whole chain, once: the operator sees nothing else.
fn told(error: &anyhow::Error) -> Status {
    let text = format!("{error:#}");
    match error.downcast_ref::<swarm_pki::JoinError>() {
        Some(_) => Status::permission_denied(text),
        None => Status::failed_precondition(text),
    }
}

/// For the operator of a node whose certificate has expired; else empty.
pub fn expiry_notice(credentials: &Credentials, now: SystemTime) -> String {
    let (Ok(true), Ok((_, until))) = (credentials.has_expired(now), credentials.validity()) else {
        return String::new();
    };
    let seconds = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at =
        swarm_runtime::Timestamp::from_second(i64::try_from(seconds).unwrap_or_default()).unwrap_or_default();
    let role = match credentials.identity().role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    };
    format!(
        "this node's certificate expired at {at}, so the managers refuse it; run `swarmctl cluster join-token {role}` on a \
         manager, and what it prints here: the node stays what it was, with its tasks"
    )
}
