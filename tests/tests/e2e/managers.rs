//! Several managers: any of them may die, and neither containers nor acknowledged writes notice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use swarm_tests::e2e::{Cluster, Options, demo_image, eventually, get};

/// Nodes that are managers, all of them; the image is there.
fn managers(nodes: u16, managers: u16) -> Cluster {
    let cluster = Cluster::with(Options { nodes, managers, ..Options::default() });
    load(&cluster);
    cluster
}

fn load(cluster: &Cluster) {
    let path = demo_image("demo:1", "1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
}

/// What each manager is, as `number` sees it.
fn statuses(cluster: &Cluster, number: u16) -> BTreeMap<String, String> {
    let output = cluster.ctl_at(number, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    let lines = output.stdout.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, status)| (name.to_owned(), status.trim().to_owned())).collect()
}

fn leader(cluster: &Cluster, number: u16) -> Option<u16> {
    let statuses = statuses(cluster, number);
    let (name, _) = statuses.iter().find(|(_, status)| *status == "Leader")?;
    name.strip_prefix("node-")?.parse().ok()
}

fn wait_leader(cluster: &Cluster, number: u16) -> u16 {
    eventually("there is a leader", || leader(cluster, number).ok_or_else(|| cluster.logs()))
}

fn wait_status(cluster: &Cluster, number: u16, name: &str, expect: &str) {
    eventually(&format!("{name} is {expect:?}"), || {
        let statuses = statuses(cluster, number);
        if statuses.get(name).is_some_and(|status| status == expect) {
            Ok(())
        } else {
            Err(format!("{statuses:?}\n{}", cluster.logs()))
        }
    });
}

fn containers(cluster: &Cluster, service: &str) -> BTreeSet<(String, i32)> {
    cluster.running(service).into_iter().map(|task| (task.id.clone(), cluster.pid(&task.id))).collect()
}

/// Names of what a manager's image store holds.
fn blobs(cluster: &Cluster, number: u16) -> BTreeSet<String> {
    let directory = cluster.data(number).join("manager/images/blobs/sha256");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Runs a command at a node until it succeeds; how long that took.
fn until_done(cluster: &Cluster, number: u16, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    eventually(&format!("{arguments:?} at node {number} succeeds"), || {
        let output = cluster.ctl_at(number, arguments);
        if output.code == 0 { Ok(()) } else { Err(format!("{output:?}\n{}", cluster.logs())) }
    });
    start.elapsed()
}

#[test]
fn a_killed_leader_is_replaced_and_no_container_notices() {
    let mut cluster = managers(3, 3);
    let old = wait_leader(&cluster, 1);
    let (follower, other) = (old % 3 + 1, (old + 1) % 3 + 1);
    let create = ["service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "demo:1"];
    let created = cluster.ctl_at(follower, &create);
    assert_eq!(created.code, 0, "through a follower: {created:?}\n{}", cluster.logs());
    let before = containers(&cluster, "web");
    // What is loaded at one manager is soon on all of them.
    let image = demo_image("demo:2", "2").write(cluster.directory());
    let loaded = cluster.ctl_at(follower, &["image", "load", "-i", &image.display().to_string()]);
    assert_eq!(loaded.code, 0, "{loaded:?}\n{}", cluster.logs());
    eventually("the image is copied", || {
        let held: Vec<_> = (1..=3).map(|number| blobs(&cluster, number)).collect();
        if held.iter().all(|blobs| *blobs == held[0]) { Ok(()) } else { Err(format!("{held:?}")) }
    });

    cluster.kill(old);
    let took = until_done(&cluster, follower, &["service", "update", "-d", "--label-add", "a=b", "web"]);
    assert!(took < Duration::from_secs(2), "the service could not be edited for {took:?}");
    assert!(get(cluster.endpoint(other, 8080)).contains("version=1"));
    let new = wait_leader(&cluster, other);
    assert_ne!(new, old);
    wait_status(&cluster, other, &format!("node-{old}"), "Unreachable");

    cluster.restart(old);
    wait_status(&cluster, other, &format!("node-{old}"), "Reachable");
    wait_status(&cluster, old, &format!("node-{old}"), "Reachable");
    cluster.wait_node(old, "Ready");
    cluster.wait_running("web", 3);
    assert_eq!(containers(&cluster, "web"), before);
    let created = cluster.ctl_at(other, &["service", "create", "--name", "two", "--replicas", "3", "demo:2"]);
    assert_eq!(created.code, 0, "{created:?}\n{}", cluster.logs());
    cluster.finish();
}

#[test]
fn a_manager_joins_from_a_snapshot_and_takes_over() {
    let mut cluster = managers(3, 1);
    // Beyond what is kept of the log behind a checkpoint.
    // The snapshot is larger than one message.
    for number in 0..20 {
        let name = format!("s{number}");
        cluster.ctl_ok(&["service", "create", "-d", "--name", &name, "--replicas", "0", "demo:1"]);
        let filler = "x".repeat(120 << 10);
        cluster.edit(1, &name, 1, |spec, _| drop(spec.labels.insert("filler".to_owned(), filler.clone())));
    }
    cluster.edit(1, "s19", 1_700, |spec, time| {
        spec.labels = [("time".to_owned(), time.to_string())].into();
    });
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "demo:1"]);
    let before = containers(&cluster, "web");
    cluster.ctl_ok(&["node", "promote", "node-2", "node-3"]);
    wait_status(&cluster, 2, "node-2", "Reachable");
    wait_status(&cluster, 3, "node-3", "Reachable");
    cluster.kill(1);
    until_done(&cluster, 2, &["service", "scale", "-d", "s1=1"]);
    let services = cluster.ctl_at(3, &["service", "ls", "-q"]).stdout;
    assert_eq!(services.lines().count(), 21, "{services}");
    cluster.restart(1);
    wait_status(&cluster, 2, "node-1", "Reachable");
    cluster.wait_node(1, "Ready");
    cluster.wait_running("s1", 1);
    cluster.wait_running("web", 3);
    assert_eq!(containers(&cluster, "web"), before);
    cluster.finish();
}

#[test]
fn managers_are_demoted_removed_and_leave() {
    let mut cluster = managers(4, 3);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "4", "demo:1"]);
    // The leader is demoted: another one leads, and the node goes on as a worker.
    let old = wait_leader(&cluster, 1);
    let follower = old % 3 + 1;
    let demoted = cluster.ctl_at(follower, &["node", "demote", &format!("node-{old}")]);
    assert_eq!(demoted.code, 0, "{demoted:?}\n{}", cluster.logs());
    wait_leader(&cluster, follower);
    eventually("the demoted node has no manager", || {
        let output = cluster.ctl_at(old, &["service", "ls"]);
        if output.stderr.contains("is not a manager") { Ok(()) } else { Err(format!("{output:?}")) }
    });
    // And back again, as another Raft member, after a restart too.
    let promoted = cluster.ctl_at(follower, &["node", "promote", &format!("node-{old}")]);
    assert_eq!(promoted.code, 0, "{promoted:?}\n{}", cluster.logs());
    cluster.kill(old);
    cluster.restart(old);
    wait_status(&cluster, follower, &format!("node-{old}"), "Reachable");

    // One is dead: of the two others none may go. Removed, it makes room.
    let dead = wait_leader(&cluster, follower);
    let alive: Vec<u16> = (1..=3).filter(|number| *number != dead).collect();
    cluster.crash_host(dead);
    wait_status(&cluster, alive[0], &format!("node-{dead}"), "Unreachable");
    let refused = cluster.ctl_at(alive[0], &["node", "demote", &format!("node-{}", alive[1])]);
    assert!(refused.code != 0 && refused.stderr.contains("no majority"), "{refused:?}");
    let refused = cluster.ctl_at(alive[1], &["cluster", "leave"]);
    assert!(refused.code != 0 && refused.stderr.contains("no majority"), "{refused:?}");
    let removed = cluster.ctl_at(alive[0], &["node", "rm", "--force", &format!("node-{dead}")]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let promoted = cluster.ctl_at(alive[1], &["node", "promote", "node-4"]);
    assert_eq!(promoted.code, 0, "{promoted:?}\n{}", cluster.logs());

    // A manager leaves by itself.
    let left = cluster.ctl_at(alive[1], &["cluster", "leave"]);
    assert_eq!(left.code, 0, "{left:?}\n{}", cluster.logs());
    let left = cluster.ctl_at(alive[0], &["cluster", "leave"]);
    assert_eq!(left.code, 0, "{left:?}\n{}", cluster.logs());
    let refused = cluster.ctl_at(4, &["cluster", "leave"]);
    assert!(refused.code != 0 && refused.stderr.contains("last manager"), "{refused:?}");
    eventually("all tasks run on what is left", || {
        let output = cluster.ctl_at(4, &["service", "ls", "--format", "{{.Replicas}}"]);
        if output.stdout.trim() == "4/4" { Ok(()) } else { Err(format!("{output:?}\n{}", cluster.logs())) }
    });
}

#[test]
fn a_leader_that_is_stopped_hands_over_without_a_failed_write() {
    let mut cluster = managers(3, 3);
    cluster.ctl_ok(&["service", "create", "-d", "--name", "web", "--replicas", "1", "demo:1"]);
    for _ in 0..3 {
        let old = wait_leader(&cluster, 1);
        let follower = old % 3 + 1;
        cluster.terminate(old);
        let start = Instant::now();
        let updated = cluster
            .ctl_at(follower, &["service", "update", "-d", "--label-add", &format!("by={old}"), "web"]);
        assert_eq!(updated.code, 0, "{updated:?}\n{}", cluster.logs());
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        cluster.restart(old);
        wait_status(&cluster, follower, &format!("node-{old}"), "Reachable");
    }
    cluster.finish();
}

#[test]
fn certificates_are_renewed_without_dropping_a_connection() {
    let mut cluster = managers(3, 3);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "demo:1"]);
    let before = cluster.running("web");
    let certificates =
        |number| std::fs::read(cluster.data(number).join("node.pem")).expect("the node's credentials");
    for number in 1..=3 {
        let old = certificates(number);
        let renewed = cluster.ctl_at(number, &["cluster", "renew"]);
        assert_eq!(renewed.code, 0, "{renewed:?}");
        assert_ne!(certificates(number), old);
        assert!(cluster.node_states().iter().all(|(_, state)| state == "Ready"), "no session was lost");
    }
    // Whoever connects from now on is met with the new ones, after a restart too.
    for number in 1..=3 {
        cluster.kill(number);
        cluster.restart(number);
    }
    until_done(&cluster, 2, &["service", "scale", "web=4"]);
    let after = cluster.running("web");
    assert!(before.iter().all(|task| after.iter().any(|now| now.id == task.id)), "{before:?} {after:?}");
    cluster.finish();
}
