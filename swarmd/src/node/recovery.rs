//! Bringing a cluster back: this node becomes its only manager, with a backup or with what its own disk holds.

use std::time::Duration;

use anyhow::Context;
use swarm_manager::OwnState;
use swarm_manager::backup::{self, BackupReader};
use swarm_manager::keys::UnlockKey;
use swarm_proto::v1;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::membership::{Beginning, Membership};
use super::place::{Place, Record};
use super::{Node, address};

/// Between two pieces of a backup.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// What was uploaded, read and found whole.
pub struct Upload {
    begin: v1::RestoreBegin,
    backup: backup::Backup,
}

impl Upload {
    /// # Errors
    /// The upload breaks off, or is no whole backup. Nothing was touched.
    pub async fn receive(mut messages: Streaming<v1::RestoreRequest>) -> anyhow::Result<Self> {
        let mut next = async || {
            let message = tokio::time::timeout(PIECE_TIMEOUT, messages.message()).await;
            Ok::<_, anyhow::Error>(message.context("the upload stopped")??)
        };
        let first = next().await?.context("the upload is empty")?;
        let begin = first.begin.context("the upload does not begin with how it is to be restored")?;
        let unlock = match begin.unlock_key.as_str() {
            "" => None,
            text => Some(text.parse::<UnlockKey>()?),
        };
        let mut reader = BackupReader::new(unlock);
        reader.push(&first.data)?;
        while let Some(message) = next().await? {
            reader.push(&message.data)?;
        }
        let backup = tokio::task::spawn_blocking(|| reader.finish()).await??;
        Ok(Self { begin, backup })
    }
}

impl Node {
    /// The node must be in no cluster.
    ///
    /// # Errors
    /// An address cannot be used, the port is taken, or the disk refused; the node is in no cluster then.
    pub async fn restore(&self, upload: Upload) -> anyhow::Result<v1::RestoreResponse> {
        let Upload { begin, backup } = upload;
        let advertise = address::advertised(&begin.advertise_address, self.config.listen.port())?;
        let data_address = match begin.data_address.as_str() {
            "" => *advertise.ip(),
            text => *address::advertised(text, 0)?.ip(),
        };
        let state = backup.state.clone();
        let managers = vec![advertise.to_string()];
        let record = Record { advertise, data_address, managers, seat: None, removed_at: None };
        let engine = self.engine(data_address);
        let beginning = Beginning::Restore(Box::new(backup));
        let membership = Membership::found(&self.config, record, engine, beginning, &self.door).await?;
        info!(node.id = %membership.credentials().identity().node, "cluster restored");
        self.keep(membership).await;
        Ok(v1::RestoreResponse { state: Some(state), status: None, address: advertise.to_string() })
    }

    /// What this manager would go on with alone; if `confirmed`, it does.
    ///
    /// # Errors
    /// There is a leader, it is no manager, or its disk cannot be used; it is what it was then.
    pub async fn recover(&self, confirmed: bool) -> Result<v1::RecoverResponse, Status> {
        let mut membership = self.membership.lock().await;
        let no_manager =
            || Status::failed_precondition("this node is not a manager, so it has nothing to recover");
        let member = membership.as_ref().ok_or_else(no_manager)?;
        let manager = member.manager().cloned().ok_or_else(no_manager)?;
        let node = member.credentials().identity().node;
        let state = manager.own_state().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let plan = plan(&state, node)?;
        if !confirmed {
            return Ok(plan);
        }
        warn!(
            raft.index = state.capture.index(),
            dropped = plan.dropped.len(),
            "this manager goes on alone, as its operator wants"
        );
        let Some(member) = membership.take() else { return Err(no_manager()) };
        drop(membership);
        let keyring = manager.keyring().clone();
        drop(manager);
        let record =
            Record { managers: vec![member.record().advertise.to_string()], ..member.record().clone() };
        member.stop(&self.door, false).await;
        let (directory, key) = (Place::new(&self.config).manager(), keyring.key().clone());
        let recover = move || swarm_manager::recover(&directory, &key, node);
        let recovered = tokio::task::spawn_blocking(recover).await;
        // It goes on in either case: with the others, or alone.
        let resumed = self.resume(record, Some(keyring)).await;
        let told = |error: anyhow::Error| Status::failed_precondition(format!("{error:#}"));
        recovered.map_err(|error| told(error.into()))?.map_err(|error| told(error.into()))?;
        if let Err(error) = resumed {
            let reason = format!("the recovered manager does not start: {error:#}");
            let _ = self.failure.send(Some(reason));
            return Err(told(error));
        }
        Ok(plan)
    }
}

fn plan(state: &OwnState, node: swarm_model::NodeId) -> Result<v1::RecoverResponse, Status> {
    if state.leader.is_some() {
        return Err(Status::failed_precondition(
            "the cluster has a leader, so nothing has to be recovered; where managers died a moment ago, repeat the command \
             in some seconds. To take a dead manager out: swarmctl node rm --force NODE",
        ));
    }
    let seated = state.capture.nodes().filter(|other| other.raft_id.is_some());
    let dropped = seated.filter(|other| other.id != node).map(|other| backup::manager(other));
    Ok(v1::RecoverResponse {
        kept: Some(backup::summary(&state.capture)),
        uncommitted: state.uncommitted,
        dropped: dropped.collect(),
    })
}
