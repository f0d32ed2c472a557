//! How the agent reaches managers: a way to open a connection with the node's identity, and the addresses to try.
//!
//! The session has a connection of its own. Image content and logs go over others: data that one side is slow to take
//! fills a connection's window, and must not hold up heartbeats.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use swarm_model::{NodeRole, Timestamp};
use tokio::sync::watch;
use tonic::transport::Channel;

/// Opening a connection, TLS included. A manager that takes longer is as good as down.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// Managers of hearsay are kept up to so many: some have gone since.
const ADDRESSES_LIMIT: usize = 32;

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
    /// What the managers say that this node is to be.
    role: Arc<watch::Sender<Option<NodeRole>>>,
    /// When they removed this node.
    removed: Arc<watch::Sender<Option<Timestamp>>>,
    /// Root certificates that they want believed, PEM.
    roots: Arc<watch::Sender<Option<Arc<str>>>>,
    /// Digest of the root that issued this node's certificate.
    certified: Arc<watch::Sender<String>>,
    /// The last connection for image content.
    content: Arc<Mutex<Option<(String, Channel)>>>,
}

#[derive(Default)]
struct Known {
    addresses: Vec<String>,
    /// The manager of the newest session.
    current: Option<String>,
}

impl Managers {
    /// `dial` opens a channel to a `host:port` with the node's own identity, and checks the manager's.
    pub fn new(
        dial: impl Fn(String) -> BoxFuture<'static, Result<Channel, UnreachableError>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            dial: Arc::new(dial),
            known: Arc::default(),
            role: Arc::default(),
            removed: Arc::default(),
            roots: Arc::default(),
            certified: Arc::default(),
            content: Arc::default(),
        }
    }

    pub(crate) async fn dial(&self, manager: &str) -> Result<Channel, UnreachableError> {
        let slow = |_| UnreachableError {
            manager: manager.to_owned(),
            reason: format!("no connection within {} s", DIAL_LIMIT.as_secs()),
        };
        tokio::time::timeout(DIAL_LIMIT, (self.dial)(manager.to_owned())).await.map_err(slow)?
    }

    /// A connection for image content: the last one, if it leads to the same manager.
    pub(crate) async fn dial_for_content(&self, manager: &str) -> Result<Channel, UnreachableError> {
        if let Some((_, channel)) = self.content.lock().as_ref().filter(|(of, _)| of == manager) {
            return Ok(channel.clone());
        }
        let channel = self.dial(manager).await?;
        *self.content.lock() = Some((manager.to_owned(), channel.clone()));
        Ok(channel)
    }

    /// What came over the connection for image content failed: the next is a new one.
    pub(crate) fn hang_up_content(&self) {
        *self.content.lock() = None;
    }

    pub(crate) fn set_current(&self, manager: String) {
        self.known.lock().current = Some(manager);
    }

    pub(crate) fn set_role(&self, role: NodeRole) {
        self.role.send_if_modified(|told| told.replace(role) != Some(role));
    }

    /// What the managers say that this node is to be; `None` until they have said it.
    pub fn role(&self) -> watch::Receiver<Option<NodeRole>> {
        self.role.subscribe()
    }

    pub(crate) fn set_roots(&self, roots: Arc<str>) {
        self.roots.send_if_modified(|told| {
            let news = told.as_ref() != Some(&roots);
            *told = Some(roots);
            news
        });
    }

    /// Root certificates that the managers want believed, PEM, the last one of which issues; `None` until they have said it.
    pub fn roots(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.roots.subscribe()
    }

    /// Tells the managers which root issued the certificate that this node has and keeps: its digest as in join tokens.
    pub fn set_certified(&self, root_digest: String) {
        self.certified.send_if_modified(|told| {
            let news = *told != root_digest;
            *told = root_digest;
            news
        });
    }

    pub(crate) fn certified(&self) -> watch::Receiver<String> {
        self.certified.subscribe()
    }

    pub(crate) fn set_removed(&self, at: Timestamp) {
        self.removed.send_if_modified(|known| known.replace(at) != Some(at));
    }

    /// When the managers removed this node from the cluster; `None`: it is a member, as far as it knows. Whoever runs the
    /// agent ends it then.
    pub fn removed(&self) -> watch::Receiver<Option<Timestamp>> {
        self.removed.subscribe()
    }

    /// `host:port` of every known manager, the session's first.
    pub fn addresses(&self) -> Vec<String> {
        self.candidates()
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<String>) {
        self.known.lock().addresses = addresses;
    }

    /// More of them; of a manager that may be out of date itself, or of the operator.
    pub fn add_addresses(&self, addresses: &[String]) {
        let mut known = self.known.lock();
        for address in addresses {
            if known.addresses.len() < ADDRESSES_LIMIT && !known.addresses.contains(address) {
                known.addresses.push(address.clone());
            }
        }
    }

    /// Every known manager, the session's first.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let known = self.known.lock();
        let others = known.addresses.iter().filter(|address| Some(*address) != known.current.as_ref());
        known.current.iter().chain(others).cloned().collect()
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
