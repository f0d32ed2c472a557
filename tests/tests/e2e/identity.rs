//! Who is a member, and who is none any more.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use swarm_pki::{Credentials, Dialler};
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_client::CertificateAuthorityClient;
use swarm_proto::v1::clusters_client::ClustersClient;
use swarm_proto::v1::images_client::ImagesClient;
use swarm_proto::v1::logs_client::LogsClient;
use swarm_proto::v1::sessions_client::SessionsClient;
use swarm_tests::e2e::{Cluster, Options, demo_image, eventually, try_get};
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

/// What a node's credentials say, but for its private key, which a manager keeps wrapped.
fn shown(cluster: &Cluster, number: u16) -> Credentials {
    let file = cluster.data(number).join("node.pem");
    let credentials = Credentials::load_wrapped(&file, |_| Some("PRIVATE KEY".to_owned()));
    credentials.expect("readable").expect("the node has credentials")
}

fn token(cluster: &Cluster, number: u16) -> String {
    let output = cluster.ctl_at(number, &["cluster", "join-token", "-q", "worker"]);
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.trim().to_owned()
}

fn join_with(cluster: &Cluster, number: u16, through: u16, token: &str) -> swarm_tests::e2e::Output {
    let (own, manager) = (cluster.address(number).to_string(), cluster.address(through).to_string());
    cluster.ctl_at(number, &["cluster", "join", "--token", token, "--advertise-addr", &own, &manager])
}

/// Requests, one after the other, until it is told to stop; how many there were, and what failed.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<String>)>,
}

impl Load {
    fn start(addresses: Vec<SocketAddrV4>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let address = addresses[count as usize % addresses.len()];
                failed.extend(try_get(address).err());
                count += 1;
            }
            (count, failed)
        });
        Self { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, failed) = self.thread.join().expect("no panic");
        assert!(failed.is_empty(), "{} of {count} requests failed: {:?}", failed.len(), failed.first());
        assert!(count > 100, "only {count} requests");
    }
}

#[test]
fn the_root_is_replaced_under_load_without_a_failed_request() {
    let mut cluster = Cluster::with(Options { nodes: 5, managers: 3, unformed: true, ..Options::default() });
    cluster.ctl_ok(&["cluster", "init", "--advertise-addr", &cluster.address(1).to_string()]);
    let managers = cluster.ctl_ok(&["cluster", "join-token", "-q", "manager"]);
    cluster.join(2, managers.trim());
    cluster.join(3, managers.trim());
    cluster.join(4, &token(&cluster, 1));
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "4", "-p", "8080:80", "demo:1"]);
    let tasks = |cluster: &Cluster| {
        let running = cluster.wait_running("web", 4);
        running.into_iter().map(|task| (task.id.clone(), cluster.pid(&task.id))).collect::<BTreeMap<_, _>>()
    };
    let before = tasks(&cluster);
    let old_root = cluster.ctl_ok(&["cluster", "ca"]);
    let old_token = token(&cluster, 1);
    let old_certificate = credentials(&cluster, 4);
    let load = Load::start((1..=4).map(|number| cluster.endpoint(number, 8080)).collect());

    let rotated = cluster.ctl_at(2, &["cluster", "ca", "--rotate"]);
    assert_eq!(rotated.code, 0, "{rotated:?}\n{}", cluster.logs());
    assert!(
        rotated.stdout.starts_with("-----BEGIN CERTIFICATE-----") && rotated.stdout != old_root,
        "{rotated:?}"
    );
    assert!(rotated.stderr.contains("rotated certificates: "), "{rotated:?}");
    for number in 1..=4 {
        eventually("only the new root is believed", || {
            let credentials = shown(&cluster, number);
            if credentials.roots_pem() == rotated.stdout { Ok(()) } else { Err(cluster.logs()) }
        });
        let credentials = shown(&cluster, number);
        assert_eq!(credentials.issued_by().unwrap(), Some(credentials.issuing_root().unwrap()));
    }
    assert!(cluster.node_states().iter().all(|(_, state)| state == "Ready"), "{:?}", cluster.node_states());
    assert_eq!(tasks(&cluster), before);
    load.finish();

    // The old token and the old certificate are worth nothing, the new token lets in.
    let refused = join_with(&cluster, 5, 1, &old_token);
    assert!(refused.code != 0 && refused.stderr.contains("the cluster's root was replaced"), "{refused:?}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dialler = Dialler::new(&old_certificate).expect("credentials");
    let called = runtime.block_on(async {
        // In TLS 1.3 a caller is told only after its handshake that it is refused.
        let channel = dialler
            .connect(&cluster.endpoint(1, 2377).to_string())
            .await
            .map_err(|error| error.to_string())?;
        let root = CertificateAuthorityClient::new(channel).get_root(v1::GetRootRequest {}).await;
        root.map_err(|status| status.to_string())
    });
    assert!(called.is_err(), "a certificate of the old root is believed");
    let new_token = token(&cluster, 3);
    assert_ne!(new_token, old_token);
    let joined = join_with(&cluster, 5, 1, &new_token);
    assert_eq!(joined.code, 0, "{joined:?}\n{}", cluster.logs());
    cluster.wait_node(5, "Ready");
    // Whoever starts again comes back with what it has.
    for number in 1..=4 {
        cluster.restart_daemon(number);
    }
    assert_eq!(tasks(&cluster), before);
    cluster.finish();
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn a_rotation_of_the_root_waits_for_nodes_that_are_down_and_outlives_its_leader() {
    let mut cluster = Cluster::with(Options { nodes: 5, managers: 3, ..Options::default() });
    let old_root = cluster.ctl_ok(&["cluster", "ca"]);
    let old_token = token(&cluster, 1);
    cluster.kill(4);
    cluster.kill(5);
    cluster.wait_node(4, "Down");
    cluster.wait_node(5, "Down");
    let mut watching = cluster.ctl_command(2, &["cluster", "ca", "--rotate"]);
    let watching = watching.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("swarmctl starts");
    let waits = |number, for_node: &str| {
        eventually("the rotation waits", || {
            let shown = cluster.ctl_at(number, &["cluster", "ca"]);
            let waits = shown.stderr.contains(&format!("waiting for {for_node}: it is down"));
            if shown.code == 0 && waits && shown.stdout == old_root {
                Ok(())
            } else {
                Err(format!("{shown:?}"))
            }
        });
    };
    waits(2, "node-4");
    waits(2, "node-5");
    // The leader dies; the others go on with it.
    let leader = eventually("there is a leader", || {
        let rows = cluster.ctl_at(2, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]).stdout;
        let leader =
            rows.lines().find_map(|row| row.strip_suffix(" Leader")?.strip_prefix("node-")?.parse().ok());
        leader.ok_or(rows)
    });
    cluster.kill(leader);
    let follower = if leader == 2 { 3 } else { 2 };
    let waits = |cluster: &Cluster, for_node: &str| {
        eventually("the rotation waits", || {
            let shown = cluster.ctl_at(follower, &["cluster", "ca"]);
            let waits = shown.stderr.contains(&format!("waiting for {for_node}: it is down"));
            if shown.code == 0 && waits && shown.stdout == old_root {
                Ok(())
            } else {
                Err(format!("{shown:?}"))
            }
        });
    };
    waits(&cluster, &format!("node-{leader}"));
    cluster.restart(leader);
    // One comes back under the old root, and is let in; the other is given up.
    cluster.restart(4);
    waits(&cluster, "node-5");
    eventually("all the others have followed", || {
        let shown = cluster.ctl_at(follower, &["cluster", "ca"]);
        if shown.stderr.contains("4/5 nodes") {
            Ok(())
        } else {
            Err(format!("{shown:?}\n{}", cluster.logs()))
        }
    });
    let removed = cluster.ctl_at(follower, &["node", "rm", "node-5"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    eventually("the rotation has ended", || {
        let shown = cluster.ctl_at(follower, &["cluster", "ca"]);
        let ended = shown.code == 0 && shown.stdout != old_root && !shown.stderr.contains("replaced");
        if ended { Ok(()) } else { Err(format!("{shown:?}\n{}", cluster.logs())) }
    });
    if leader != 2 {
        let watched = watching.wait_with_output().expect("swarmctl ends");
        let told = String::from_utf8_lossy(&watched.stderr).into_owned();
        assert!(watched.status.success() && told.contains("waiting for node-5: it is down"), "{told}");
    } else {
        let _ = watching.wait_with_output();
    }
    let output = cluster.ctl_at(follower, &["node", "ls", "--format", "{{.Status}}"]);
    assert_eq!(output.stdout.lines().filter(|line| *line == "Ready").count(), 4, "{output:?}");
    // Whoever was given up has to begin anew.
    cluster.restart(5);
    eventually("the node cannot come back", || {
        let info = cluster.ctl_at(5, &["cluster", "info"]);
        if info.stdout.contains("Connected    false") { Ok(()) } else { Err(format!("{info:?}")) }
    });
    assert_eq!(cluster.ctl_at(5, &["cluster", "leave", "--force"]).code, 0);
    let refused = join_with(&cluster, 5, follower, &old_token);
    assert!(refused.code != 0 && refused.stderr.contains("the cluster's root was replaced"), "{refused:?}");
    let joined = join_with(&cluster, 5, follower, &token(&cluster, follower));
    assert_eq!(joined.code, 0, "{joined:?}\n{}", cluster.logs());
    cluster.finish();
}

/// Shorter than an operator may have it.
fn set_certificate_life(cluster: &Cluster, life: Duration) {
    let certificate_life = u64::try_from(life.as_micros()).expect("less than ages");
    let set = async {
        let mut clusters = ClustersClient::new(cluster.channel(1).await);
        clusters.set_certificate_life(v1::SetCertificateLifeRequest { certificate_life }).await
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(set).expect("the life is set");
}

fn wait_expired(cluster: &Cluster, number: u16) {
    eventually("the certificate has expired", || {
        let credentials = shown(cluster, number);
        let expired = credentials.has_expired(SystemTime::now()).expect("a certificate");
        if expired { Ok(()) } else { Err(format!("{:?}", credentials.validity())) }
    });
}

#[test]
fn a_node_whose_managers_were_all_replaced_comes_back_with_a_token() {
    let mut cluster = Cluster::with(Options { nodes: 3, ..Options::default() });
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "demo:1"]);
    cluster.kill(3);
    let node = shown(&cluster, 3).identity().node;
    let containers = cluster.processes(3);
    cluster.ctl_ok(&["node", "promote", "node-2"]);
    cluster.wait_voting(2);
    let demoted = cluster.ctl_at(2, &["node", "demote", "node-1"]);
    assert_eq!(demoted.code, 0, "{demoted:?}");
    eventually("node 1 is a worker", || {
        let info = cluster.ctl_at(1, &["cluster", "info"]);
        if info.stdout.contains("worker") { Ok(()) } else { Err(format!("{info:?}")) }
    });
    cluster.restart(3);
    let info = |connected: &str| {
        eventually("whether node 3 has a manager", || {
            let info = cluster.ctl_at(3, &["cluster", "info"]);
            let says = info.stdout.contains(&format!("Connected    {connected}"));
            if says { Ok(()) } else { Err(format!("{info:?}")) }
        });
    };
    info("false");
    let good = token(&cluster, 2);
    let joined = join_with(&cluster, 3, 2, &good);
    assert_eq!(joined.code, 0, "{joined:?}\n{}", cluster.logs());
    info("true");
    assert_eq!(shown(&cluster, 3).identity().node, node, "it is no new node");
    let now = cluster.processes(3);
    assert!(containers.iter().all(|pid| now.contains(pid)), "{containers:?} {now:?}");
    // Everything is cleaned up through node 1.
    let promoted = cluster.ctl_at(2, &["node", "promote", "node-1"]);
    assert_eq!(promoted.code, 0, "{promoted:?}");
    cluster.wait_voting(2);
    cluster.finish();
}

/// More than a renewal takes, and twice that before it is renewed.
const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(90 * 24 * 60 * 60);

#[test]
fn a_node_whose_certificate_expired_while_it_was_off_comes_back_with_a_token() {
    let mut cluster = Cluster::with(Options { nodes: 3, ..Options::default() });
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "demo:1"]);
    set_certificate_life(&cluster, SHORT);
    assert_eq!(cluster.ctl_at(2, &["cluster", "renew"]).code, 0);
    set_certificate_life(&cluster, LONG);
    cluster.kill(2);
    let node = shown(&cluster, 2).identity().node;
    let containers = cluster.processes(2);
    wait_expired(&cluster, 2);
    cluster.restart(2);
    eventually("the node says that its certificate expired", || {
        let info = cluster.ctl_at(2, &["cluster", "info"]);
        let says = info.stderr.contains("this node's certificate expired at")
            && info.stderr.contains("swarmctl cluster join-token worker");
        if says && info.stdout.contains("Connected    false") { Ok(()) } else { Err(format!("{info:?}")) }
    });
    // What ran goes on meanwhile.
    let now = cluster.processes(2);
    assert!(containers.iter().all(|pid| now.contains(pid)), "{containers:?} {now:?}");

    let good = token(&cluster, 1);
    let (head, _) = good.rsplit_once('-').expect("a token");
    let guessed = join_with(&cluster, 2, 1, &format!("{head}-{}", "0".repeat(25)));
    assert!(guessed.code != 0 && guessed.stderr.contains("not valid here"), "{guessed:?}");
    let joined = join_with(&cluster, 2, 1, &good);
    assert_eq!(joined.code, 0, "{joined:?}\n{}", cluster.logs());
    assert_eq!(shown(&cluster, 2).identity().node, node);
    cluster.wait_node(2, "Ready");
    assert_eq!(cluster.node_states().len(), 3, "it is no new node");
    cluster.wait_running("web", 3);
    let again = join_with(&cluster, 2, 1, &good);
    assert!(again.code != 0 && again.stderr.contains("already"), "{again:?}");

    // Nobody comes back that was removed meanwhile.
    set_certificate_life(&cluster, SHORT);
    assert_eq!(cluster.ctl_at(3, &["cluster", "renew"]).code, 0);
    set_certificate_life(&cluster, LONG);
    cluster.kill(3);
    cluster.ctl_ok(&["node", "rm", "--force", "node-3"]);
    wait_expired(&cluster, 3);
    cluster.restart(3);
    let refused = join_with(&cluster, 3, 1, &good);
    assert!(
        refused.code != 0 && refused.stderr.contains("no member of this cluster any more"),
        "{refused:?}"
    );
    assert_eq!(cluster.ctl_at(3, &["cluster", "leave", "--force"]).code, 0);
    cluster.finish();
}

#[test]
fn managers_that_were_off_for_longer_than_their_certificates_live_come_back_by_themselves() {
    let mut cluster = Cluster::with(Options { nodes: 3, managers: 3, ..Options::default() });
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "demo:1"]);
    set_certificate_life(&cluster, SHORT);
    for number in 1..=3 {
        assert_eq!(cluster.ctl_at(number, &["cluster", "renew"]).code, 0);
    }
    set_certificate_life(&cluster, LONG);
    (1..=3).for_each(|number| cluster.kill(number));
    for number in 1..=3 {
        wait_expired(&cluster, number);
    }
    (1..=3).for_each(|number| cluster.restart(number));
    for number in 1..=3 {
        eventually("the manager answers", || {
            let listed = cluster.ctl_at(number, &["node", "ls"]);
            if listed.code == 0 { Ok(()) } else { Err(format!("{listed:?}\n{}", cluster.logs())) }
        });
        cluster.wait_node(number, "Ready");
        let log = std::fs::read_to_string(cluster.log(number)).expect("a log");
        assert!(log.contains("this manager's certificate had expired; it made itself a new one"), "{log}");
    }
    cluster.wait_running("web", 3);
    cluster.finish();
}
