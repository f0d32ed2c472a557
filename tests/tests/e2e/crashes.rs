//! Anything is killed at any moment: the cluster converges, and nothing runs twice or is left.

use std::collections::BTreeSet;

use swarm_tests::e2e::{Cluster, TaskRow, busybox_image, demo_image, eventually, get};

fn cluster(nodes: u16) -> Cluster {
    let cluster = Cluster::start(nodes);
    for image in [busybox_image("busybox:1"), demo_image("demo:1", "1")] {
        let path = image.write(cluster.directory());
        cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
    }
    cluster
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

fn running_in(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_task_that_dies_is_replaced_by_policy() {
    let cluster = cluster(2);
    cluster.ctl_ok(&[
        "service",
        "create",
        "--name",
        "a",
        "--replicas",
        "2",
        "--restart-delay",
        "50ms",
        "busybox:1",
    ]);
    let before = cluster.running("a");
    kill(cluster.pid(&before[0].id));
    eventually("a replacement runs", || {
        let now = cluster.running("a");
        let replaced = now.len() == 2 && now.iter().all(|task| task.id != before[0].id);
        if replaced { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let tasks = cluster.tasks("a");
    let dead = tasks.iter().find(|task| task.id == before[0].id).expect("the history shows it");
    assert_eq!((dead.state.as_str(), dead.desired.as_str()), ("Failed", "Shutdown"), "{dead:?}");
    assert!(dead.error.contains("137") || dead.error.contains("KILL"), "{dead:?}");

    // Without a restart it stays ended.
    cluster.ctl_ok(&[
        "service",
        "create",
        "--name",
        "once",
        "--restart-condition",
        "none",
        "busybox:1",
        "sh",
        "-c",
        "sleep 1; exit 3",
    ]);
    eventually("it has ended", || {
        let tasks = cluster.tasks("once");
        if tasks.len() == 1 && tasks[0].state == "Failed" && tasks[0].error.contains('3') {
            Ok(())
        } else {
            Err(format!("{tasks:?}"))
        }
    });
    cluster.finish();
}

#[test]
fn a_crash_loop_is_told_with_its_cause() {
    let cluster = cluster(1);
    let create = ["service", "create", "-d", "--name", "loop", "--restart-delay", "10ms"];
    cluster.ctl_ok(&[&create[..], &["busybox:1", "sh", "-c", "exit 42"]].concat());
    eventually("its end is listed with the exit code", || {
        let tasks = cluster.tasks("loop");
        let ended = |task: &TaskRow| task.state == "Failed" && task.error.contains("42");
        tasks.iter().any(ended).then_some(()).ok_or_else(|| format!("{tasks:?}"))
    });
    cluster.ctl_ok(&["service", "rm", "loop"]);
    cluster.finish();
}

#[test]
fn an_agents_crash_leaves_its_containers_running_and_they_are_adopted() {
    let mut cluster = cluster(2);
    let create =
        ["service", "create", "--name", "web", "-p", "8080:80", "--constraint", "node.hostname==node-2"];
    cluster.ctl_ok(&[&create[..], &["demo:1"]].concat());
    let task = cluster.running("web").remove(0);
    let pid = cluster.pid(&task.id);
    cluster.kill(2);
    assert!(running_in(pid), "the container does not need the daemon");
    assert!(get(cluster.endpoint(2, 8080)).contains("version=1"), "it answers while the daemon is away");
    cluster.restart(2);
    cluster.wait_node(2, "Ready");
    let again = cluster.wait_running("web", 1).remove(0);
    assert_eq!(
        (again.id.as_str(), cluster.pid(&again.id)),
        (task.id.as_str(), pid),
        "neither replaced nor restarted"
    );

    // One that dies while the daemon is away is reported afterwards.
    cluster.kill(2);
    kill(pid);
    cluster.restart(2);
    eventually("it is replaced", || {
        let now = cluster.running("web");
        if now.len() == 1 && now[0].id != task.id {
            Ok(())
        } else {
            Err(format!("{:?}", cluster.tasks("web")))
        }
    });
    assert!(get(cluster.endpoint(1, 8080)).contains("version=1"));
    cluster.finish();
}

#[test]
fn a_managers_crash_loses_nothing_and_disturbs_no_container() {
    let mut cluster = cluster(3);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "demo:1"]);
    let before: BTreeSet<(String, i32)> =
        cluster.running("web").into_iter().map(|task| (task.id.clone(), cluster.pid(&task.id))).collect();
    cluster.kill(1);
    assert!(get(cluster.endpoint(2, 8080)).contains("version=1"), "the data path needs no manager");
    cluster.restart(1);
    cluster.wait_running("web", 3);
    let after: BTreeSet<(String, i32)> =
        cluster.running("web").into_iter().map(|task| (task.id.clone(), cluster.pid(&task.id))).collect();
    assert_eq!(after, before);

    // Killed while it works, again and again.
    for round in 1..=6 {
        let name = format!("s{round}");
        let mut create = cluster
            .ctl_command(1, &["service", "create", "-d", "--name", &name, "--replicas", "2", "busybox:1"]);
        let created = create.output().expect("swarmctl runs");
        assert!(created.status.success(), "{created:?}");
        let scale = format!("web={}", 2 + round % 3);
        let mut scaling =
            cluster.ctl_command(1, &["service", "scale", "-d", &scale]).spawn().expect("swarmctl runs");
        cluster.kill(1);
        let _ = scaling.wait();
        cluster.restart(1);
        let names = cluster.ctl_ok(&["service", "ls", "--format", "{{.Name}}"]);
        assert!(names.lines().any(|line| line == name), "the acknowledged service {name} is lost: {names}");
    }
    cluster.ctl_ok(&["service", "scale", "web=3"]);
    for round in 1..=6 {
        cluster.wait_running(&format!("s{round}"), 2);
    }
    // Exactly the wanted containers run on the hosts.
    eventually("no container is duplicated", || {
        let shims: usize = (1..=3).map(|number| cluster.processes(number).len() - 1).sum();
        if shims == 3 + 6 * 2 { Ok(()) } else { Err(format!("{shims} shims")) }
    });
    cluster.finish();
}

#[test]
fn a_lost_hosts_tasks_run_elsewhere_and_the_host_comes_back_clean() {
    let mut cluster = cluster(3);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "demo:1"]);
    cluster.crash_host(3);
    cluster.wait_node(3, "Down");
    let tasks = cluster.wait_running("web", 3);
    assert!(tasks.iter().all(|task| task.node != "node-3"), "{tasks:?}");
    for _ in 0..10 {
        assert!(get(cluster.endpoint(1, 8080)).contains("version=1"));
    }
    cluster.restart(3);
    cluster.wait_node(3, "Ready");
    eventually("the host holds nothing of before", || {
        let left = cluster.processes(3).len() - 1;
        if left == 0 { Ok(()) } else { Err(format!("{left} shims")) }
    });
    assert_eq!(cluster.running("web").len(), 3);

    // Cut off only: its containers go on until it hears what happened.
    cluster.cut_off(2);
    cluster.wait_node(2, "Down");
    cluster.wait_running("web", 3);
    cluster.reconnect(2);
    cluster.wait_node(2, "Ready");
    eventually("no slot runs twice", || {
        let shims: usize = (1..=3).map(|number| cluster.processes(number).len() - 1).sum();
        if shims == 3 { Ok(()) } else { Err(format!("{shims} shims")) }
    });
    cluster.finish();
}
