//! Operating a cluster: host ports, UDP, draining, leaving.

use std::collections::BTreeSet;

use swarm_tests::e2e::{Cluster, busybox_image, demo_image, eventually, get, try_get};

fn cluster(nodes: u16) -> Cluster {
    let cluster = Cluster::start(nodes);
    for image in [busybox_image("busybox:1"), demo_image("demo:1", "1")] {
        let path = image.write(cluster.directory());
        cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
    }
    cluster
}

#[test]
fn draining_moves_tasks_and_a_leaving_node_keeps_nothing() {
    let cluster = cluster(3);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "6", "-p", "8080:80", "demo:1"]);
    cluster.ctl_ok(&["node", "update", "--availability", "drain", "node-2"]);
    eventually("the drained node is empty", || {
        let tasks = cluster.running("web");
        let moved = tasks.len() == 6 && tasks.iter().all(|task| task.node != "node-2");
        if moved && cluster.processes(2).len() == 1 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    assert!(get(cluster.endpoint(2, 8080)).contains("version=1"), "a drained node still answers");
    cluster.ctl_ok(&["node", "update", "--availability", "active", "node-2"]);
    cluster.ctl_ok(&["service", "scale", "web=9"]);
    assert!(cluster.running("web").iter().any(|task| task.node == "node-2"));

    cluster.ctl_fails(&["node", "rm", "node-3"], 1, "node-3");
    let left = cluster.ctl_at(3, &["cluster", "leave"]);
    assert_eq!(left.code, 0, "{left:?}");
    assert_eq!(cluster.processes(3).len(), 1, "its containers are gone");
    cluster.wait_node(3, "Down");
    cluster.wait_running("web", 9);
    cluster.ctl_ok(&["node", "rm", "node-3"]);
    assert_eq!(cluster.node_states().len(), 2);
    let token = cluster.ctl_ok(&["cluster", "join-token", "-q", "worker"]);
    cluster.join(3, token.trim());
    cluster.wait_node(3, "Ready");
    cluster.finish();
}

#[test]
fn host_ports_answer_on_their_node_only_and_udp_goes_through_the_mesh() {
    let cluster = cluster(2);
    let create = ["service", "create", "--name", "host", "-p", "published=9000,target=80,mode=host"];
    cluster.ctl_ok(&[&create[..], &["--constraint", "node.hostname==node-1", "demo:1"]].concat());
    assert!(get(cluster.endpoint(1, 9000)).contains("version=1"));
    assert!(try_get(cluster.endpoint(2, 9000)).is_err());
    // The port is taken on node 1, so a second task needs another node, and a third has none.
    let create = [
        "service",
        "create",
        "--name",
        "more",
        "--replicas",
        "2",
        "-p",
        "published=9000,target=80,mode=host",
        "demo:1",
    ];
    cluster.ctl_fails(&create, 1, "9000");
    assert_eq!(cluster.wait_running("more", 1)[0].node, "node-2");

    let create = [
        "service",
        "create",
        "--name",
        "echo",
        "-p",
        "5300:80/udp",
        "--constraint",
        "node.hostname==node-2",
        "demo:1",
    ];
    cluster.ctl_ok(&create);
    let target = cluster.endpoint(1, 5300);
    eventually("a datagram is answered through another node", || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
        socket
            .set_read_timeout(Some(std::time::Duration::from_millis(500)))
            .map_err(|error| error.to_string())?;
        socket.send_to(b"ping\n", target).map_err(|error| error.to_string())?;
        let mut buffer = [0; 256];
        let (length, from) = socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
        assert_eq!(from, std::net::SocketAddr::from(target));
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let client = format!("client={}", cluster.network().host_address());
        if answer.contains(&client) { Ok(()) } else { Err(answer) }
    });
    cluster.finish();
}

#[test]
fn lists_filters_and_formats_serve_scripts() {
    let cluster = cluster(2);
    cluster.ctl_ok(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "-l",
        "team=shop",
        "-p",
        "8080:80",
        "demo:1",
    ]);
    cluster.ctl_ok(&["service", "create", "--name", "db", "busybox:1"]);
    let names = cluster.ctl_ok(&[
        "service",
        "ls",
        "--format",
        "{{.Name}} {{.Replicas}}",
        "--filter",
        "label=team=shop",
    ]);
    assert_eq!(names, "web 2/2\n");
    let ids = cluster.ctl_ok(&["service", "ls", "-q"]);
    assert_eq!(ids.lines().count(), 2);
    let prefix: String = ids.lines().next().expect("an id").chars().take(8).collect();
    let inspected = cluster.ctl_ok(&["service", "inspect", &prefix, "--format", "{{.Spec.Name}}"]);
    assert!(["web\n", "db\n"].contains(&inspected.as_str()), "{inspected}");
    assert!(cluster.ctl_ok(&["service", "inspect", "--pretty", "web"]).contains("8080->80/tcp"));
    let nodes: BTreeSet<String> =
        cluster.ctl_ok(&["node", "ls", "--format", "{{.Hostname}}"]).lines().map(str::to_owned).collect();
    assert_eq!(nodes, ["node-1".to_owned(), "node-2".to_owned()].into());
    assert!(cluster.ctl_ok(&["node", "ps", "node-1"]).contains("web."));
    assert!(cluster.ctl_ok(&["cluster", "info"]).contains("Leader"));
    cluster.finish();
}

#[test]
fn the_doctor_finds_what_is_broken() {
    let cluster = Cluster::start(2);
    let report = cluster.ctl_ok(&["cluster", "doctor"]);
    assert!(report.contains("the managers accept changes") && report.contains("all 2 ready"), "{report}");
    cluster.cut_off(2);
    let report = cluster.ctl_at(2, &["cluster", "doctor"]);
    assert_eq!(report.code, 1, "{report:?}");
    assert!(report.stdout.contains(":2377 does not answer"), "{report:?}");
    cluster.reconnect(2);
    cluster.wait_node(2, "Ready");
    cluster.finish();
}
