//! The node's membership: in no cluster, or in one as worker or manager. Remembered on disk; one change at a time.

mod address;
mod departure;
mod doctor;
mod local;
mod membership;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use swarm_model::EngineDescription;
use swarm_pki::Credentials;
use tokio::sync::{Mutex, Notify, watch};
use tracing::{info, warn};

use crate::config::Config;
use crate::door::ManagerDoor;
pub use local::LocalService;
use membership::{Membership, Place};

/// Before a change of role is tried again.
const ROLE_RETRY: Duration = Duration::from_millis(500);

/// The node, for as long as the daemon runs.
pub struct Node {
    config: Config,
    door: ManagerDoor,
    /// Held while the membership changes: one change at a time.
    change: Mutex<()>,
    membership: Mutex<Option<Membership>>,
    /// The managers may have said that the node is to be something else.
    news: Arc<Notify>,
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
            news: Arc::default(),
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

    /// Makes the node what the managers say that it is to be: a worker that is promoted, a manager that is demoted.
    pub async fn follow_role(&self) {
        loop {
            self.news.notified().await;
            while let Err(error) = self.change_role().await {
                warn!(error = format!("{error:#}"), "the node cannot change its role yet");
                tokio::time::sleep(ROLE_RETRY).await;
            }
        }
    }

    async fn change_role(&self) -> anyhow::Result<()> {
        let _change = self.change.lock().await;
        let (credentials, advertise, managers) = match &*self.membership.lock().await {
            Some(member) => {
                let told = *member.managers().role().borrow();
                if told.is_none_or(|told| told == member.credentials().identity().role) {
                    return Ok(());
                }
                let advertise = member.record().advertise.to_string();
                (Arc::clone(member.credentials()), advertise, member.managers().addresses())
            }
            None => return Ok(()),
        };
        let renewed = swarm_pki::renew(&credentials, &managers, &advertise).await?;
        let role = renewed.credentials.identity().role;
        if role == credentials.identity().role {
            return Ok(());
        }
        let Some(member) = self.membership.lock().await.take() else { return Ok(()) };
        let engine = self.engine(member.record().data_address);
        match member.change(&self.config, engine, renewed, &self.door).await {
            Ok(changed) => {
                info!(?role, "this node has another role now");
                self.keep(changed).await;
            }
            Err(error) => {
                // With its new role written down, the next start of the daemon tries again.
                let _ = self.failure.send(Some(format!("cannot go on as {role:?}: {error:#}")));
            }
        }
        Ok(())
    }

    async fn keep(&self, membership: Membership) {
        let (mut role, news) = (membership.managers().role(), Arc::clone(&self.news));
        role.mark_changed();
        tokio::spawn(async move {
            while role.changed().await.is_ok() {
                news.notify_one();
            }
        });
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
