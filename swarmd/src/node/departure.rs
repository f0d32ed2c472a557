//! A manager that leaves its cluster is demoted first, and taken out by the others: so they keep their quorum.

use std::time::Duration;

use swarm_manager::Manager;
use swarm_model::NodeId;
use swarm_proto::v1;
use swarm_proto::v1::clusters_client::ClustersClient;
use swarm_proto::v1::nodes_client::NodesClient;
use tonic::Status;

/// For the others to take it out: two log entries, and a change of leader.
const STEP_BACK_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Demotes the manager of this node, and waits until it is none.
///
/// # Errors
/// It is the last one, or the others would lose their quorum; the text says so.
pub async fn step_back(node: NodeId, manager: &Manager) -> Result<(), Status> {
    let mut clusters = ClustersClient::new(manager.local_routes());
    let mut nodes = NodesClient::new(manager.local_routes());
    let cluster = clusters.get(v1::GetClusterRequest {}).await.map_err(advise)?.into_inner();
    if cluster.managers == 1 {
        return Err(Status::failed_precondition(
            "this node is the last manager: the cluster and all its state end with it; to do it all the same: swarmctl \
             cluster leave --force",
        ));
    }
    let get = || v1::GetNodeRequest { node: node.to_string() };
    let own = nodes.get(get()).await.map_err(advise)?.into_inner();
    let mut spec = own.spec.unwrap_or_default();
    spec.role = v1::NodeRole::Worker as i32;
    let version = own.meta.map_or(0, |meta| meta.version);
    let update = v1::UpdateNodeRequest { node_id: own.id, version, spec: Some(spec) };
    nodes.update(update).await.map_err(advise)?;
    let left = async {
        loop {
            match nodes.get(get()).await {
                Ok(own) if own.get_ref().manager_status() == v1::ManagerStatus::Unspecified => return,
                // While leadership moves, there may be no answer.
                Ok(_) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    tokio::time::timeout(STEP_BACK_TIMEOUT, left).await.map_err(|_| {
        Status::deadline_exceeded(
            "this node was demoted, but the other managers have not taken it out yet; repeat the command, or if they are \
             lost: swarmctl cluster leave --force",
        )
    })
}

fn advise(status: Status) -> Status {
    let message = format!(
        "this node is a manager and cannot leave in good order: {}; to leave all the same: swarmctl cluster leave --force",
        status.message()
    );
    Status::new(status.code(), message)
}
