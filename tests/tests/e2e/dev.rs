//! `swarmd dev`: a throw-away cluster that leaves nothing, however it ends.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use swarm_network::DevNetwork;
use swarm_tests::e2e::{binary, cgroups_of, demo_image, eventually, get, require_root, signal, unique_name};
use tempfile::TempDir;

struct Dev {
    name: String,
    /// Stands for the operator's home.
    home: TempDir,
    child: Child,
}

impl Dev {
    fn start(name: String, home: TempDir) -> Self {
        require_root();
        let mut child = Command::new(binary("swarmd"))
            .args(["dev", "--nodes", "2", "--name", &name])
            .env("XDG_CONFIG_HOME", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("swarmd starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert!(line.contains("ready") && line.contains(&name), "{line:?}");
        Self { name, home, child }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary("swarmctl"));
        command.args(["--context", &self.name]).args(arguments).env("XDG_CONFIG_HOME", self.home.path());
        let output = command.output().expect("swarmctl starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Two replicas behind a port of this machine's loopback.
    fn serve(&self) {
        assert_eq!(self.ctl(&["node", "ls", "-q"]).lines().count(), 2);
        let image = demo_image("demo:1", "1").write(self.home.path());
        self.ctl(&["image", "load", "-i", &image.display().to_string()]);
        let port = free_port();
        let publish = format!("{port}:80");
        self.ctl(&["service", "create", "--name", "web", "--replicas", "2", "-p", &publish, "demo:1"]);
        assert!(get(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).contains("version=1"));
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        let processes = DevNetwork::processes(&self.name).expect("processes can be listed");
        left.extend(processes.iter().map(|process| format!("process {process:?}")));
        for node in 1..=2 {
            let parent = format!("swarm-dev-{}-{node}", self.name);
            left.extend(cgroups_of(&parent).iter().map(|path| path.display().to_string()));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let directory = format!("swarm-dev/{}", self.name);
        left.extend(mounts.lines().filter(|line| line.contains(&directory)).map(str::to_owned));
        let context = self.home.path().join(format!("swarmctl/contexts/{}.json", self.name));
        let directories =
            ["/var/lib/swarm-dev", "/run/swarm-dev"].map(|root| Path::new(root).join(&self.name));
        let paths = directories.into_iter().chain([context]);
        left.extend(paths.filter(|path| path.exists()).map(|path| path.display().to_string()));
        let links = std::fs::read_dir("/sys/class/net").expect("the devices").flatten();
        let links = links.map(|link| link.file_name().to_string_lossy().into_owned());
        left.extend(links.filter(|link| link.contains(&self.name)));
        left
    }

    fn assert_nothing_left(&self) {
        eventually("nothing is left", || {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        signal(&self.child, Signal::TERM);
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_dev_cluster_leaves_nothing_on_any_signal() {
    for kind in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut dev = Dev::start(unique_name(), home());
        dev.serve();
        signal(&dev.child, kind);
        let status = dev.child.wait().expect("it ends");
        assert!(status.success(), "{kind:?}: {status:?}");
        dev.assert_nothing_left();
    }
}

#[test]
fn the_next_dev_cluster_cleans_up_after_one_that_was_killed() {
    let mut killed = Dev::start(unique_name(), home());
    killed.serve();
    let (name, daemon) = (killed.name.clone(), killed.child.id());
    killed.child.kill().expect("killed");
    killed.child.wait().expect("waited for");
    assert!(!killed.left().is_empty(), "its containers go on: {daemon}");
    let next = Dev::start(name, home());
    assert_eq!(next.ctl(&["service", "ls", "-q"]), "", "it is a new cluster");
    next.serve();
    signal(&next.child, Signal::TERM);
    next.assert_nothing_left();
}
