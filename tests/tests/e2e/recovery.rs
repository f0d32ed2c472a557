//! What protects a cluster's state, and what brings it back: locked managers, backups, and recovery from a lost quorum.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use swarm_tests::e2e::{Cluster, Output, demo_image};

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
