//! Operators on a machine without `swarmd`: contexts, roles, and the trail of who did what.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use swarm_tests::e2e::{Cluster, Options, Output, binary, demo_image, eventually};

/// A machine beyond the cluster's network, with a folder of contexts of its own.
struct Laptop(PathBuf);

impl Laptop {
    fn new(cluster: &Cluster, name: &str) -> Self {
        Self(cluster.directory().join(name))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("swarmctl"));
        command.args(arguments).env("XDG_CONFIG_HOME", &self.0);
        for variable in ["SWARMCTL_CONTEXT", "SWARM_HOST", "SWARMCTL_TOKEN"] {
            command.env_remove(variable);
        }
        command
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).stdin(Stdio::null()).output().expect("swarmctl runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert_eq!(output.code, 0, "swarmctl {arguments:?}: {output:?}");
        output.stdout
    }

    fn refused(&self, arguments: &[&str], code: i32, says: &str) {
        let output = self.ctl(arguments);
        assert_eq!(output.code, code, "swarmctl {arguments:?}: {output:?}");
        assert!(
            output.stderr.contains(says),
            "swarmctl {arguments:?} says {:?}, not {says:?}",
            output.stderr
        );
    }

    fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ok(&[&["events", "--format", "json"], arguments].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn load(cluster: &Cluster) {
    let path = demo_image("demo:1", "1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);
}

fn token(cluster: &Cluster, name: &str, role: &str, more: &[&str]) -> String {
    let invite = ["cluster", "operator-token", "-q", "--name", name, "--role", role];
    cluster.ctl_ok(&[&invite[..], more].concat()).trim().to_owned()
}

fn managers(cluster: &Cluster, numbers: std::ops::RangeInclusive<u16>) -> String {
    numbers.map(|number| cluster.address(number).to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn operators_may_what_their_role_says_from_a_machine_without_swarmd() {
    let cluster = Cluster::with(Options { nodes: 1, ..Options::default() });
    load(&cluster);
    let manager = managers(&cluster, 1..=1);
    let [admin, deployer, reader] = ["admin", "deployer", "reader"].map(|name| Laptop::new(&cluster, name));
    admin.refused(&["service", "ls"], 6, "no cluster is chosen");
    let alice = token(&cluster, "alice", "admin", &[]);
    let said = admin.ok(&["context", "create", "prod", "--manager", &manager, "--token", &alice]);
    assert!(said.contains("you are alice (admin)"), "{said}");

    // A token works once, for a while, and for operators only.
    admin.refused(&["context", "create", "again", "--manager", &manager, "--token", &alice], 5, "was used");
    let short = token(&cluster, "late", "admin", &["--ttl", "1ms"]);
    eventually("the token has expired", || {
        let listed = cluster.ctl_ok(&["cluster", "operator", "ls", "--filter", "name=late"]);
        if listed.contains("expired") { Ok(()) } else { Err(listed) }
    });
    admin.refused(&["context", "create", "late", "--manager", &manager, "--token", &short], 5, "has expired");
    let node = cluster.ctl_ok(&["cluster", "join-token", "-q", "worker"]);
    let of_node = ["context", "create", "node", "--manager", &manager, "--token", node.trim()];
    admin.refused(&of_node, 64, "it is for nodes");

    // An admin makes the others.
    for (laptop, role) in [(&deployer, "deployer"), (&reader, "read-only")] {
        let name = if role == "deployer" { "dora" } else { "rita" };
        let token = admin.ok(&["cluster", "operator-token", "-q", "--role", role, "--name", name]);
        laptop.ok(&["context", "create", "prod", "--manager", &manager, "--token", token.trim()]);
    }
    let create = ["service", "create", "--name", "web", "--replicas", "2", "demo:1"];
    reader.refused(
        &create,
        5,
        "you are rita (read-only); Services.Create is for operators with the role deployer",
    );
    deployer.ok(&create);
    reader.ok(&["service", "ls"]);
    reader.ok(&["service", "logs", "web"]);
    deployer.refused(&["cluster", "join-token", "worker"], 5, "you are dora (deployer)");
    deployer.refused(&["node", "update", "--availability", "drain", "node-1"], 5, "role admin");
    deployer.refused(&["cluster", "leave"], 64, "is about one host");
    admin.ok(&["node", "update", "--label-add", "zone=a", "node-1"]);
    deployer.ok(&["service", "scale", "web=3"]);
    let archive = demo_image("demo:2", "2").write(cluster.directory());
    deployer.ok(&["image", "load", "-i", &archive.display().to_string()]);
    let ran = deployer.ctl(&["run", "demo:1", "/demo", "print", "hello"]);
    assert!(ran.code == 0 || ran.code == 1, "it ran: {ran:?}");

    // Who did what.
    let changes = reader.events(&["--type", "service,node"]);
    let by = |verb: &str, name: &str| {
        let found = changes.iter().find(|event| event["Verb"] == verb && event["Name"] == name);
        let found = found.unwrap_or_else(|| panic!("{verb} {name}: {changes:?}"));
        (found["Actor"].as_str().unwrap_or_default(), found["Difference"].as_str().unwrap_or_default())
    };
    assert_eq!(by("create", "web"), ("dora", "image demo:1, replicas 2"));
    assert_eq!(by("update", "web"), ("dora", "replicas 2 -> 3"));
    assert_eq!(by("update", "node-1"), ("alice", "label +zone"));
    let tasks = reader.events(&["--type", "task", "--filter", "service=web"]);
    assert_eq!(tasks.iter().filter(|event| event["Verb"] == "create").count(), 3, "{tasks:?}");
    assert!(tasks.iter().all(|event| event["Node"] == "node-1" && event["Actor"] == "system"), "{tasks:?}");
    let images = reader.events(&["--type", "image"]);
    assert_eq!(images[0]["Actor"], format!("root@{}", "node-1"), "{images:?}");

    // Removed, at once, and its open connections with it.
    let mut watching = deployer.command(&["events", "-f"]);
    let watching = watching.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("swarmctl runs");
    admin.ok(&["cluster", "operator", "rm", "dora"]);
    deployer.refused(&["service", "ls"], 5, "the operator dora was removed by alice");
    let ended = watching.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(5), "{ended:?}");
    reader.refused(&["cluster", "operator", "ls"], 5, "role admin");
    cluster.finish();
}

#[test]
fn an_operator_survives_the_loss_of_the_manager_that_is_talked_to() {
    let mut cluster = Cluster::with(Options { nodes: 4, managers: 3, ..Options::default() });
    load(&cluster);
    let laptop = Laptop::new(&cluster, "laptop");
    let token = token(&cluster, "alice", "admin", &[]);
    laptop.ok(&["context", "create", "prod", "--manager", &managers(&cluster, 1..=1), "--token", &token]);
    laptop.ok(&["service", "create", "--name", "web", "--replicas", "2", "demo:1"]);
    let before = laptop.events(&[]);
    let last = before.last().expect("events")["Index"].as_u64().expect("a number");
    let mut following = laptop.command(&["events", "-f", "--format", "json", "--since", &last.to_string()]);
    let log = cluster.directory().join("followed");
    following.stdout(std::fs::File::create(&log).expect("a file"));
    let mut following = following.spawn().expect("swarmctl runs");
    // It waits for a task that no node has room for, until there is one.
    let wait = ["service", "update", "--constraint-add", "node.labels.zone==b", "--timeout", "60s", "web"];
    let waiting =
        laptop.command(&wait).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    eventually("the update is under way", || {
        let seen = std::fs::read_to_string(&log).unwrap_or_default();
        if seen.contains("constraints none -> node.labels.zone==b") { Ok(()) } else { Err(seen) }
    });
    cluster.kill(1);
    let started = Instant::now();
    laptop.ok(&["service", "ls"]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    laptop.ok(&["node", "update", "--label-add", "zone=b", "node-4"]);
    let waited = waiting.wait_with_output().expect("it ends");
    assert_eq!(waited.status.code(), Some(0), "{waited:?}");

    // The trail goes on behind what was seen, at another manager, without gap or repetition.
    let all = laptop.events(&["--since", &last.to_string()]);
    let place = |event: &Value| (event["Index"].as_u64(), event["Position"].as_u64());
    eventually("everything was followed", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let seen: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let seen: Vec<_> = seen.iter().map(place).collect();
        let expect: Vec<_> = all.iter().map(place).collect();
        if seen.starts_with(&expect) { Ok(()) } else { Err(format!("{seen:?}, not {expect:?}")) }
    });
    following.kill().expect("killed");
    following.wait().expect("waited for");
    let labelled = all.iter().find(|event| event["Difference"] == "label +zone").expect("the label");
    assert_eq!((&labelled["Actor"], &labelled["Role"]), (&Value::from("alice"), &Value::from("admin")));
    // The one that answered is asked first now.
    let shown = laptop.ok(&["context", "ls", "--format", "{{.Managers}}"]);
    assert!(!shown.starts_with(&cluster.address(1).to_string()), "{shown}");
    cluster.kill(2);
    cluster.kill(3);
    laptop.refused(&["service", "ls"], 6, "no manager could be reached");
    let unreached = laptop.ctl(&["service", "ls"]).stderr;
    assert_eq!(unreached.matches(":2377  ").count(), 3, "a line for each address: {unreached}");
    for number in 1..=3 {
        cluster.restart_daemon(number);
    }
    cluster.finish();
}
