//! Bad input: an error that names the thing, the right exit code, and nothing half-done left.

use swarm_tests::e2e::{Cluster, Options, busybox_image};

#[test]
fn bad_services_are_refused_by_name() {
    let cluster = Cluster::start(1);
    let path = busybox_image("busybox:1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
    let create = |more: &[&'static str]| [&["service", "create", "--name", "x"], more].concat();

    cluster.ctl_fails(&create(&["busybox:9"]), 1, "busybox:9");
    cluster.ctl_fails(&create(&["UPPER/case"]), 1, "UPPER/case");
    cluster.ctl_fails(&create(&["localhost:1/none:1"]), 1, "localhost:1");
    cluster.ctl_fails(&create(&["--constraint", "node.rol==manager", "busybox:1"]), 1, "node.rol");
    cluster.ctl_fails(&create(&["--constraint", "node.role", "busybox:1"]), 1, "no operator");
    cluster.ctl_fails(&create(&["-p", "80:99999", "busybox:1"]), 64, "80:99999");
    cluster.ctl_fails(&create(&["-p", "2377:80", "busybox:1"]), 1, "2377/tcp");
    cluster.ctl_fails(&create(&["--limit-memory", "1k", "busybox:1"]), 1, "limit-memory");
    cluster.ctl_fails(&create(&["--replicas", "many", "busybox:1"]), 64, "many");
    cluster.ctl_fails(&["service", "create", "--name=-bad-", "busybox:1"], 1, "-bad-");
    cluster.ctl_fails(&["service", "create", "--name", "no good", "busybox:1"], 1, "no good");
    assert_eq!(cluster.ctl_ok(&["service", "ls", "-q"]), "", "a refused request leaves nothing");

    cluster.ctl_ok(&["service", "create", "--name", "one", "-p", "8080:80", "busybox:1"]);
    cluster.ctl_fails(&["service", "create", "--name", "two", "-p", "8080:81", "busybox:1"], 1, "8080");
    cluster.ctl_fails(&["service", "create", "--name", "one", "busybox:1"], 1, "one");
    cluster.ctl_fails(&["service", "rm", "oen"], 1, "oen");
    cluster.ctl_fails(&["service", "scale", "one=x"], 64, "x");
    cluster.ctl_fails(&["node", "inspect", "nowhere"], 1, "nowhere");
    cluster.ctl_fails(&["image", "rm", "busybox:1"], 1, "one");

    // Nothing fits: the service stays, and says why.
    let wish = ["service", "create", "--name", "wish", "--constraint", "node.labels.gpu==yes", "busybox:1"];
    cluster.ctl_fails(&wish, 1, "node.labels.gpu==yes");
    cluster.finish();
}

#[test]
fn an_oversized_spec_is_refused() {
    let cluster = Cluster::start(1);
    let path = busybox_image("busybox:1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
    let file = cluster.directory().join("env");
    let lines: String = (0..5_000).map(|number| format!("VARIABLE_{number}=value\n")).collect();
    std::fs::write(&file, lines).expect("written");
    let create =
        ["service", "create", "--name", "big", "--env-file", &file.display().to_string(), "busybox:1"];
    cluster.ctl_fails(&create, 1, "env");
    assert_eq!(cluster.ctl_ok(&["service", "ls", "-q"]), "");
    cluster.finish();
}

#[test]
fn wrong_tokens_do_not_join() {
    let cluster = Cluster::with(Options { nodes: 3, unformed: true, ..Options::default() });
    let address = |number| cluster.address(number).to_string();
    cluster.ctl_ok(&["cluster", "init", "--advertise-addr", &address(1)]);
    // Node 3 is a cluster of its own: its token pins another root.
    let other = cluster.ctl_at(3, &["cluster", "init", "--advertise-addr", &address(3)]);
    assert_eq!(other.code, 0, "{other:?}");
    let foreign = cluster.ctl_at(3, &["cluster", "join-token", "-q", "worker"]).stdout;
    let own = cluster.ctl_ok(&["cluster", "join-token", "-q", "worker"]);
    let join = |token: &str| {
        cluster
            .ctl_at(2, &["cluster", "join", "--token", token, "--advertise-addr", &address(2), &address(1)])
    };

    let (head, _) = own.trim().rsplit_once('-').expect("a token");
    let wrong_secret = join(&format!("{head}-{}", "0".repeat(25)));
    assert_eq!(wrong_secret.code, 5, "{wrong_secret:?}");
    let wrong_root = join(foreign.trim());
    assert_eq!(wrong_root.code, 5, "{wrong_root:?}");
    assert!(wrong_root.stderr.contains("root"), "{wrong_root:?}");
    assert_ne!(join("nonsense").code, 0);

    // Rotation: the old one is refused, the new one works.
    cluster.ctl_ok(&["cluster", "join-token", "--rotate", "-q", "worker"]);
    assert_eq!(join(own.trim()).code, 5);
    let fresh = cluster.ctl_ok(&["cluster", "join-token", "-q", "worker"]);
    assert_eq!(join(fresh.trim()).code, 0);
    let again = join(fresh.trim());
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("already"), "{again:?}");
}
