//! Walls between a container and its host.

use std::fs;

use crate::support::{Host, parent};

/// Docker's default set: the bits of its fourteen capabilities.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
}

#[test]
fn privileges_are_the_default_ones() {
    let host = Host::new();
    let mut spec = host.shell("status", "");
    spec.args = vec!["cat".to_owned(), "/proc/self/status".to_owned()];
    let status = host.run(spec).stdout;
    for (name, expect) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", DEFAULT_CAPABILITIES),
        ("CapEff", DEFAULT_CAPABILITIES),
        ("CapBnd", DEFAULT_CAPABILITIES),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("SigBlk", "0000000000000000"),
        ("SigIgn", "0000000000000000"),
        ("Groups", "0"),
    ] {
        assert_eq!(field(&status, name), expect, "{name}");
    }
}

#[test]
fn another_user_has_no_capabilities() {
    let host = Host::new();
    let mut spec = host.shell("user", "cat /proc/self/status");
    spec.user = "web".to_owned();
    let status = host.run(spec).stdout;
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    assert_eq!(field(&status, "CapPrm"), "0000000000000000");
}

#[test]
fn capabilities_can_be_dropped_and_added() {
    let host = Host::new();
    let mut spec = host.shell("caps", "cat /proc/self/status");
    spec.cap_drop = vec!["ALL".to_owned()];
    spec.cap_add = vec!["NET_ADMIN".to_owned()];
    let status = host.run(spec).stdout;
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, name), "0000000000001000");
    }
}

#[test]
fn what_reaches_into_the_host_is_refused() {
    let host = Host::new();
    let script = "mount -t tmpfs x /tmp || echo mount; unshare -m true || echo unshare; \
                  echo x > /proc/sysrq-trigger || echo sysrq; \
                  echo x > /proc/sys/kernel/core_pattern || echo core; \
                  mknod /dev/disk b 7 0 && cat /dev/disk || echo disk; \
                  mknod /mem c 1 1 && cat /mem || echo mem; \
                  touch /sys/x || echo sys";
    let run = host.run(host.shell("refused", script));
    assert_eq!(run.stdout, "mount\nunshare\nsysrq\ncore\ndisk\nmem\nsys\n", "{run:?}");
    for line in ["cat: can't open '/dev/disk': Operation not permitted", "mount: permission denied"] {
        assert!(run.stderr.contains(line), "{line} in {run:?}");
    }
}

#[test]
fn masked_paths_are_empty() {
    let host = Host::new();
    let script = "cat /proc/kcore /proc/timer_list /proc/keys /proc/interrupts 2>/dev/null | wc -c; \
                  ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep . | wc -l";
    assert_eq!(host.output(script), "0\n0\n");
}

#[test]
fn only_the_standard_files_are_open() {
    let host = Host::new();
    // 3 is the directory that `ls` reads.
    assert_eq!(host.output("exec ls /proc/self/fd"), "0\n1\n2\n3\n");
    assert_eq!(host.output("readlink /proc/self/fd/0"), "/dev/null\n");
}

#[test]
fn namespaces_are_the_containers_own() {
    let host = Host::new();
    let names = ["cgroup", "ipc", "mnt", "pid", "uts"];
    let script = format!("for n in {}; do readlink /proc/self/ns/$n; done; ps | wc -l", names.join(" "));
    let output = host.output(&script);
    for (name, own) in names.iter().zip(output.lines()) {
        let of_host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(of_host.to_str().unwrap(), own);
    }
}

#[test]
fn a_network_namespace_is_joined() {
    let host = Host::new();
    let (netns, inode) = new_netns();
    let mut spec = host.shell("net", "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/sys/net/core/somaxconn");
    spec.network = swarm_runtime::Network::Netns(netns);
    spec.sysctls.insert("net.core.somaxconn".into(), "77".into());
    assert_eq!(host.run(spec).stdout, format!("net:[{inode}]\n0\n77\n"));
    let of_host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(host.output("readlink /proc/self/ns/net").trim(), of_host.to_str().unwrap());
}

/// A network namespace that nothing but the returned file keeps.
fn new_netns() -> (std::os::fd::OwnedFd, u64) {
    use std::os::unix::fs::MetadataExt;
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let file = fs::File::open("/proc/thread-self/ns/net").unwrap();
        let inode = file.metadata().unwrap().ino();
        (file.into(), inode)
    })
    .join()
    .unwrap()
}

#[test]
fn a_read_only_root_refuses_writes() {
    let host = Host::new();
    let mut spec = host.shell("ro", "touch /x; touch /tmp/x; touch /dev/shm/x && echo shm");
    spec.read_only_root = true;
    let run = host.run(spec);
    assert_eq!(run.stderr.matches("Read-only file system").count(), 2, "{run:?}");
    assert_eq!(run.stdout, "shm\n");
}

#[test]
fn the_devices_are_the_standard_ones() {
    let host = Host::new();
    let output = host
        .output("ls /dev; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c");
    let (devices, counts) = output.split_at(output.find("zero\n").unwrap() + 5);
    let expect = [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
        "tty", "urandom", "zero",
    ];
    assert_eq!(
        devices.lines().filter(|name| *name != "kcore").collect::<Vec<_>>(),
        expect.iter().filter(|name| **name != "core").copied().collect::<Vec<_>>()
    );
    assert_eq!(counts, "4\n4\n");
}

#[test]
fn the_shim_is_protected_from_the_oom_killer_and_the_container_is_not() {
    let host = Host::new();
    let container = host.runtime.start(host.shell("oom", "sleep 600")).unwrap();
    let score = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score(container.init_pid()), "0\n");
    let shim = parent(container.init_pid());
    // Only where this process may lower a score at all.
    let may = rustix::process::getpid();
    let own = score(may.as_raw_nonzero().get());
    assert!(score(shim) == "-999\n" || score(shim) == own);
    host.runtime.remove("oom").unwrap();
}
