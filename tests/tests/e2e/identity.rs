//! Who is a member, and who is none any more.

use std::time::{Duration, Instant};

use swarm_pki::{Credentials, Dialler};
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_client::CertificateAuthorityClient;
use swarm_proto::v1::images_client::ImagesClient;
use swarm_proto::v1::logs_client::LogsClient;
use swarm_proto::v1::sessions_client::SessionsClient;
use swarm_tests::e2e::{Cluster, Options, demo_image, eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

fn load(cluster: &Cluster) {
    let path = demo_image("demo:1", "1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
}

fn credentials(cluster: &Cluster, number: u16) -> Credentials {
    let file = cluster.data(number).join("node.pem");
    Credentials::load(&file).expect("readable").expect("the node has credentials")
}

/// What a node that was removed is answered, call by call.
async fn refusals(channel: &Channel) -> Vec<Result<(), Status>> {
    let registration = v1::AgentMessage { message: None };
    let renewal = v1::RenewNodeCertificateRequest::default();
    vec![
        SessionsClient::new(channel.clone()).open(tokio_stream::iter([registration])).await.map(drop),
        ImagesClient::new(channel.clone()).get_blob(v1::GetBlobRequest::default()).await.map(drop),
        CertificateAuthorityClient::new(channel.clone()).renew_node_certificate(renewal).await.map(drop),
        CertificateAuthorityClient::new(channel.clone()).get_root(v1::GetRootRequest {}).await.map(drop),
        LogsClient::new(channel.clone()).publish(tokio_stream::iter([])).await.map(drop),
    ]
}

#[test]
fn a_removed_node_is_refused_at_once_and_stops_its_tasks() {
    let mut cluster = Cluster::with(Options { nodes: 4, managers: 3, ..Options::default() });
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "4", "demo:1"]);
    let certificate = credentials(&cluster, 4);
    let managers: Vec<String> = (1..=3).map(|number| cluster.endpoint(number, 2377).to_string()).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dialler = Dialler::new(&certificate).expect("credentials");
    // A stream to each manager that waits for its first message.
    let mut streams = Vec::new();
    for address in &managers {
        let channel = runtime.block_on(dialler.connect(address)).expect("a member is let in");
        let (open, messages) = mpsc::channel(1);
        let mut logs = LogsClient::new(channel);
        let call = async move { (logs.publish(ReceiverStream::new(messages)).await, Instant::now()) };
        streams.push((runtime.spawn(call), open));
    }
    cluster.ctl_ok(&["node", "rm", "--force", "node-4"]);
    let removed = Instant::now();
    for (stream, _open) in streams {
        let (ended, at) = runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(5), stream).await })
            .expect("the stream is cut")
            .expect("no panic");
        assert!(ended.is_err());
        assert!(at.duration_since(removed) < Duration::from_secs(1), "cut after {:?}", at - removed);
    }
    for address in &managers {
        let channel = runtime.block_on(dialler.connect(address)).expect("let in to be told");
        for refusal in runtime.block_on(refusals(&channel)) {
            let status = refusal.expect_err("a removed node is refused");
            assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
            assert!(status.message().contains("was removed"), "{status:?}");
        }
    }

    // The node itself learns it, stops what it ran, and says what to do; after a restart too.
    let told = |cluster: &Cluster| {
        eventually("the node knows that it was removed", || {
            let info = cluster.ctl_at(4, &["cluster", "info"]);
            let containers = cluster.processes(4).len();
            if info.stderr.contains("was removed from the cluster at") && containers == 1 {
                Ok(())
            } else {
                Err(format!("{info:?}, {containers} processes\n{}", cluster.logs()))
            }
        });
    };
    told(&cluster);
    cluster.wait_running("web", 4);
    cluster.restart_daemon(4);
    told(&cluster);
    let token = cluster.ctl_ok(&["cluster", "join-token", "-q", "worker"]);
    let address = cluster.address(1).to_string();
    let early = cluster.ctl_at(4, &["cluster", "join", "--token", token.trim(), &address]);
    assert!(early.code != 0 && early.stderr.contains("leave --force"), "{early:?}");
    assert_eq!(cluster.ctl_at(4, &["cluster", "leave", "--force"]).code, 0);
    cluster.join(4, token.trim());
    cluster.wait_node(4, "Ready");
    assert_ne!(credentials(&cluster, 4).identity().node, certificate.identity().node);
    // The earlier identity stays refused after a restart of all managers.
    for number in 1..=3 {
        cluster.restart_daemon(number);
    }
    cluster.wait_running("web", 4);
    for address in &managers {
        let channel = runtime.block_on(dialler.connect(address)).expect("let in to be told");
        let refusals = runtime.block_on(refusals(&channel));
        assert!(refusals.iter().all(Result::is_err), "{refusals:?}");
    }
    cluster.finish();
}
