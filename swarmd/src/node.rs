//! The node's membership: in no cluster, or in one as worker or manager. Remembered on disk; one change at a time.

mod address;
mod departure;
mod doctor;
mod local;
mod membership;
mod place;
mod recovery;
mod removal;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use swarm_manager::keys::{Keyring, Locked, Opened, UnlockKey};
use swarm_model::{EngineDescription, NodeRole, Timestamp};
use tokio::sync::{Mutex, Notify, watch};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::door::ManagerDoor;
pub use local::LocalService;
use membership::Membership;
use place::{Place, Record};
use removal::Removal;

/// Before it is tried again to follow the managers.
const NEWS_RETRY: Duration = Duration::from_millis(500);

/// A wrong unlock key is answered after so long, and the next one is looked at after that.
const WRONG_KEY_PAUSE: Duration = Duration::from_secs(1);
/// Before a renewal is tried again, at most; a certificate that does not live long is tried for more often.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);
const RETRIES_IN_LIFE: u32 = 50;
/// How often it is looked whether a certificate is to be renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(600);

/// Why a certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// The managers may have another role for the node.
    OfRole,
    /// It will expire, or the operator wants a new one.
    OfCertificate,
}

/// The node, for as long as the daemon runs.
pub struct Node {
    config: Config,
    door: ManagerDoor,
    /// Held while the membership changes: one change at a time.
    change: Mutex<()>,
    membership: Mutex<Option<Membership>>,
    /// The data key of a manager that waits to be unlocked; there is no membership then.
    locked: Mutex<Option<Locked>>,
    /// The managers may have said that the node is to be something else.
    news: Arc<Notify>,
    /// The managers may have said that the node is a member no more.
    removals: Arc<Notify>,
    /// What the node was until the managers removed it.
    removal: Mutex<Option<Removal>>,
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
            locked: Mutex::new(None),
            news: Arc::default(),
            removals: Arc::default(),
            removal: Mutex::new(None),
            failure: watch::Sender::new(None),
        };
        let Some(record) = place.record()? else { return Ok(node) };
        let identity = place.identity()?;
        if let Some(at) = record.removed_at.map(Timestamp::from_micros) {
            let removal = Removal { node: identity.node, cluster: identity.cluster, at };
            warn!(node.id = %removal.node, "{removal}");
            *node.removal.lock().await = Some(removal);
            return Ok(node);
        }
        let keyring = match identity.role {
            NodeRole::Worker => None,
            NodeRole::Manager => match place.open_keyring()? {
                Opened::Unlocked(keyring) => Some(keyring),
                Opened::Locked(locked) => {
                    warn!(
                        "this manager is locked: run `swarmctl cluster unlock`; its containers go on meanwhile"
                    );
                    node.door.lock();
                    *node.locked.lock().await = Some(locked);
                    return Ok(node);
                }
            },
        };
        node.resume(record, keyring).await?;
        Ok(node)
    }

    async fn resume(&self, record: Record, keyring: Option<Keyring>) -> anyhow::Result<()> {
        let credentials = Place::new(&self.config).load_credentials(keyring.as_ref())?;
        let engine = self.engine(record.data_address);
        let resumed = Membership::resume(&self.config, record, engine, credentials, keyring, &self.door);
        let membership = resumed.await?;
        info!(node.id = %membership.credentials().identity().node, "back in the cluster");
        self.keep(membership).await;
        Ok(())
    }

    /// Brings a locked manager back to where it was.
    ///
    /// # Errors
    /// It is not locked, it is another key, or the manager does not start; then it is locked as before.
    async fn unlock(&self, key: &UnlockKey) -> anyhow::Result<()> {
        let mut locked = self.locked.lock().await;
        let keyring = match &*locked {
            Some(wrapped) => wrapped.unlock(key),
            None => anyhow::bail!("this node is not locked"),
        };
        let keyring = match keyring {
            Ok(keyring) => keyring,
            Err(error) => {
                // Guesses wait for each other.
                tokio::time::sleep(WRONG_KEY_PAUSE).await;
                return Err(error.into());
            }
        };
        let record = Place::new(&self.config).record()?.context("this node is in no cluster")?;
        self.resume(record, Some(keyring)).await?;
        *locked = None;
        info!("this manager was unlocked");
        Ok(())
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

    /// Makes the node what the managers say that it is to be: a worker that is promoted, a manager that is demoted, one
    /// that believes other roots.
    pub async fn follow_news(&self) {
        loop {
            self.news.notified().await;
            while let Err(error) = self.obey_news().await {
                warn!(error = format!("{error:#}"), "the node cannot follow its managers yet");
                tokio::time::sleep(NEWS_RETRY).await;
            }
        }
    }

    async fn obey_news(&self) -> anyhow::Result<()> {
        if self.believe_roots().await? {
            self.renew(Renewal::OfCertificate).await?;
        }
        self.renew(Renewal::OfRole).await
    }

    /// Believes the roots that the managers say. Whether the certificate is of another one than the one that issues now.
    async fn believe_roots(&self) -> anyhow::Result<bool> {
        let _change = self.change.lock().await;
        let mut membership = self.membership.lock().await;
        let Some(member) = &mut *membership else { return Ok(false) };
        let Some(told) = member.managers().roots().borrow().clone() else { return Ok(false) };
        if *told != *member.credentials().roots_pem() {
            let trusting = member.credentials().trusting(&told)?;
            member.renew(&self.config, trusting)?;
            info!("the cluster's root certificates changed");
        }
        let credentials = member.credentials();
        Ok(credentials.issued_by()? != Some(credentials.issuing_root()?))
    }

    /// Renews the certificate in good time, for as long as the node is a member.
    pub async fn stay_certified(&self) {
        loop {
            tokio::time::sleep(self.until_renewal().await).await;
            if !self.until_renewal().await.is_zero() {
                continue;
            }
            if let Err(error) = self.renew(Renewal::OfCertificate).await {
                match self.expiry_notice().await {
                    notice if notice.is_empty() => {
                        warn!(error = format!("{error:#}"), "the node's certificate cannot be renewed yet");
                    }
                    notice => error!(error = format!("{error:#}"), "{notice}"),
                }
                tokio::time::sleep(self.renewal_retry().await).await;
            }
        }
    }

    async fn expiry_notice(&self) -> String {
        let membership = self.membership.lock().await;
        let notice = membership.as_ref().map(|it| local::expiry_notice(it.credentials(), SystemTime::now()));
        notice.unwrap_or_default()
    }

    /// Zero: it is time. Looked at again now and then, as clocks are set and memberships change.
    async fn until_renewal(&self) -> Duration {
        let membership = self.membership.lock().await;
        let Some((made, to)) = membership.as_ref().and_then(life) else { return RENEWAL_LOOK };
        renewal_in(made, to, SystemTime::now()).min(RENEWAL_LOOK)
    }

    async fn renewal_retry(&self) -> Duration {
        let membership = self.membership.lock().await;
        let Some((made, to)) = membership.as_ref().and_then(life) else { return RENEWAL_RETRY };
        RENEWAL_RETRY.min(to.duration_since(made).unwrap_or_default() / RETRIES_IN_LIFE)
    }

    /// Asks the managers for a new certificate; with another role, the node becomes what it says.
    ///
    /// # Errors
    /// No manager answers, or they refuse; the node is what it was.
    async fn renew(&self, what: Renewal) -> anyhow::Result<()> {
        let _change = self.change.lock().await;
        let (credentials, advertise, managers) = match &*self.membership.lock().await {
            Some(member) => {
                let told = *member.managers().role().borrow();
                let same = told.is_none_or(|told| told == member.credentials().identity().role);
                if same && what == Renewal::OfRole {
                    return Ok(());
                }
                let advertise = member.record().advertise.to_string();
                (Arc::clone(member.credentials()), advertise, member.managers().addresses())
            }
            None => return Ok(()),
        };
        if credentials.has_expired(SystemTime::now())? && self.certify_itself().await? {
            return Ok(());
        }
        let renewed = swarm_pki::renew(&credentials, &managers, &advertise).await?;
        if renewed.credentials.identity().role == credentials.identity().role && what == Renewal::OfRole {
            return Ok(());
        }
        self.adopt(renewed).await
    }

    /// A manager's own work, where the others would not listen any more. `false`: it is none.
    async fn certify_itself(&self) -> anyhow::Result<bool> {
        let mut membership = self.membership.lock().await;
        let Some(member) = &mut *membership else { return Ok(false) };
        let Some(credentials) = member.certify_itself().await? else { return Ok(false) };
        member.renew(&self.config, credentials)?;
        warn!("this manager's certificate had expired; it made itself a new one");
        Ok(true)
    }

    /// A member whose certificate has expired, or that reaches no manager and is told one that it does not know: a token
    /// brings it back as what it was.
    async fn may_join_again(&self, managers: &[String]) -> bool {
        let membership = self.membership.lock().await;
        membership.as_ref().is_some_and(|member| {
            let known = member.managers().addresses();
            let is_new = |named: &String| address::manager(named).is_ok_and(|named| !known.contains(&named));
            let expired = member.credentials().has_expired(SystemTime::now());
            member.is_lost() && managers.iter().any(is_new) || matches!(expired, Ok(true))
        })
    }

    /// Goes on with new credentials; with another role, as what they say.
    async fn adopt(&self, renewed: swarm_pki::Joined) -> anyhow::Result<()> {
        let role = renewed.credentials.identity().role;
        let mut membership = self.membership.lock().await;
        if let Some(member) = membership.as_mut().filter(|it| it.credentials().identity().role == role) {
            member.renew(&self.config, renewed.credentials)?;
            member.name_managers(&renewed.managers);
            info!("the node's certificate was renewed");
            return Ok(());
        }
        let Some(member) = membership.take() else { return Ok(()) };
        drop(membership);
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
        notify(membership.managers().role(), &self.news);
        notify(membership.managers().roots(), &self.news);
        notify(membership.managers().removed(), &self.removals);
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

/// Wakes who listens for what the managers say: now, and whenever it changes, until the membership ends.
fn notify<T: Send + Sync + 'static>(mut said: watch::Receiver<T>, listener: &Arc<Notify>) {
    let listener = Arc::clone(listener);
    said.mark_changed();
    tokio::spawn(async move {
        while said.changed().await.is_ok() {
            listener.notify_one();
        }
    });
}

/// From when to when the member's certificate lives.
fn life(member: &Membership) -> Option<(SystemTime, SystemTime)> {
    let credentials = member.credentials();
    Some((credentials.made_at().ok()?, credentials.validity().ok()?.1))
}

/// In how long a certificate is to be renewed: at a point of its own between a half and four fifths of its life, so that
/// the nodes of a cluster made in one minute do not all come at once.
fn renewal_in(from: SystemTime, to: SystemTime, now: SystemTime) -> Duration {
    let life = to.duration_since(from).unwrap_or_default();
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    // Spread by the certificate's own time of making and this process: the same each time it is asked.
    let spread = (seconds(to) ^ u64::from(std::process::id()).wrapping_mul(0x9e37_79b9)) % 31;
    let at = from + life / 2 + life / 100 * u32::try_from(spread).unwrap_or(0);
    at.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_between_half_and_four_fifths_of_its_life() {
        let day = Duration::from_secs(86_400);
        let from = SystemTime::UNIX_EPOCH + 20_000 * day;
        for life in 1..200 {
            let wait = renewal_in(from, from + life * day, from);
            assert!(wait >= life * day / 2 && wait <= life * day / 5 * 4, "{wait:?} of {life} days");
        }
        assert_eq!(renewal_in(from, from + day, from + day), Duration::ZERO);
    }
}
