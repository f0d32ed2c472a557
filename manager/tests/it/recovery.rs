//! What is acknowledged is there again, after a stop, and after a crash.

use std::path::Path;

use swarm_manager::{Manager, ManagerError};
use swarm_proto::v1;

use crate::support::{Cluster, config, create, eventually, founding, keyring, operator, spec};

async fn names(operator: &tonic::transport::Channel) -> Vec<String> {
    // The manager may not lead yet.
    eventually(|| async {
        let mut services = v1::services_client::ServicesClient::new(operator.clone());
        let list = services.list(v1::ListServicesRequest {}).await.ok()?.into_inner().services;
        Some(list.into_iter().map(|service| service.spec.unwrap().name).collect())
    })
    .await
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_stopped_manager_comes_back_with_everything() {
    let cluster = Cluster::new().await;
    for name in ["one", "two"] {
        cluster.services().create(create(spec(name, "shop/web:1", 1))).await.unwrap();
    }
    cluster.manager.stop().await;
    let directory = cluster.directory.path();
    let manager = Manager::open(config(directory), &cluster.credentials, keyring(directory)).await.unwrap();
    let again = operator(&manager, &directory.join("again.sock")).await;
    let mut found = names(&again).await;
    found.sort();
    assert_eq!(found, ["one", "two"]);
    let mut nodes = v1::nodes_client::NodesClient::new(again);
    assert_eq!(nodes.list(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes.len(), 1);
    manager.stop().await;
}

#[tokio::test]
async fn a_killed_manager_comes_back_with_everything_acknowledged() {
    let cluster = Cluster::new().await;
    for number in 0..20 {
        let name = format!("service-{number}");
        cluster.services().create(create(spec(&name, "shop/web:1", 1))).await.unwrap();
    }
    // What a killed process leaves is what its files hold at that moment.
    let killed = tempfile::tempdir().unwrap();
    copy(cluster.directory.path().join("manager").as_path(), &killed.path().join("manager"));
    let manager =
        Manager::open(config(killed.path()), &cluster.credentials, keyring(killed.path())).await.unwrap();
    let again = operator(&manager, &killed.path().join("local.sock")).await;
    assert_eq!(names(&again).await.len(), 20);
    manager.stop().await;
    cluster.manager.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named_and_a_second_bootstrap_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(listen) = taken.local_addr().unwrap() else { panic!("IPv4 was bound") };
    let mut clashing = config(directory.path());
    clashing.listen = listen;
    let error = Manager::bootstrap(clashing, founding()).await.err().expect("the port is taken");
    assert!(matches!(&error, ManagerError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&listen.to_string()));

    // One that was cut off after it had written leaves a cluster that nobody has credentials of.
    let (first, _) = Manager::bootstrap(config(directory.path()), founding()).await.unwrap();
    first.stop().await;
    let (second, credentials) = Manager::bootstrap(config(directory.path()), founding()).await.unwrap();
    second.stop().await;
    let opened =
        Manager::open(config(directory.path()), &credentials, keyring(directory.path())).await.unwrap();
    opened.stop().await;
}

#[tokio::test]
async fn a_manager_whose_log_is_gone_does_not_come_up_empty() {
    let cluster = Cluster::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let keyring = cluster.manager.keyring().clone();
    let error = Manager::open(config(elsewhere.path()), &cluster.credentials, keyring).await.err().unwrap();
    assert!(matches!(&error, ManagerError::NoLog { .. }), "{error}");
    assert!(std::fs::read_dir(elsewhere.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_manager_keeps_its_files_to_itself() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::new().await;
    let manager = cluster.directory.path().join("manager");
    for name in ["", "log", "state", "images"] {
        let mode = std::fs::metadata(manager.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[tokio::test]
async fn a_manager_whose_log_was_emptied_does_not_start() {
    let cluster = Cluster::new().await;
    cluster.manager.stop().await;
    let manager = cluster.directory.path().join("manager");
    for entry in std::fs::read_dir(manager.join("log")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    // The first checkpoint is cut after a thousand entries; here it is put there.
    let state = swarm_manager_core::door::CheckpointState {
        index: 3,
        term: 1,
        conf_state: bytes::Bytes::new(),
        objects: Vec::new(),
    };
    let keyring = keyring(cluster.directory.path());
    let (mut store, _) =
        swarm_manager::checkpoint::CheckpointStore::open(&manager.join("state"), keyring.key()).unwrap();
    store.replace(&state).unwrap();
    drop(store);
    for _ in 0..2 {
        let error = Manager::open(config(cluster.directory.path()), &cluster.credentials, keyring.clone())
            .await
            .err();
        let error = error.unwrap();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("is gone"), "{cause}");
    }
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: std::path::PathBuf| {
        if path.is_dir() { files(&path) } else { vec![(path.clone(), std::fs::read(path).unwrap())] }
    };
    entries.flat_map(below).collect()
}

#[tokio::test]
async fn what_operators_write_is_on_the_managers_disk_in_no_clear_form() {
    let cluster = Cluster::new().await;
    let canary = swarm_pki::JoinSecret::generate().reveal();
    // More than the entries between two checkpoints, so that they are in the checkpoints, too.
    for number in 0..1_100 {
        let name = format!("s{number}-{canary}");
        let mut spec = spec(&name, "shop/web:1", 0);
        spec.labels.insert("canary".to_owned(), canary.clone());
        cluster.services().create(create(spec)).await.unwrap();
    }
    let state = cluster.directory.path().join("manager/state/second/db");
    eventually(|| async { std::fs::metadata(&state).ok().filter(|file| file.len() > 100_000) }).await;
    cluster.manager.stop().await;
    let manager = cluster.directory.path().join("manager");
    let kept = files(&manager);
    assert!(kept.iter().any(|(path, _)| path.ends_with("data.key")));
    for (path, bytes) in &kept {
        for secret in [canary.as_bytes(), b"PRIVATE KEY"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds {}", path.display(), String::from_utf8_lossy(secret));
        }
    }
    let again = Manager::open(
        config(cluster.directory.path()),
        &cluster.credentials,
        keyring(cluster.directory.path()),
    );
    let again = again.await.unwrap();
    let operator = operator(&again, &cluster.directory.path().join("again.sock")).await;
    assert_eq!(names(&operator).await.len(), 1_100);
    again.stop().await;
}
