//! Connections to managers. The server must prove to be a manager of the own cluster.
//!
//! It does not retry: who dials decides when to dial again. After a change of credentials, dial anew and let the old
//! channel drain.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use swarm_model::NodeId;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::coalesced::Coalesced;
use crate::credentials::Credentials;
use crate::identity::manager_name;
use crate::tls::{TlsError, client_config};

/// For the TCP connection and the TLS handshake together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A manager whose host died without a word is noticed after the sum of both.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Image content flows at this much per round trip: 4 MiB in 1 ms is more than any disk takes.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Dials managers with the node's current credentials.
#[derive(Clone)]
pub struct Dialler {
    config: Arc<ArcSwap<ClientConfig>>,
}

/// Why a manager was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0:?} is not an address of the form host:port")]
    Address(String),
    #[error("cannot reach a manager at {address}")]
    Connect {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl Dialler {
    /// # Errors
    /// The credentials cannot be used.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(ArcSwap::new(client_config(credentials)?)) })
    }

    /// Connections from now on prove these credentials; those that exist keep the old ones.
    ///
    /// # Errors
    /// The credentials cannot be used.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), TlsError> {
        self.config.store(client_config(credentials)?);
        Ok(())
    }

    /// Connects to whichever manager answers at `address` (`host:port`).
    ///
    /// # Errors
    /// Nothing answers there in time, or it is no manager of this cluster.
    pub async fn connect(&self, address: &str) -> Result<Channel, DialError> {
        connect(address, None, self.config.load_full()).await
    }

    /// Connects to the manager that is `node`, and to no other.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_to(&self, node: NodeId, address: &str) -> Result<Channel, DialError> {
        connect(address, Some(node), self.config.load_full()).await
    }

    /// The TLS connection alone, for who speaks HTTP/2 without a [`Channel`].
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn stream(&self, address: &str) -> io::Result<Coalesced<TlsStream<TcpStream>>> {
        handshake(address, server_name(None), self.config.load_full()).await
    }
}

fn server_name(node: Option<NodeId>) -> ServerName<'static> {
    ServerName::try_from(manager_name(node)).expect("node ids are DNS labels")
}

async fn handshake(
    address: &str,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> io::Result<Coalesced<TlsStream<TcpStream>>> {
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, stream).await.map(Coalesced::new)
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(CONNECT_TIMEOUT, handshake).await.map_err(late)?
}

/// `node`: exactly this manager; else any of the cluster.
pub(crate) async fn connect(
    address: &str,
    node: Option<NodeId>,
    config: Arc<ClientConfig>,
) -> Result<Channel, DialError> {
    let refuse = || DialError::Address(address.chars().take(128).collect());
    let uri: Uri = format!("http://{address}").parse().map_err(|_| refuse())?;
    if uri.port_u16().is_none() || uri.host().is_none() {
        return Err(refuse());
    }
    let name = server_name(node);
    let target = uri.authority().map(ToString::to_string).ok_or_else(refuse)?;
    let connector = tower::service_fn(move |_: Uri| {
        let (target, name, config) = (target.clone(), name.clone(), Arc::clone(&config));
        async move { handshake(&target, name, config).await.map(TokioIo::new) }
    });
    let connected = endpoint(uri).connect_with_connector(connector).await;
    connected.map_err(|source| DialError::Connect { address: address.to_owned(), source })
}

/// How connections to managers are kept.
pub(crate) fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}
