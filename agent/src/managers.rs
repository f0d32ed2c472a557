//! How the agent reaches managers: a way to open a channel with the node's identity, and the channel of the session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tonic::transport::Channel;

/// Opening a connection, TLS included. A manager that takes longer is as good as down.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

type Dial = dyn Fn(String) -> BoxFuture<'static, Result<Channel, UnreachableError>> + Send + Sync;

/// Why a manager cannot be reached; for the operator, cause first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manager {manager}: {reason}")]
pub struct UnreachableError {
    pub manager: String,
    pub reason: String,
}

/// The managers that this node knows. Clones are the same.
#[derive(Clone)]
pub struct Managers {
    dial: Arc<Dial>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    addresses: Vec<String>,
    /// The manager of the open session.
    current: Option<(String, Channel)>,
}

impl Managers {
    /// `dial` opens a channel to a `host:port` with the node's own identity, and checks the manager's.
    pub fn new(
        dial: impl Fn(String) -> BoxFuture<'static, Result<Channel, UnreachableError>> + Send + Sync + 'static,
    ) -> Self {
        Self { dial: Arc::new(dial), known: Arc::default() }
    }

    pub(crate) async fn dial(&self, manager: &str) -> Result<Channel, UnreachableError> {
        let slow = |_| UnreachableError {
            manager: manager.to_owned(),
            reason: format!("no connection within {} s", DIAL_LIMIT.as_secs()),
        };
        tokio::time::timeout(DIAL_LIMIT, (self.dial)(manager.to_owned())).await.map_err(slow)?
    }

    pub(crate) fn set_current(&self, manager: String, channel: Channel) {
        self.known.lock().current = Some((manager, channel));
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<String>) {
        self.known.lock().addresses = addresses;
    }

    /// Every known manager, the session's first, with its channel where one is open.
    pub(crate) fn candidates(&self) -> Vec<(String, Option<Channel>)> {
        let known = self.known.lock();
        let current = known.current.as_ref();
        let is_other = |address: &&String| current.is_none_or(|(current, _)| current != *address);
        let others = known.addresses.iter().filter(is_other).map(|address| (address.clone(), None));
        let current = current.map(|(address, channel)| (address.clone(), Some(channel.clone())));
        current.into_iter().chain(others).collect()
    }
}

impl fmt::Debug for Managers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Managers").field("addresses", &self.known.lock().addresses).finish_non_exhaustive()
    }
}

/// Managers reached over TLS with the node's certificate.
impl From<swarm_pki::Dialler> for Managers {
    fn from(dialler: swarm_pki::Dialler) -> Self {
        Self::new(move |manager| {
            let dialler = dialler.clone();
            Box::pin(async move {
                let failed = |error: swarm_pki::DialError| UnreachableError {
                    reason: crate::text::chain(&error),
                    manager: manager.clone(),
                };
                dialler.connect(&manager).await.map_err(failed)
            })
        })
    }
}
