//! Limits that are really enforced.

use std::time::Instant;

use swarm_runtime::Resources;

use crate::support::Host;

#[test]
fn a_memory_hog_is_killed_and_reported() {
    let host = Host::new();
    let mut spec = host.shell("hog", "exec tail /dev/zero");
    spec.resources.memory_bytes = Some(32 << 20);
    let run = host.run(spec);
    assert_eq!((run.exit.code, run.exit.signal, run.exit.oom), (137, Some(9), true), "{run:?}");
}

#[test]
fn too_little_memory_to_start_is_said() {
    let host = Host::new();
    let mut spec = host.shell("tiny", "sleep 600");
    spec.resources.memory_bytes = Some(4 << 20);
    // It may just fit; if it does not, the error must say why.
    match host.runtime.start(spec) {
        Ok(container) => {
            container.kill().unwrap();
            host.finish(&container);
            host.runtime.remove("tiny").unwrap();
        }
        Err(error) => assert!(error.to_string().contains("signal 9"), "{error}"),
    }
}

#[test]
fn a_fork_bomb_is_capped() {
    let host = Host::new();
    let script = "i=0; while [ $i -lt 200 ]; do sleep 600 & i=$((i+1)); done; echo never";
    let mut spec = host.shell("bomb", script);
    spec.resources.pids = Some(20);
    let run = host.run(spec);
    assert_ne!(run.exit.code, 0);
    assert!(run.stderr.contains("can't fork"), "{run:?}");
    assert!(!run.stdout.contains("never"));
}

#[test]
fn cpu_time_is_capped() {
    let host = Host::new();
    let mut spec = host.shell("burn", "while :; do :; done");
    spec.resources = Resources { cpu_nanos: Some(200_000_000), ..Resources::default() };
    let container = host.runtime.start(spec).unwrap();
    let (begin, used) = (Instant::now(), container.stats().unwrap().cpu_nanos);
    // Not logic: the span over which CPU time is measured.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let used = container.stats().unwrap().cpu_nanos - used;
    let share = used as f64 / begin.elapsed().as_nanos() as f64;
    assert!((0.1..0.3).contains(&share), "{share} CPUs");
    host.runtime.remove("burn").unwrap();
}

#[test]
fn a_command_that_ends_at_once_may_have_limits() {
    let host = Host::new();
    for _ in 0..20 {
        let mut spec = host.shell("short", "exit 7");
        spec.resources = Resources { cpu_nanos: Some(500_000_000), ..Resources::default() };
        assert_eq!(host.run(spec).exit.code, 7);
    }
}

#[test]
fn usage_is_measured() {
    let host = Host::new();
    let script = "sleep 600 & sleep 600 & echo ready; wait";
    let container = host.runtime.start(host.shell("usage", script)).unwrap();
    host.wait_for_line("usage", "ready");
    let usage = container.stats().unwrap();
    assert_eq!(usage.pids, 3);
    assert!((100_000..50_000_000).contains(&usage.memory_bytes), "{usage:?}");
    assert!(usage.cpu_nanos > 0);
    container.kill().unwrap();
    host.finish(&container);
    assert!(container.stats().unwrap_err().to_string().contains("is not running"));
    host.runtime.remove("usage").unwrap();
}

#[test]
fn a_container_sees_its_own_limits() {
    let host = Host::new();
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
                  cat /proc/self/cgroup; \
                  mkdir /sys/fs/cgroup/memory/sub /sys/fs/cgroup/sub 2>&1";
    let mut spec = host.shell("own", script);
    spec.resources.memory_bytes = Some(64 << 20);
    let run = host.run(spec);
    assert!(run.stdout.starts_with("67108864\n"), "{run:?}");
    assert!(!run.stdout.contains(&host.cgroup_parent), "{run:?}");
    assert!(run.stdout.contains("Read-only file system"), "{run:?}");
}

#[test]
fn resource_limits_are_set() {
    let host = Host::new();
    let mut spec = host.shell("ulimit", "ulimit -n; ulimit -c; ulimit -Hn");
    let ulimit = |name: &str, soft, hard| swarm_runtime::Ulimit { name: name.into(), soft, hard };
    spec.ulimits = vec![ulimit("nofile", 99, 100), ulimit("core", 0, 0)];
    assert_eq!(host.run(spec).stdout, "99\n0\n100\n");
}
