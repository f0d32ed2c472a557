//! Who may call what, over real connections.

use swarm_pki::{Dialler, NodeKey};
use swarm_proto::v1;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::Cluster;

async fn list_services(channel: Channel) -> Code {
    let mut services = v1::services_client::ServicesClient::new(channel);
    services.list(v1::ListServicesRequest {}).await.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn operators_work_over_the_local_socket_and_nodes_do_not() {
    let cluster = Cluster::new().await;
    assert_eq!(list_services(cluster.operator.clone()).await, Code::Ok);
    let worker = cluster.join("node-2").await;
    for credentials in [&worker, &cluster.credentials] {
        let channel = Dialler::new(credentials).unwrap().connect(&cluster.address()).await.unwrap();
        assert_eq!(list_services(channel.clone()).await, Code::PermissionDenied);
        let mut local = v1::local_client::LocalClient::new(channel);
        let status = local.status(v1::LocalStatusRequest {}).await.unwrap_err();
        assert_ne!(status.code(), Code::Ok);
    }
}

#[tokio::test]
async fn a_worker_does_not_speak_raft_and_an_operator_opens_no_session() {
    let cluster = Cluster::new().await;
    let worker = cluster.join("node-2").await;
    let channel = Dialler::new(&worker).unwrap().connect(&cluster.address()).await.unwrap();
    let mut raft = v1::raft_client::RaftClient::new(channel);
    let sent =
        raft.send(tokio_stream::iter([v1::RaftMessage { message: "x".into(), ..Default::default() }])).await;
    assert_eq!(sent.unwrap_err().code(), Code::PermissionDenied);

    let mut sessions = v1::sessions_client::SessionsClient::new(cluster.operator.clone());
    let opened = sessions.open(tokio_stream::iter([v1::AgentMessage { message: None }])).await;
    assert_eq!(opened.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_a_registration_is_refused() {
    let cluster = Cluster::new().await;
    let worker = cluster.join("node-2").await;
    let channel = Dialler::new(&worker).unwrap().connect(&cluster.address()).await.unwrap();
    let heartbeat = v1::agent_message::Message::Heartbeat(v1::agent_message::Heartbeat {});
    for message in [None, Some(heartbeat)] {
        let mut sessions = v1::sessions_client::SessionsClient::new(channel.clone());
        let opened = sessions.open(tokio_stream::iter([v1::AgentMessage { message }])).await;
        assert_eq!(opened.unwrap_err().code(), Code::InvalidArgument);
    }
    // A key alone is nobody.
    assert!(NodeKey::generate().unwrap().certified("", cluster.credentials.roots_pem()).is_err());
}
