//! The main job: a service on three hosts, from creation to removal.

use std::collections::BTreeSet;
use std::process::Stdio;

use swarm_tests::e2e::{Cluster, binary, demo_image, eventually, get, get_from};

/// A cluster with the demo image in two versions.
fn cluster() -> Cluster {
    let cluster = Cluster::start(3);
    for version in ["1", "2"] {
        let path = demo_image(&format!("demo:{version}"), version).write(cluster.directory());
        cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
    }
    cluster
}

fn word<'a>(answer: &'a str, key: &str) -> &'a str {
    answer.split(' ').find_map(|word| word.strip_prefix(key)).unwrap_or_default()
}

#[test]
fn a_service_is_created_scaled_updated_and_removed() {
    let cluster = cluster();
    let create = [
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "3",
        "-p",
        "8080:80",
        "--update-monitor",
        "500ms",
    ];
    cluster.ctl_ok(&[&create[..], &["-e", "NODE={{.Node.Hostname}}", "demo:1"]].concat());

    // `create` returns when all of it runs: no waiting here.
    let tasks = cluster.running("web");
    let nodes: BTreeSet<&str> = tasks.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes, ["node-1", "node-2", "node-3"].into(), "{tasks:?}");

    // Every node answers, for every task, and the tasks see the client's own address.
    let client = cluster.network().host_address().to_string();
    for number in 1..=3 {
        let mut seen = BTreeSet::new();
        eventually("requests to one node reach all tasks", || {
            let answer = get(cluster.endpoint(number, 8080));
            assert_eq!(word(&answer, "client="), client, "{answer}");
            seen.insert(word(&answer, "node=").to_owned());
            if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }
    let own =
        get_from(&cluster, 2, cluster.endpoint(2, 8080)).expect("a node reaches its own published port");
    assert!(own.contains("version=1"), "{own}");

    cluster.ctl_ok(&["service", "scale", "web=6"]);
    assert_eq!(cluster.running("web").len(), 6);
    cluster.ctl_ok(&["service", "scale", "web=2"]);
    assert_eq!(cluster.running("web").len(), 2);

    update_under_load(&cluster);

    cluster.ctl_ok(&["service", "rm", "web"]);
    assert_eq!(cluster.ctl_ok(&["service", "ls", "-q"]), "");
    cluster.finish();
}

/// A rolling update, and the way back, without a failed request.
fn update_under_load(cluster: &Cluster) {
    let address = cluster.endpoint(3, 8080).to_string();
    let load = std::process::Command::new(binary("swarm-demo"))
        .args(["load", &address, "8", "4"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the load starts");
    cluster.ctl_ok(&["service", "update", "--image", "demo:2", "web"]);
    assert!(get(cluster.endpoint(1, 8080)).contains("version=2"));
    let nodes: BTreeSet<String> = cluster.running("web").into_iter().map(|task| task.node).collect();
    assert_eq!(nodes.len(), 2, "an update leaves the tasks spread: {nodes:?}");
    cluster.ctl_ok(&["service", "rollback", "web"]);
    assert!(get(cluster.endpoint(1, 8080)).contains("version=1"));
    let output = load.wait_with_output().expect("the load ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" failed=0"), "{text}{}", cluster.logs());
    assert!(text.contains("version=1") && text.contains("version=2"), "{text}");
}

#[test]
fn spread_constraints_and_reservations_are_kept() {
    let cluster = cluster();
    cluster.ctl_ok(&["node", "update", "--label-add", "disk=ssd", "node-2"]);
    cluster.ctl_ok(&[
        "service",
        "create",
        "--name",
        "db",
        "--replicas",
        "2",
        "--constraint",
        "node.labels.disk==ssd",
        "demo:1",
    ]);
    assert!(cluster.running("db").iter().all(|task| task.node == "node-2"));
    // The label goes: replacements wait with the reason, and take over once they can run.
    cluster.ctl_ok(&["node", "update", "--label-rm", "disk", "node-2"]);
    eventually("tasks that fit nowhere wait with the reason", || {
        let tasks = cluster.tasks("db");
        let waits =
            tasks.iter().any(|task| task.state == "Pending" && task.error.contains("node.labels.disk==ssd"));
        if waits { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    cluster.ctl_ok(&["node", "update", "--label-add", "disk=ssd", "node-3"]);
    eventually("the tasks have moved", || {
        let tasks = cluster.running("db");
        if tasks.len() == 2 && tasks.iter().all(|task| task.node == "node-3") {
            Ok(())
        } else {
            Err(format!("{tasks:?}"))
        }
    });
    cluster.finish();
}
