//! The node's membership: in no cluster, or in one as worker or manager. Remembered on disk; one change at a time.

mod address;
mod doctor;
mod local;
mod membership;

use anyhow::Context;
use swarm_model::EngineDescription;
use swarm_pki::Credentials;
use tokio::sync::{Mutex, watch};
use tracing::info;

use crate::config::Config;
use crate::door::ManagerDoor;
pub use local::LocalService;
use membership::{Membership, Place};

/// The node, for as long as the daemon runs.
pub struct Node {
    config: Config,
    door: ManagerDoor,
    /// Held while the membership changes: one change at a time.
    change: Mutex<()>,
    membership: Mutex<Option<Membership>>,
    /// Raised when the node's manager cannot go on.
    failure: watch::Sender<Option<String>>,
}

impl Node {
    /// Brings the node back to where it was.
    ///
    /// # Errors
    /// What is on disk cannot be used, or the manager or the agent does not start.
    pub async fn open(config: Config, door: ManagerDoor) -> anyhow::Result<Self> {
        let place = Place::new(&config);
        place.make()?;
        let node = Self {
            config,
            door,
            change: Mutex::new(()),
            membership: Mutex::new(None),
            failure: watch::Sender::new(None),
        };
        let Some(record) = place.record()? else { return Ok(node) };
        let credentials = Credentials::load(&place.credentials())?
            .with_context(|| format!("{} is missing", place.credentials().display()))?;
        let membership = Membership::resume(
            &node.config,
            record.clone(),
            node.engine(record.data_address),
            credentials,
            &node.door,
        )
        .await?;
        info!(node.id = %membership.credentials().identity().node, "back in the cluster");
        node.keep(membership).await;
        Ok(node)
    }

    /// Resolves when the node cannot go on, with the reason.
    pub async fn failed(&self) -> anyhow::Error {
        let mut failure = self.failure.subscribe();
        let reason = failure.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        anyhow::anyhow!(reason.unwrap_or_else(|| "the node failed".to_owned()))
    }

    /// Stops in good order; containers go on, unless the node is ephemeral.
    pub async fn stop(&self) {
        if let Some(membership) = self.membership.lock().await.take() {
            membership.stop(&self.door, self.config.ephemeral).await;
        }
    }

    async fn keep(&self, membership: Membership) {
        if let Some(failed) = membership.failure() {
            let failure = self.failure.clone();
            tokio::spawn(async move {
                failed.await;
                let _ = failure.send(Some("the manager's disk failed; see the log above".to_owned()));
            });
        }
        *self.membership.lock().await = Some(membership);
    }

    fn engine(&self, data_address: std::net::Ipv4Addr) -> EngineDescription {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        swarm_agent::describe(
            Some(self.config.hostname.clone()),
            self.config.labels.clone(),
            data_address,
            version,
        )
    }
}
