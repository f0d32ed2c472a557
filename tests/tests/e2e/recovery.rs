//! What protects a cluster's state, and what brings it back: locked managers, backups, and recovery from a lost quorum.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use swarm_tests::e2e::{Cluster, Options, Output, demo_image, eventually};

/// For a command to say that nobody decides: the wait for a leader, and a loaded machine.
const BOUND: Duration = Duration::from_secs(15);

fn load(cluster: &Cluster) {
    let path = demo_image("demo:1", "1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
}

/// A command that reads a line.
fn tell(cluster: &Cluster, number: u16, arguments: &[&str], line: &str) -> Output {
    let mut command = cluster.ctl_command(number, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("swarmctl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{line}").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn containers(cluster: &Cluster, service: &str) -> BTreeSet<(String, i32)> {
    cluster.running(service).into_iter().map(|task| (task.id.clone(), cluster.pid(&task.id))).collect()
}

/// Where below a directory a text stands in a file.
fn found_in(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(found_in(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_locked_manager_yields_nothing_and_goes_on_where_it_was_when_unlocked() {
    let mut cluster = Cluster::start(1);
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "--env", "CANARY=c4n4ry-9f2e", "demo:1"]);
    let before = containers(&cluster, "web");
    let file = cluster.data(1).join("manager/data.key");
    let plain = std::fs::read_to_string(&file).expect("a key");
    let data_key = plain.split('"').find(|part| part.len() == 44).expect("32 bytes in base64").to_owned();

    let said = cluster.ctl_ok(&["cluster", "update", "--autolock=true"]);
    let first = said.split_whitespace().find(|word| word.starts_with("SWMKEY-1-")).expect("a key").to_owned();
    let second = cluster.ctl_ok(&["cluster", "unlock-key", "-q", "--rotate"]).trim().to_owned();
    assert_ne!(first, second);
    let manager = cluster.data(1).join("manager");
    for secret in [&data_key, &first, &second, "PRIVATE KEY-----\nM", "c4n4ry-9f2e"] {
        assert_eq!(found_in(&manager, secret), [] as [String; 0], "{secret}");
    }
    let credentials = std::fs::read_to_string(cluster.data(1).join("node.pem")).expect("a file");
    assert!(!credentials.contains("BEGIN PRIVATE KEY"), "{credentials}");

    cluster.kill(1);
    cluster.restart(1);
    for arguments in [&["cluster", "info"][..], &["cluster", "doctor"], &["node", "ls"], &["service", "ls"]] {
        let output = cluster.ctl(arguments);
        let locked = output.code == 7 && output.stderr.contains("swarmctl cluster unlock");
        assert!(locked, "{arguments:?}: {output:?}");
    }
    let start = Instant::now();
    let refused = tell(&cluster, 1, &["cluster", "unlock"], &first);
    assert!(refused.code == 5 && refused.stderr.contains("not the key"), "{refused:?}");
    assert!(start.elapsed() >= Duration::from_secs(1), "guesses are slowed down");
    let alive = |pid: i32| Path::new(&format!("/proc/{pid}")).exists();
    assert!(before.iter().all(|(_, pid)| alive(*pid)), "containers go on while the manager is locked");
    let unlocked = tell(&cluster, 1, &["cluster", "unlock"], &second);
    assert_eq!(unlocked.code, 0, "{unlocked:?}\n{}", cluster.logs());
    cluster.wait_running("web", 1);
    assert_eq!(containers(&cluster, "web"), before);

    cluster.ctl_ok(&["cluster", "update", "--autolock=false"]);
    cluster.kill(1);
    cluster.restart(1);
    cluster.wait_running("web", 1);
    assert_eq!(containers(&cluster, "web"), before);
    cluster.finish();
}

#[test]
fn a_restored_manager_finds_its_workers_and_no_task_is_restarted() {
    let mut cluster = Cluster::start(3);
    load(&cluster);
    cluster.ctl_ok(&["node", "update", "--availability", "drain", "node-1"]);
    cluster.ctl_ok(&["cluster", "update", "--autolock=true"]);
    let key = cluster.ctl_ok(&["cluster", "unlock-key", "-q"]).trim().to_owned();
    let create = |name, replicas| {
        let canary = ["--env", "CANARY=c4n4ry-77aa"];
        let service =
            [&["service", "create", "--name", name, "--replicas", replicas][..], &canary, &["demo:1"]];
        cluster.ctl_ok(&service.concat());
    };
    create("web", "4");
    let before = containers(&cluster, "web");
    let file = cluster.directory().join("state.backup").display().to_string();
    cluster.ctl_ok(&["cluster", "backup", &file]);
    create("later", "1");
    let shown = cluster.ctl_ok(&["cluster", "backup", "--verify", &file]);
    assert!(shown.contains("3 nodes, 1 service, 4 tasks") && shown.contains("unlock key"), "{shown}");
    let bytes = std::fs::read(&file).expect("a file");
    assert!(!bytes.windows(11).any(|window| window == b"c4n4ry-77aa"), "it is encrypted");
    let mut hurt = bytes.clone();
    hurt[bytes.len() / 2] ^= 1;
    let hurt_file = cluster.directory().join("hurt.backup").display().to_string();
    std::fs::write(&hurt_file, hurt).expect("written");
    cluster.ctl_fails(&["cluster", "backup", "--verify", &hurt_file], 1, "not a whole backup");
    cluster.ctl_fails(&["cluster", "restore", "--yes", &hurt_file], 1, "not a whole backup");
    let refused = tell(&cluster, 1, &["cluster", "restore", "--yes", &file], &key);
    assert!(refused.code == 1 && refused.stderr.contains("already"), "{refused:?}");

    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).expect("the manager's disk is lost");
    cluster.restart(1);
    let address = cluster.address(1).to_string();
    let restore = ["cluster", "restore", "--yes", "--advertise-addr", &address, &file];
    let refused = tell(&cluster, 1, &restore, "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert!(refused.code == 1 && refused.stderr.contains("unlock key"), "{refused:?}");
    cluster.ctl_fails(&["cluster", "info"], 1, "in no cluster");
    let restored = tell(&cluster, 1, &restore, &key);
    assert_eq!(restored.code, 0, "{restored:?}{}", cluster.logs());
    for number in [2, 3] {
        cluster.wait_node(number, "Ready");
    }
    cluster.wait_running("web", 4);
    assert_eq!(containers(&cluster, "web"), before, "no task was restarted");
    assert_eq!(cluster.ctl_ok(&["service", "ls", "--format", "{{.Name}}"]).trim(), "web");
    assert_eq!(cluster.ctl_ok(&["cluster", "unlock-key", "-q"]).trim(), key);
    // The image store went with the disk.
    load(&cluster);
    cluster.ctl_ok(&["service", "scale", "web=5"]);
    cluster.finish();
}

#[test]
fn a_survivor_of_a_lost_quorum_goes_on_alone_and_refuses_the_others() {
    let mut cluster = Cluster::with(Options { nodes: 4, managers: 3, ..Options::default() });
    load(&cluster);
    for number in 1..=3 {
        cluster.ctl_ok(&["node", "update", "--availability", "drain", &format!("node-{number}")]);
    }
    cluster.ctl_ok(&["service", "create", "--name", "web", "--replicas", "3", "demo:1"]);
    let before = containers(&cluster, "web");
    cluster.ctl_fails(&["cluster", "recover", "--yes"], 1, "has a leader");
    cluster.ctl_ok(&["cluster", "update", "--autolock=true"]);
    let key = cluster.ctl_ok(&["cluster", "unlock-key", "-q"]).trim().to_owned();
    for number in 1..=3 {
        let file = cluster.data(number).join("manager/data.key");
        eventually("every manager is locked", || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if text.contains("locked_with") { Ok(()) } else { Err(text) }
        });
    }
    for number in [1, 2, 3] {
        cluster.kill(number);
    }
    cluster.restart(1);
    cluster.ctl_fails(&["cluster", "recover", "--yes"], 1, "locked");
    assert_eq!(tell(&cluster, 1, &["cluster", "unlock"], &key).code, 0, "{}", cluster.logs());

    let start = Instant::now();
    let refused = cluster.ctl(&["service", "ls"]);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    let says = |text: &str| refused.stderr.contains(text);
    let told = says("no leader") && says("swarmctl cluster recover");
    assert!(refused.code == 6 && told, "{refused:?}");
    let named = says("node-2") && says(&cluster.address(3).to_string()) && says("2 of 3");
    assert!(named, "{refused:?}");
    assert!(cluster.ctl_ok(&["cluster", "info"]).contains("none"));

    let asked = tell(&cluster, 1, &["cluster", "recover"], "y");
    assert!(
        asked.code == 64 && asked.stdout.contains("node-3") && asked.stderr.contains("--yes"),
        "{asked:?}"
    );
    cluster.ctl_ok(&["cluster", "recover", "--yes"]);
    cluster.wait_running("web", 3);
    cluster.wait_node(4, "Ready");
    assert_eq!(containers(&cluster, "web"), before, "no task was restarted");
    cluster.ctl_ok(&["service", "create", "--name", "more", "demo:1"]);

    cluster.restart(2);
    assert_eq!(tell(&cluster, 2, &["cluster", "unlock"], &key).code, 0, "{}", cluster.logs());
    eventually("a dropped manager is told", || {
        let info = cluster.ctl_at(2, &["cluster", "info"]);
        if info.stderr.contains("was removed from the cluster") { Ok(()) } else { Err(format!("{info:?}")) }
    });
    let left = cluster.ctl_at(2, &["cluster", "leave", "--force"]);
    assert_eq!(left.code, 0, "{left:?}");
    let token = cluster.ctl_ok(&["cluster", "join-token", "-q", "manager"]);
    cluster.join(2, token.trim());
    eventually("it is a manager again", || {
        let listed = cluster.ctl_ok(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
        if listed.contains("node-2 Reachable") { Ok(()) } else { Err(listed) }
    });
    cluster.finish();
}

#[test]
fn a_locked_manager_whose_key_is_lost_can_be_given_up() {
    let mut cluster = Cluster::start(1);
    load(&cluster);
    cluster.ctl_ok(&["service", "create", "--name", "web", "demo:1"]);
    let pid = containers(&cluster, "web").first().expect("a container").1;
    cluster.ctl_ok(&["cluster", "update", "--autolock=true"]);
    cluster.kill(1);
    cluster.restart(1);
    cluster.ctl_fails(&["cluster", "leave"], 1, "locked");
    cluster.ctl_ok(&["cluster", "leave", "--force"]);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "its container is gone");
    assert!(!cluster.data(1).join("manager").exists(), "so is its state");
    cluster.ctl_ok(&["cluster", "init", "--advertise-addr", &cluster.address(1).to_string()]);
    cluster.finish();
}
