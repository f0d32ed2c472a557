//! gRPC: one door to the service layer. It converts, checks who calls, and hands on.
//!
//! The same services stand behind two doors, the TLS port and the node's local socket; who may call what is one table
//! ([`access`]).

mod access;
mod authority;
mod clusters;
mod events;
mod forward;
mod images;
mod logs;
mod nodes;
mod operators;
mod pending;
mod quorum;
mod raft;
mod services;
mod sessions;
mod status;
mod tasks;
mod views;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use swarm_model::ClusterId;
use swarm_pki::{Expelled, accept_tls};
use swarm_proto::v1;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::error;

use crate::authority::ClusterAuthority;
use crate::engine::Engine;
use crate::images::Images;
use crate::keys::Keyring;
use crate::logs::Logs;
use crate::peers::Peers;
use crate::text::chain;
pub use access::{Audience, Door, Guarded};
use forward::{Forward, Led};

/// Of any message to a manager. The largest spec has a third of it.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Calls at the same time on one connection.
const MAX_CALLS: u32 = 1_024;
/// A peer whose host died without a word is noticed after the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Of an uploaded archive, this much is on its way at once.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Headers of a call: its path, and little else.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Everything that stands behind the doors.
#[derive(Clone)]
pub struct Services {
    pub engine: Engine,
    /// Of this manager's node.
    pub hostname: Arc<str>,
    pub images: Images,
    pub logs: Logs,
    pub authority: ClusterAuthority,
    pub keyring: Keyring,
    pub peers: Peers,
    /// Whose connections are cut.
    pub expelled: Expelled,
    /// Ends every stream when the manager stops.
    pub stopping: CancellationToken,
}

impl Services {
    /// The services as a door has them.
    pub fn routes(&self, door: Door) -> Routes {
        let engine = || self.engine.clone();
        let services = services::ServiceCalls { engine: engine(), images: self.images.clone() };
        let clusters = clusters::ClusterCalls {
            engine: engine(),
            authority: self.authority.clone(),
            keyring: self.keyring.clone(),
        };
        let sessions = sessions::SessionCalls::new(engine(), self.peers.clone(), self.stopping.clone());
        let logs = logs::LogCalls { logs: self.logs.clone(), stopping: self.stopping.clone() };
        let watch = watch::WatchCalls::new(engine(), self.stopping.clone());
        let raft =
            raft::RaftCalls { engine: engine(), peers: self.peers.clone(), stopping: self.stopping.clone() };
        let authority = authority::AuthorityCalls { authority: self.authority.clone() };
        let forward = Forward { engine: engine(), peers: self.peers.clone() };
        let gate = access::Gate {
            door,
            hostname: Arc::clone(&self.hostname),
            removed: self.engine.removed(),
            operators: self.engine.operators(),
        };
        let mut routes = Routes::builder();
        macro_rules! add {
            ($($module:ident::$server:ident($calls:expr);)*) => {$(
                let service = v1::$module::$server::new($calls)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
                routes.add_service(Guarded::new(Led::new(service, forward.clone()), gate.clone()));
            )*};
        }
        add! {
            services_server::ServicesServer(services);
            tasks_server::TasksServer(tasks::TaskCalls { engine: engine() });
            nodes_server::NodesServer(nodes::NodeCalls { engine: engine() });
            clusters_server::ClustersServer(clusters);
            images_server::ImagesServer(images::ImageCalls::new(engine(), self.images.clone()));
            operators_server::OperatorsServer(operators::OperatorCalls { engine: engine(), authority: self.authority.clone() });
            events_server::EventsServer(events::EventCalls { engine: engine(), stopping: self.stopping.clone() });
            watch_server::WatchServer(watch);
            logs_server::LogsServer(logs);
            sessions_server::SessionsServer(sessions);
            certificate_authority_server::CertificateAuthorityServer(authority);
            raft_server::RaftServer(raft);
        }
        routes.routes()
    }

    /// Serves the TLS port until the manager stops.
    pub fn serve(
        &self,
        listener: TcpListener,
        config: Arc<ArcSwap<ServerConfig>>,
        cluster: ClusterId,
    ) -> JoinHandle<()> {
        let incoming = accept_tls(listener, config, cluster, self.expelled.clone());
        let stopping = self.stopping.clone().cancelled_owned();
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_CALLS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .add_routes(self.routes(Door::Network));
        tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopping).await {
                error!(error = chain(&error), "the manager's port is not served any more");
            }
        })
    }
}
