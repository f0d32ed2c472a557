//! Being a member: the agent, and on managers the manager.

use std::future::Future;
use std::net::SocketAddrV4;
use std::sync::Arc;

use anyhow::Context;
use futures_util::FutureExt;
use swarm_agent::{
    Agent, AgentConfig, Link, LocalConfig, LocalExecutor, Managers, NetworkOptions, Parallelism,
    UnreachableError,
};
use swarm_image::RegistryOptions;
use swarm_manager::backup::Backup;
use swarm_manager::keys::Keyring;
use swarm_manager::{Bootstrap, Manager, ManagerConfig};
use swarm_model::{EngineDescription, NodeRole};
use swarm_pki::{Credentials, Dialler, NodeIdentity};
use swarm_proto::v1;
use tracing::warn;

use crate::config::Config;
use crate::door::ManagerDoor;
use crate::node::place::{Place, Record, Seat};

/// What the node says to join by token.
pub fn join_request(
    token: swarm_pki::JoinToken,
    managers: Vec<String>,
    engine: &EngineDescription,
    advertise: SocketAddrV4,
) -> swarm_pki::JoinRequest {
    swarm_pki::JoinRequest {
        token,
        managers,
        hostname: engine.hostname.clone(),
        data_address: engine.data_address.to_string(),
        manager_address: advertise.to_string(),
    }
}

/// What the only manager of a cluster begins with.
pub enum Beginning {
    New(Bootstrap),
    Restore(Box<Backup>),
}

/// A node in a cluster, running.
pub struct Membership {
    record: Record,
    credentials: Arc<Credentials>,
    manager: Option<Arc<Manager>>,
    agent: Agent,
    managers: Managers,
    /// The agent's.
    dialler: Dialler,
}

impl Membership {
    /// Makes a cluster, or brings one back, with this node as its only manager.
    pub async fn found(
        config: &Config,
        record: Record,
        engine: EngineDescription,
        beginning: Beginning,
        door: &ManagerDoor,
    ) -> anyhow::Result<Self> {
        let place = Place::new(config);
        let manager = manager_config(config, &record, engine.clone());
        let (manager, credentials) = match beginning {
            Beginning::New(bootstrap) => {
                Manager::bootstrap(manager, bootstrap).await.context("cannot make the cluster")?
            }
            Beginning::Restore(backup) => {
                Manager::restore(manager, *backup).await.context("cannot restore the cluster")?
            }
        };
        let begun = place
            .remember(&record, &credentials, Some(manager.keyring()))
            .and_then(|()| begin(config, &record, engine, &credentials));
        match begun {
            Ok((agent, managers, dialler)) => {
                door.open(manager.local_routes());
                let (manager, credentials) = (Some(Arc::new(manager)), Arc::new(credentials));
                Ok(Self { record, credentials, manager, agent, managers, dialler })
            }
            Err(error) => {
                manager.stop().await;
                place.forget()?;
                Err(error)
            }
        }
    }

    /// Begins as a member with fresh credentials.
    pub async fn enter(
        config: &Config,
        record: Record,
        engine: EngineDescription,
        credentials: Credentials,
        door: &ManagerDoor,
    ) -> anyhow::Result<Self> {
        let place = Place::new(config);
        swarm_manager::put_leftovers_aside(&place.manager())?;
        let keyring = place.new_keyring(credentials.identity().role)?;
        place.remember(&record, &credentials, keyring.as_ref())?;
        match Self::resume(config, record, engine, credentials, keyring, door).await {
            Ok(membership) => Ok(membership),
            Err(error) => {
                place.forget()?;
                Err(error)
            }
        }
    }

    /// Goes on with new credentials, as what they say. Containers are not touched.
    pub async fn change(
        self,
        config: &Config,
        engine: EngineDescription,
        renewed: swarm_pki::Joined,
        door: &ManagerDoor,
    ) -> anyhow::Result<Self> {
        let place = Place::new(config);
        let mut record = self.record.clone();
        self.stop(door, false).await;
        record.managers = renewed.managers;
        record.seat = renewed.raft_id.map(|raft_id| Seat { raft_id, joined: false });
        // A manager that was taken out never goes on with its log; neither does the next one on this node.
        if renewed.credentials.identity().role == NodeRole::Manager {
            place.forget_manager()?;
        }
        let keyring = place.new_keyring(renewed.credentials.identity().role)?;
        place.remember(&record, &renewed.credentials, keyring.as_ref())?;
        if renewed.credentials.identity().role == NodeRole::Worker {
            place.forget_manager()?;
        }
        Self::resume(config, record, engine, renewed.credentials, keyring, door).await
    }

    /// Goes on with other credentials for the same role. No connection is dropped.
    pub fn renew(&mut self, config: &Config, credentials: Credentials) -> anyhow::Result<()> {
        let keyring = self.manager.as_ref().map(|manager| manager.keyring());
        Place::new(config).save(&credentials, keyring)?;
        if let Some(manager) = &self.manager {
            manager.renew(&credentials)?;
        }
        self.dialler.replace(&credentials)?;
        // Kept and used: now they may rely on it.
        tell_certified(&self.managers, &credentials)?;
        self.credentials = Arc::new(credentials);
        Ok(())
    }

    /// Managers that the operator, or a manager, names: all that the node knew may be gone.
    pub fn name_managers(&self, managers: &[String]) {
        self.managers.add_addresses(managers);
        self.agent.name_managers(managers.to_vec());
    }

    /// Whether no manager is reached, or none leads.
    pub fn is_lost(&self) -> bool {
        !matches!(self.agent.status().borrow().connection.link, Link::Up { .. })
    }

    /// A manager whose certificate expired gives itself a new one: the others do not listen to it, and theirs may have
    /// expired as well.
    pub async fn certify_itself(&self) -> anyhow::Result<Option<Credentials>> {
        let Some(manager) = &self.manager else { return Ok(None) };
        let key = swarm_pki::NodeKey::generate()?;
        let (chain, roots) = manager.certify_itself(&key.request()?).await?;
        Ok(Some(key.certified(&chain, &roots)?))
    }

    /// Continues as what the node was; a manager has its keyring.
    pub async fn resume(
        config: &Config,
        mut record: Record,
        engine: EngineDescription,
        credentials: Credentials,
        keyring: Option<Keyring>,
        door: &ManagerDoor,
    ) -> anyhow::Result<Self> {
        let manager = match keyring {
            None => None,
            Some(keyring) => {
                let manager = manager_config(config, &record, engine.clone());
                let started = match &mut record.seat {
                    Some(seat) if !seat.joined => {
                        let joined = Manager::join(manager, &credentials, keyring).await;
                        seat.joined = joined.is_ok();
                        Place::new(config).note(&record)?;
                        joined
                    }
                    Some(_) | None => Manager::open(manager, &credentials, keyring).await,
                };
                Some(Arc::new(started.context("cannot start the manager")?))
            }
        };
        let (agent, managers, dialler) = begin(config, &record, engine, &credentials)?;
        if let Some(manager) = &manager {
            door.open(manager.local_routes());
        }
        Ok(Self { record, credentials: Arc::new(credentials), manager, agent, managers, dialler })
    }

    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn manager(&self) -> Option<&Arc<Manager>> {
        self.manager.as_ref()
    }

    /// How the node reaches the managers, and what they say that it is to be.
    pub fn managers(&self) -> &Managers {
        &self.managers
    }

    /// Resolves when the manager's disk failed; `None` where there is no manager.
    pub fn failure(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        self.manager.as_ref().map(|manager| {
            let manager = Arc::clone(manager);
            async move { manager.failed().await }
        })
    }

    /// A copy of what the way to the managers is looked for with.
    pub fn to_examine(&self) -> (Record, Arc<Credentials>) {
        (self.record.clone(), Arc::clone(&self.credentials))
    }

    pub fn describe(&self, status: &mut v1::LocalStatus) {
        let identity = self.credentials.identity();
        let agent = self.agent.status().borrow().clone();
        status.node_id = identity.node.to_string();
        status.cluster_id = identity.cluster.to_string();
        status.role = v1::NodeRole::from(identity.role) as i32;
        status.connected = matches!(agent.connection.link, Link::Up { .. });
        status.managers = self.managers.addresses();
        status.data_address = self.record.data_address.to_string();
    }

    /// Stops agent and manager. Containers go on, unless they are to be removed.
    pub async fn stop(self, door: &ManagerDoor, remove_containers: bool) {
        door.close();
        if !remove_containers {
            self.agent.stop().await;
        } else if let Err(left) = self.agent.leave().await {
            warn!(reason = left, "something of the cluster is left on this node");
        }
        if let Some(manager) = self.manager {
            manager.stop().await;
        }
    }
}

fn manager_config(config: &Config, record: &Record, engine: EngineDescription) -> ManagerConfig {
    ManagerConfig {
        directory: Place::new(config).manager(),
        listen: config.listen,
        advertise: record.advertise.to_string(),
        raft_id: record.seat.map(|seat| seat.raft_id),
        engine,
        insecure_registries: config.insecure_registries.clone(),
    }
}

/// Starts the node's agent.
fn begin(
    config: &Config,
    record: &Record,
    engine: EngineDescription,
    credentials: &Credentials,
) -> anyhow::Result<(Agent, Managers, Dialler)> {
    let dialler = Dialler::new(credentials)?;
    let current = dialler.clone();
    let managers = Managers::new(move |address| {
        let dialler = current.clone();
        let dial = async move {
            let dialled = dialler.connect(&address).await;
            dialled.map_err(|error| UnreachableError {
                manager: address,
                reason: format!("{:#}", anyhow::Error::new(error)),
            })
        };
        dial.boxed()
    });
    tell_certified(&managers, credentials)?;
    let agent = start_agent(config, record, engine, credentials.identity(), &managers)?;
    Ok((agent, managers, dialler))
}

/// Removes everything of the cluster from a node whose key cannot be read, and so cannot reach anybody.
pub async fn abandon(
    config: &Config,
    record: &Record,
    engine: EngineDescription,
    identity: &NodeIdentity,
) -> anyhow::Result<()> {
    let managers = Managers::new(|manager| {
        let reason = "this node is locked".to_owned();
        std::future::ready(Err(UnreachableError { manager, reason })).boxed()
    });
    let agent = start_agent(config, record, engine, identity, &managers)?;
    agent
        .leave()
        .await
        .map_err(|left| anyhow::anyhow!("something of the cluster is left on this node: {left}"))
}

fn start_agent(
    config: &Config,
    record: &Record,
    engine: EngineDescription,
    identity: &NodeIdentity,
    managers: &Managers,
) -> anyhow::Result<Agent> {
    let local = LocalConfig {
        directory: Place::new(config).agent(),
        volumes: Place::new(config).volumes(),
        node: identity.node,
        engine: engine.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        shim_executable: "/proc/self/exe".into(),
        log_limits: swarm_runtime::LogLimits::default(),
        network: NetworkOptions::default(),
        registry: RegistryOptions {
            insecure: config.insecure_registries.iter().cloned().collect(),
            ..RegistryOptions::default()
        },
    };
    let cpus = usize::try_from(engine.resources.cpu_nanos / 1_000_000_000).unwrap_or(usize::MAX);
    let agent = AgentConfig {
        cluster: identity.cluster,
        node: identity.node,
        engine,
        managers: record.managers.clone(),
        parallelism: Parallelism::for_cpus(cpus),
    };
    let open = |answers| LocalExecutor::open(local, managers.clone(), answers);
    Agent::start(agent, managers.clone(), open).context("cannot start the agent")
}

fn tell_certified(managers: &Managers, credentials: &Credentials) -> anyhow::Result<()> {
    if let Some(root) = credentials.issued_by()? {
        managers.set_certified(root.to_string());
    }
    Ok(())
}
