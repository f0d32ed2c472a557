//! Images: loaded, pulled from a real registry, and refused.

use swarm_tests::e2e::{Archive, Cluster, Options, append, busybox_image, demo_image, get};

#[test]
fn loaded_images_run_on_every_node_and_are_protected_while_used() {
    let cluster = Cluster::start(2);
    let path = busybox_image("shop/box:1").write(cluster.directory()).display().to_string();
    assert!(cluster.ctl_ok(&["image", "load", "-i", &path]).contains("shop/box:1"));
    assert!(cluster.ctl_ok(&["image", "ls"]).contains("shop/box"));
    cluster.ctl_ok(&["service", "create", "--name", "a", "--replicas", "4", "shop/box:1"]);
    cluster.ctl_fails(&["image", "rm", "shop/box:1"], 1, "a");
    cluster.ctl_ok(&["service", "rm", "a"]);
    cluster.ctl_ok(&["image", "rm", "shop/box:1"]);
    assert_eq!(cluster.ctl_ok(&["image", "ls", "-q"]), "");
    cluster.finish();
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let cluster = Cluster::start(1);
    let load = |name: &str, bytes: &[u8], says: &str| {
        let path = cluster.directory().join(name);
        std::fs::write(&path, bytes).expect("written");
        cluster.ctl_fails(&["image", "load", "-i", &path.display().to_string()], 1, says);
        assert_eq!(cluster.ctl_ok(&["image", "ls", "-q"]), "", "{name} left something");
    };
    let good = busybox_image("box:1").bytes();
    load("garbage", b"this is no archive at all, it only has some text in it", "archive");
    load("empty", b"", "archive");
    load("truncated", &good[..good.len() / 2], "");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    load("flipped", &flipped, "sha256");
    cluster.ctl_fails(&["image", "load", "-i", "/nonexistent.tar"], 1, "/nonexistent.tar");

    // Layers that reach outside are refused at the latest when they are unpacked, and touch nothing.
    let canary = cluster.directory().join("canary");
    for (name, entry) in [("dots:1", "../../../../../../canary"), ("absolute:1", "/canary")] {
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        let path = entry.as_bytes();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.set_cksum();
        layer.append(&header, &b"evil"[..]).expect("memory");
        append(&mut layer, "bin/x", b"x", 0o755);
        let archive = Archive {
            name: name.to_owned(),
            entrypoint: vec!["/bin/x".to_owned()],
            command: Vec::new(),
            env: Vec::new(),
            layers: vec![layer.into_inner().expect("memory")],
        };
        let path = archive.write(cluster.directory()).display().to_string();
        let loaded = cluster.ctl(&["image", "load", "-i", &path]);
        if loaded.code == 0 {
            cluster.ctl(&[
                "service",
                "create",
                "--name",
                "evil",
                "--restart-condition",
                "none",
                "--timeout",
                "20s",
                name,
            ]);
            cluster.ctl(&["service", "rm", "evil"]);
        }
        assert!(!canary.exists() && !std::path::Path::new("/canary").exists());
    }
    cluster.finish();
}

#[test]
fn images_are_pulled_from_a_registry() {
    let cluster = Cluster::with(Options { nodes: 2, registry: true, ..Options::default() });
    let registry = cluster.registry();
    registry.push("shop/web", "1", &demo_image("unused:1", "1"));
    let host = registry.host();
    let image = format!("{host}/shop/web:1");

    // By name, straight from each node.
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "2", "-p", "8080:80", &image]);
    assert!(get(cluster.endpoint(2, 8080)).contains("version=1"));
    assert!(
        cluster.ctl_ok(&["service", "inspect", "web"]).contains("@sha256:"),
        "the tag is resolved once, for all tasks"
    );
    cluster.ctl_fails(&["service", "create", "--name", "no", &format!("{host}/shop/web:9")], 1, "shop/web:9");
    cluster.ctl_fails(&["service", "create", "--name", "no", &format!("{host}/none/such:1")], 1, "none/such");

    // Into the cluster's own store.
    assert!(cluster.ctl_ok(&["image", "pull", &image]).contains("sha256:"));
    assert!(cluster.ctl_ok(&["image", "ls"]).contains("shop/web"));
    cluster.ctl_fails(&["image", "pull", &format!("{host}/shop/web:9")], 1, "shop/web:9");
    cluster.finish();
}
