//! A manager as a whole: made for a new cluster, or opened from its disk; served; stopped.
//!
//! ```text
//! DIR/log/      Raft log
//! DIR/state/    checkpoints of the applied state
//! DIR/images/   content of the cluster's image store
//! ```

mod error;
mod follow;
mod founding;

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddrV4;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use swarm_image::RegistryOptions;
use swarm_manager_core::api::{ApiError, CreateCluster, NewNode, OwnState, Request, Response};
use swarm_manager_core::door::Config;
use swarm_manager_core::first_raft_id;
use swarm_model::{Availability, EngineDescription, JoinSecrets, NodeId, NodeRole, NodeSpec};
use swarm_pki::{Authority, Credentials, Dialler, Expelled, JoinSecret, TlsError, server_config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::info;

use crate::authority::{AdmissionError, ClusterAuthority};
use crate::backup::Backup;
use crate::engine::Engine;
use crate::images::Images;
use crate::keys::Keyring;
use crate::logs::Logs;
use crate::peers::Peers;
use crate::server::{Door, Services};
use follow::{clean_up_once, expel, follow_autolock};
use founding::{Founding, first_credentials, random};

pub use error::ManagerError;

/// Where what an unfinished bootstrap left is kept, until the next one.
const LEFTOVER: &str = "leftover";
/// What [`Engine`] keeps, and the key to it.
const STATE: [&str; 3] = ["log", "state", "data.key"];
/// For a small fleet: a host that is lost without a word is noticed within 1.5 s.
const HEARTBEAT_MS: u32 = 500;
/// For the first write of a new cluster: one election and one sync, on the slowest of disks.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(20);
/// For calls under way to end when the manager stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What a manager is told by its daemon.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// For everything that it keeps; made if absent, for its owner only.
    pub directory: PathBuf,
    /// Where the TLS port is.
    pub listen: SocketAddrV4,
    /// `host:port` by which nodes reach it.
    pub advertise: String,
    /// Its number among the Raft members, as it was given with its certificate; `None`: the first manager's.
    pub raft_id: Option<u64>,
    /// Of the node that it runs on.
    pub engine: EngineDescription,
    /// Registries that are spoken to without encryption.
    pub insecure_registries: Vec<String>,
}

/// What a new cluster is to be.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    pub gateway_pool: ipnet::Ipv4Net,
    /// Of its first node.
    pub availability: Availability,
}

/// A running manager. Dropping it without [`Manager::stop`] is like losing power, but for the process that goes on.
pub struct Manager {
    services: Services,
    keyring: Keyring,
    tls: Arc<ArcSwap<ServerConfig>>,
    dialler: Dialler,
    port: SocketAddrV4,
    node: NodeId,
    tasks: Vec<JoinHandle<()>>,
    serving: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Manager {
    /// Makes a new cluster whose first manager this is, and serves it. Also the node's credentials, which the caller
    /// keeps. What an unfinished bootstrap left in the directory is put aside.
    ///
    /// # Errors
    /// The port is taken, or the disk or the operating system refused. A second attempt may follow.
    pub async fn bootstrap(
        config: ManagerConfig,
        bootstrap: Bootstrap,
    ) -> Result<(Self, Credentials), ManagerError> {
        let listener = listen(config.listen).await?;
        make_directory(&config.directory)?;
        put_leftovers_aside(&config.directory)?;
        let founding = Founding::new()?;
        let keyring = Keyring::create(&config.directory)?;
        let manager = Self::start(&config, listener, &founding.credentials, keyring)?;
        let created = tokio::time::timeout(BOOTSTRAP_TIMEOUT, manager.create(&config, &bootstrap, &founding));
        match created.await.unwrap_or(Err(ManagerError::CreateTimeout)) {
            Ok(()) => {
                info!(cluster.id = %founding.credentials.identity().cluster, "created a cluster");
                Ok((manager, founding.credentials))
            }
            Err(error) => {
                manager.stop().await;
                Err(error)
            }
        }
    }

    /// Makes this node the only manager of the cluster of a backup, and serves it. Also the node's credentials, which the
    /// caller keeps. What lies in the directory is put aside.
    ///
    /// # Errors
    /// As [`Self::bootstrap`].
    pub async fn restore(config: ManagerConfig, backup: Backup) -> Result<(Self, Credentials), ManagerError> {
        let listener = listen(config.listen).await?;
        make_directory(&config.directory)?;
        put_leftovers_aside(&config.directory)?;
        let keyring = Keyring::create(&config.directory)?;
        let cluster = backup.salvage.cluster();
        let authority =
            Authority::load(&cluster.root_certificate, &cluster.root_key).map_err(ManagerError::Authority)?;
        let credentials = first_credentials(&authority, cluster.id, cluster.certificate_life)?;
        let node = NewNode {
            id: credentials.identity().node,
            role: NodeRole::Manager,
            engine: config.engine.clone(),
            manager_address: Some(config.advertise.clone()),
        };
        let (directory, key) = (config.directory.clone(), keyring.key().clone());
        let write = move || crate::refound::restore(&directory, &key, backup.salvage, node);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|_| ManagerError::Interrupted)?.map_err(ManagerError::Restore)?;
        let manager = Self::start(&config, listener, &credentials, keyring)?;
        info!(cluster.id = %credentials.identity().cluster, "restored a cluster");
        Ok((manager, credentials))
    }

    /// Comes back with what is on disk, and serves it.
    ///
    /// # Errors
    /// The port is taken, or the disk refused or is damaged. Nothing is left running.
    pub async fn open(
        config: ManagerConfig,
        credentials: &Credentials,
        keyring: Keyring,
    ) -> Result<Self, ManagerError> {
        // Without it, an empty manager would come up, and deny that there is a cluster or forget whom it voted for.
        let log = config.directory.join("log");
        if !log.is_dir() {
            return Err(ManagerError::NoLog { path: log });
        }
        Self::join(config, credentials, keyring).await
    }

    /// Begins as a manager that the others admitted, and serves; it has its log from them. A join that was cut off goes
    /// on where it was. The directory must hold nothing of an earlier membership.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn join(
        config: ManagerConfig,
        credentials: &Credentials,
        keyring: Keyring,
    ) -> Result<Self, ManagerError> {
        let listener = listen(config.listen).await?;
        make_directory(&config.directory)?;
        Self::start(&config, listener, credentials, keyring)
    }

    fn start(
        config: &ManagerConfig,
        listener: TcpListener,
        credentials: &Credentials,
        keyring: Keyring,
    ) -> Result<Self, ManagerError> {
        let identity = *credentials.identity();
        if identity.role != NodeRole::Manager {
            return Err(ManagerError::NotAManager);
        }
        let tls = Arc::new(ArcSwap::new(server_config(credentials).map_err(ManagerError::Tls)?));
        let port = local_port(&listener, config.listen)?;
        let raft_id = config.raft_id.unwrap_or_else(|| first_raft_id(identity.node));
        let dialler = Dialler::new(credentials).map_err(ManagerError::Tls)?;
        let (peers, losses) = Peers::new(dialler.clone(), raft_id, config.advertise.clone());
        let core = Config::new(identity.node, raft_id, random()?);
        let engine = Engine::start(core, &config.directory, keyring.key(), peers.outlet())
            .map_err(ManagerError::Engine)?;
        let registries = RegistryOptions {
            insecure: config.insecure_registries.iter().cloned().collect(),
            ..RegistryOptions::default()
        };
        let images =
            Images::open(&config.directory.join("images"), registries, engine.clone(), peers.clone())
                .map_err(ManagerError::Images)?;
        let services = Services {
            engine: engine.clone(),
            hostname: config.engine.hostname.as_str().into(),
            images,
            logs: Logs::new(engine.clone()),
            authority: ClusterAuthority::new(engine.clone()),
            keyring: keyring.clone(),
            peers: peers.clone(),
            expelled: Expelled::default(),
            stopping: CancellationToken::new(),
        };
        let serving = services.serve(listener, Arc::clone(&tls), identity.cluster);
        let tasks = vec![
            tokio::spawn(clean_up_once(engine.clone(), services.images.clone())),
            tokio::spawn(services.images.clone().replicate()),
            tokio::spawn(expel(engine.clone(), services.expelled.clone())),
            tokio::spawn(follow_autolock(engine.clone(), keyring.clone())),
            tokio::spawn(peers.follow(engine, losses)),
        ];
        info!(node.id = %identity.node, address = %port, "the manager is up");
        let serving = std::sync::Mutex::new(Some(serving));
        Ok(Self { services, keyring, tls, dialler, port, node: identity.node, tasks, serving })
    }

    async fn create(
        &self,
        config: &ManagerConfig,
        bootstrap: &Bootstrap,
        founding: &Founding,
    ) -> Result<(), ManagerError> {
        let engine = &self.services.engine;
        let identity = founding.credentials.identity();
        let create = CreateCluster {
            id: identity.cluster,
            root_certificate: founding.authority.root_pem().to_owned(),
            root_key: founding.root_key.clone(),
            join: JoinSecrets {
                worker: JoinSecret::generate().reveal(),
                manager: JoinSecret::generate().reveal(),
            },
            gateway_pool: bootstrap.gateway_pool,
            heartbeat_ms: HEARTBEAT_MS,
            node: NewNode {
                id: identity.node,
                role: NodeRole::Manager,
                engine: config.engine.clone(),
                manager_address: Some(config.advertise.clone()),
            },
        };
        engine.request(Request::CreateCluster(Box::new(create))).await.map_err(ManagerError::Create)?;
        if bootstrap.availability == Availability::Active {
            return Ok(());
        }
        let node = identity.node.to_string();
        let found = engine.request(Request::GetNode { node: node.clone() }).await;
        let Response::Node(found) = found.map_err(ManagerError::Create)? else {
            unreachable!("GetNode is answered by a node");
        };
        let spec = NodeSpec { availability: bootstrap.availability, ..found.node.spec.clone() };
        let update = Request::UpdateNode { node, version: found.node.version, spec };
        engine.request(update).await.map(drop).map_err(ManagerError::Create)
    }

    /// The services for the node's local socket, whose callers are operators: only root may be able to open it.
    pub fn local_routes(&self) -> Routes {
        self.services.routes(Door::Local)
    }

    /// What this manager knows by itself, with a leader or without.
    ///
    /// # Errors
    /// It has stopped.
    pub async fn own_state(&self) -> Result<OwnState, ApiError> {
        match self.services.engine.request(Request::GetOwnState).await? {
            Response::OwnState(state) => Ok(state),
            other => unreachable!("GetOwnState is answered by that, not by {other:?}"),
        }
    }

    /// What its disk is encrypted with.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// A new certificate for this manager itself, of a key that `request` proves, from what it knows without the others.
    /// Also the roots to believe.
    ///
    /// # Errors
    /// It is no manager, as far as it knows, or the request is refused.
    pub async fn certify_itself(&self, request: &str) -> Result<(String, String), AdmissionError> {
        let admission = self.services.authority.renew_own(self.node, request).await?;
        Ok((admission.certificate_chain, admission.root_certificates))
    }

    /// Where the TLS port is; of interest where port 0 was asked for.
    pub fn address(&self) -> SocketAddrV4 {
        self.port
    }

    /// The core, for whoever runs in this process.
    pub fn engine(&self) -> &Engine {
        &self.services.engine
    }

    /// Connections from now on prove these credentials; those that exist go on.
    ///
    /// # Errors
    /// The credentials cannot be used; nothing changed.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), TlsError> {
        let tls = server_config(credentials)?;
        self.dialler.replace(credentials)?;
        self.tls.store(tls);
        Ok(())
    }

    /// Resolves when the disk failed, after which this manager can do nothing more.
    pub async fn failed(&self) {
        self.services.engine.failed().await;
    }

    /// Ends every stream and call, and makes everything durable.
    pub async fn stop(&self) {
        let engine = &self.services.engine;
        // While the other managers are still heard.
        engine.step_down().await;
        self.services.stopping.cancel();
        let serving = self.serving.lock().ok().and_then(|mut serving| serving.take());
        if let Some(mut serving) = serving
            && tokio::time::timeout(DRAIN_TIMEOUT, &mut serving).await.is_err()
        {
            serving.abort();
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        engine.stop().await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.services.stopping.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(address: SocketAddrV4) -> Result<TcpListener, ManagerError> {
    TcpListener::bind(address).await.map_err(|source| ManagerError::Listen { address, source })
}

fn local_port(listener: &TcpListener, asked: SocketAddrV4) -> Result<SocketAddrV4, ManagerError> {
    match listener.local_addr() {
        Ok(std::net::SocketAddr::V4(address)) => Ok(address),
        Ok(std::net::SocketAddr::V6(_)) => unreachable!("it was bound to an IPv4 address"),
        Err(source) => Err(ManagerError::Listen { address: asked, source }),
    }
}

fn make_directory(path: &Path) -> Result<(), ManagerError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| ManagerError::Directory { path: path.to_owned(), source })
}

/// Before a manager begins: one that was cut off when it began may have left a state that no credentials belong to. It is
/// kept once, not deleted: the daemon may be wrong about being in no cluster.
///
/// # Errors
/// The disk refused.
pub fn put_leftovers_aside(directory: &Path) -> Result<(), ManagerError> {
    let failed = |source| ManagerError::Directory { path: directory.to_owned(), source };
    let left = STATE.map(|name| directory.join(name)).into_iter().filter(|path| path.exists());
    let left: Vec<PathBuf> = left.collect();
    if left.is_empty() {
        return Ok(());
    }
    let aside = directory.join(LEFTOVER);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    make_directory(&aside)?;
    for path in left {
        let name = path.file_name().expect("a name was joined").to_owned();
        fs::rename(&path, aside.join(name)).map_err(failed)?;
    }
    Ok(())
}
