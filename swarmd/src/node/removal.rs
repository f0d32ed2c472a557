//! A node that the managers removed: it stops what it ran for the cluster, and asks the managers no more. That it was a
//! member is kept on disk until its operator lets it leave.

use std::time::Duration;

use swarm_model::{NodeId, Timestamp};
use tracing::{error, warn};

use super::Node;
use super::place::{Place, Record};

/// Before it is tried again to write down the removal, or to stop what is left.
const RETRY: Duration = Duration::from_secs(5);

/// What such a node was.
#[derive(Debug, Clone)]
pub struct Removal {
    pub node: NodeId,
    pub cluster: swarm_model::ClusterId,
    pub at: Timestamp,
}

impl std::fmt::Display for Removal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = i64::try_from(self.at.as_micros()).unwrap_or_default();
        let at = swarm_runtime::Timestamp::from_microsecond(micros).unwrap_or_default();
        write!(
            f,
            "this node was removed from the cluster at {at:.0}: run `swarmctl cluster leave --force` to clean up, then \
             join again"
        )
    }
}

impl Node {
    /// Ends the membership whenever the managers say that they ended it.
    pub async fn follow_removal(&self) {
        loop {
            self.removals.notified().await;
            while let Err(error) = self.accept_removal().await {
                warn!(error = format!("{error:#}"), "the node cannot end its membership yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn accept_removal(&self) -> anyhow::Result<()> {
        let _change = self.change.lock().await;
        let mut membership = self.membership.lock().await;
        let Some(member) = membership.as_ref() else { return Ok(()) };
        let Some(at) = *member.managers().removed().borrow() else { return Ok(()) };
        let identity = member.credentials().identity();
        let removal = Removal { node: identity.node, cluster: identity.cluster, at };
        let record = Record { removed_at: Some(at.as_micros()), ..member.record().clone() };
        // First of all: a daemon that starts again must not begin anew.
        Place::new(&self.config).note(&record)?;
        error!(node.id = %removal.node, "{removal}");
        *self.removal.lock().await = Some(removal);
        if let Some(member) = membership.take() {
            member.stop(&self.door, true).await;
        }
        Ok(())
    }
}
