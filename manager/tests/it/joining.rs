//! Join tokens against a running manager.

use swarm_pki::{JoinError, JoinRequest, JoinSecret, JoinToken, join};
use swarm_proto::v1;
use tonic::Code;

use crate::support::Cluster;

fn request(cluster: &Cluster, token: JoinToken) -> JoinRequest {
    JoinRequest {
        token,
        managers: vec![cluster.address()],
        hostname: "node-2".to_owned(),
        data_address: "10.0.0.2".to_owned(),
        manager_address: String::new(),
    }
}

async fn refusal(cluster: &Cluster, token: JoinToken) -> (Code, String) {
    match join(&request(cluster, token)).await.unwrap_err() {
        JoinError::Refused { code, message, .. } => (code, message),
        other => panic!("not refused by the manager: {other}"),
    }
}

#[tokio::test]
async fn a_node_joins_and_is_listed() {
    let cluster = Cluster::new().await;
    let credentials = cluster.join("node-2").await;
    let mut nodes = v1::nodes_client::NodesClient::new(cluster.operator.clone());
    let listed = nodes.list(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    let joined = listed.iter().find(|node| node.id == credentials.identity().node.to_string()).unwrap();
    assert_eq!(joined.engine.as_ref().unwrap().hostname, "node-2");
    assert_eq!(listed.len(), 2);
    cluster.manager.stop().await;
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_leave_nothing() {
    let cluster = Cluster::new().await;
    let valid: JoinToken = cluster.token(v1::NodeRole::Worker).await.parse().unwrap();

    let (code, message) = refusal(&cluster, JoinToken { secret: JoinSecret::generate(), ..valid }).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("swarmctl cluster join-token"), "{message}");

    let other = Cluster::new().await;
    let foreign: JoinToken = other.token(v1::NodeRole::Worker).await.parse().unwrap();
    let error = join(&request(&cluster, foreign)).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongRoot { .. }), "{error}");

    let manager: JoinToken = cluster.token(v1::NodeRole::Manager).await.parse().unwrap();
    let (code, message) = refusal(&cluster, manager).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("manager address"), "{message}");

    let mut clusters = v1::clusters_client::ClustersClient::new(cluster.operator.clone());
    let rotate = v1::GetJoinTokenRequest { role: v1::NodeRole::Worker as i32 };
    let rotated = clusters.rotate_join_token(rotate).await.unwrap().into_inner();
    assert_eq!(rotated.managers, ["manager.test:2377"]);
    assert_eq!(refusal(&cluster, valid).await.0, Code::PermissionDenied);
    join(&request(&cluster, rotated.token.parse().unwrap())).await.unwrap();

    let info = clusters.get(v1::GetClusterRequest {}).await.unwrap().into_inner();
    assert_eq!((info.nodes, info.managers), (2, 1));
}

#[tokio::test]
async fn what_a_joining_node_says_of_itself_is_checked() {
    let cluster = Cluster::new().await;
    let token: JoinToken = cluster.token(v1::NodeRole::Worker).await.parse().unwrap();
    for (hostname, data_address) in [("", "10.0.0.2"), ("two words", "10.0.0.2"), ("node-2", "nowhere")] {
        let strange = JoinRequest {
            hostname: hostname.to_owned(),
            data_address: data_address.to_owned(),
            ..request(&cluster, token)
        };
        let error = join(&strange).await.unwrap_err();
        assert!(
            matches!(error, JoinError::Refused { code: Code::InvalidArgument, .. }),
            "{hostname:?} {data_address:?}: {error}"
        );
    }
}
