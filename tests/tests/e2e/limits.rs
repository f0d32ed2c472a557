//! Limits hold, and what they did is told.

use swarm_tests::e2e::{Cluster, busybox_image, eventually};

#[test]
fn memory_processes_and_cpu_are_limited() {
    let cluster = Cluster::start(1);
    let path = busybox_image("busybox:1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);

    // `tail` keeps the last line in memory, and this one has no end.
    let hog = [
        "service",
        "create",
        "-d",
        "--name",
        "hog",
        "--restart-condition",
        "none",
        "--limit-memory",
        "32m",
        "busybox:1",
    ];
    cluster.ctl_ok(&[&hog[..], &["/bin/busybox", "tail", "/dev/zero"]].concat());
    eventually("the hog is killed and told so", || {
        let tasks = cluster.tasks("hog");
        let told = tasks.iter().any(|task| task.state == "Failed" && task.error.contains("memory"));
        if told { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    let inspected = cluster.ctl_ok(&["task", "inspect", &cluster.tasks("hog")[0].id]);
    assert!(inspected.contains("\"OOMKilled\": true"), "{inspected}");

    let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 5 & done; echo started; wait";
    let forked = cluster.ctl(&["run", "--limit-pids", "8", "busybox:1", "sh", "-c", forks]);
    assert!(forked.stderr.contains("fork") || forked.stdout.contains("fork"), "{forked:?}");

    // A busy loop under a fifth of a CPU, measured by itself: CPU ticks (1/100 s) it got in two seconds.
    let spin =
        "i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done & p=$!; sleep 2; cat /proc/$p/stat; kill -9 $p";
    let spun = cluster.ctl(&["run", "--limit-cpu", "0.2", "busybox:1", "sh", "-c", spin]);
    let ticks: Vec<u64> =
        spun.stdout.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    assert_eq!(ticks.len(), 2, "{spun:?}");
    let used = ticks[0] + ticks[1];
    assert!((5..100).contains(&used), "{used} ticks of 200: {spun:?}");
    cluster.finish();
}
