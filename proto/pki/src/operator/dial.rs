//! A channel to whichever manager answers: the addresses are tried in order, the one that answered last first. When its
//! connection is lost, the next call dials again.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Uri};

use super::{OperatorCredentials, operator_config};
use crate::dial::endpoint;
use crate::identity::manager_name;
use crate::tls::TlsError;

/// For the TCP connection and the TLS handshake with one manager.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Dials the managers of one cluster as an operator. Clones share what was learnt.
#[derive(Clone)]
pub struct OperatorDialler {
    config: Arc<ArcSwap<ClientConfig>>,
    managers: Arc<Mutex<Vec<String>>>,
}

/// No manager was reached: each address that was tried, and why it was not.
#[derive(Debug, Clone)]
pub struct Unreachable(pub Vec<(String, String)>);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no manager could be reached")
    }
}

impl std::error::Error for Unreachable {}

impl OperatorDialler {
    /// `managers`: `host:port`, in the order in which they are tried.
    ///
    /// # Errors
    /// The credentials cannot be used.
    pub fn new(credentials: &OperatorCredentials, managers: Vec<String>) -> Result<Self, TlsError> {
        let config = Arc::new(ArcSwap::new(operator_config(credentials)?));
        Ok(Self { config, managers: Arc::new(Mutex::new(managers)) })
    }

    /// The managers, the one that answered last in front.
    pub fn managers(&self) -> Vec<String> {
        self.managers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// # Errors
    /// None answered.
    pub async fn connect(&self) -> Result<Channel, Unreachable> {
        let dialler = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dialler = dialler.clone();
            async move { dialler.dial().await.map(TokioIo::new) }
        });
        let endpoint = endpoint(Uri::from_static("http://managers"));
        endpoint.connect_with_connector(connector).await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            loop {
                match (cause.downcast_ref::<Unreachable>(), cause.source()) {
                    (Some(unreachable), _) => return unreachable.clone(),
                    (None, Some(source)) => cause = source,
                    (None, None) => return Unreachable(vec![("managers".to_owned(), cause.to_string())]),
                }
            }
        })
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, Unreachable> {
        let mut tried = Vec::new();
        for address in self.managers() {
            match tokio::time::timeout(ADDRESS_TIMEOUT, self.dial_at(&address)).await {
                Ok(Ok(stream)) => {
                    self.answered(&address);
                    return Ok(stream);
                }
                Ok(Err(error)) => tried.push((address, error.to_string())),
                Err(_) => {
                    tried.push((address, format!("no answer within {} s", ADDRESS_TIMEOUT.as_secs())));
                }
            }
        }
        Err(Unreachable(tried))
    }

    async fn dial_at(&self, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(manager_name(None)).expect("a unit is a DNS label");
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(self.config.load_full()).connect(name, stream).await
    }

    fn answered(&self, address: &str) {
        let mut managers = self.managers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = managers.iter().position(|known| known == address) {
            managers[..=at].rotate_right(1);
        }
    }
}
