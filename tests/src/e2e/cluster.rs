//! A cluster of hosts on this machine: made, commanded, looked at, taken away. What befalls it: `faults.rs`.

mod faults;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::Value;
use swarm_network::DevNetwork;
use swarm_proto::v1;
use swarm_proto::v1::services_client::ServicesClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::disk::SmallDisk;
use super::process::{binary, kill, require_root, signal};
use super::{Registry, eventually, leaks};

/// How the cluster is made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub nodes: u16,
    /// The first nodes are managers; 0 stands for 1.
    pub managers: u16,
    /// More flags for every `swarmd`.
    pub swarmd: Vec<String>,
    /// The last nodes only start their daemons, and join later.
    pub spares: u16,
    /// Only start the daemons: no init, no join.
    pub unformed: bool,
    /// Run a registry on node 1, spoken to without TLS.
    pub registry: bool,
    /// The first nodes have a disk that can be filled.
    pub small_disks: u16,
}

/// Nodes 1 to n; node 1 is the first manager. The machine itself, beyond the bridge, is the client.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    root: PathBuf,
    network: Option<DevNetwork>,
    nodes: Vec<Node>,
    options: Options,
    registry: Option<Registry>,
}

#[derive(Debug)]
struct Node {
    child: Option<Child>,
    disk: Option<SmallDisk>,
}

/// What a command printed, and its exit code.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// One line of `service ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub id: String,
    pub name: String,
    pub node: String,
    pub image: String,
    pub desired: String,
    pub state: String,
    pub error: String,
    pub address: String,
}

/// Subnets are chosen by looking for a free one, so networks are made one after the other.
static MAKING: Mutex<()> = Mutex::new(());
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Cluster {
    /// A cluster of `nodes` hosts, formed and ready.
    pub fn start(nodes: u16) -> Self {
        Self::with(Options { nodes, ..Options::default() })
    }

    /// # Panics
    /// Not root, or the hosts do not come up.
    pub fn with(mut options: Options) -> Self {
        require_root();
        let name = unique_name();
        let root = test_directory().join(&name);
        std::fs::create_dir_all(&root).expect("a directory for the hosts");
        let network = {
            let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            DevNetwork::create(&name, options.nodes).expect("networks for the hosts")
        };
        let nodes = (0..options.nodes).map(|_| Node { child: None, disk: None }).collect();
        let registry = options.registry.then(|| Registry::start(&network, 1, &root));
        if let Some(registry) = &registry {
            options.swarmd.extend(["--insecure-registry".to_owned(), registry.host()]);
        }
        let mut cluster = Self { name, root, network: Some(network), nodes, options, registry };
        for number in 1..=cluster.options.small_disks {
            let directory = cluster.data(number);
            std::fs::create_dir_all(&directory).expect("a directory");
            cluster.node(number).disk = Some(SmallDisk::mount(&directory).expect("a small disk"));
        }
        for number in 1..=cluster.options.nodes {
            cluster.restart(number);
        }
        if !cluster.options.unformed {
            cluster.form();
        }
        cluster
    }

    fn form(&self) {
        self.ctl_ok(&["cluster", "init", "--advertise-addr", &self.address(1).to_string()]);
        let token = |role: &str| self.ctl_ok(&["cluster", "join-token", "-q", role]);
        let (worker, manager) = (token("worker"), token("manager"));
        for number in 2..=self.options.nodes - self.options.spares {
            let token = if number <= self.options.managers { &manager } else { &worker };
            self.join(number, token.trim());
        }
        self.wait_voting(usize::from(self.options.managers.max(1)));
        let count = usize::from(self.options.nodes - self.options.spares);
        eventually("all nodes ready", || {
            let ready = self.node_states().into_iter().filter(|(_, state)| state == "Ready").count();
            if ready == count { Ok(()) } else { Err(format!("{ready} of {count} ready")) }
        });
    }

    pub fn wait_voting(&self, managers: usize) {
        eventually("all managers vote", || {
            let output = self.ctl(&["node", "ls", "--format", "{{.ManagerStatus}}"]);
            let voting = output.stdout.lines().filter(|line| matches!(*line, "Leader" | "Reachable")).count();
            if voting == managers {
                Ok(())
            } else {
                Err(format!("{voting} of {managers}: {output:?}{}", self.logs()))
            }
        });
    }

    /// Joins a node with a token, through node 1.
    pub fn join(&self, number: u16, token: &str) {
        let (own, manager) = (self.address(number).to_string(), self.address(1).to_string());
        let output =
            self.ctl_at(number, &["cluster", "join", "--token", token, "--advertise-addr", &own, &manager]);
        assert_eq!(output.code, 0, "node {number} joins: {output:?}");
    }

    /// # Panics
    /// The options had none.
    pub fn registry(&self) -> &Registry {
        self.registry.as_ref().expect("the options ask for a registry")
    }

    pub fn network(&self) -> &DevNetwork {
        self.network.as_ref().expect("there until the end")
    }

    pub fn address(&self, number: u16) -> Ipv4Addr {
        self.network().address(number)
    }

    pub fn endpoint(&self, number: u16, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(number), port)
    }

    /// A directory of the test's own, removed at its end.
    pub fn directory(&self) -> &Path {
        &self.root
    }

    pub fn data(&self, number: u16) -> PathBuf {
        self.root.join(format!("node-{number}"))
    }

    pub fn socket(&self, number: u16) -> PathBuf {
        self.root.join(format!("{number}.sock"))
    }

    pub fn cgroup_parent(&self, number: u16) -> String {
        format!("swarm-e2e-{}-{number}", self.name)
    }

    /// Runs `swarmctl` against node 1.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_at(1, arguments)
    }

    pub fn ctl_at(&self, number: u16, arguments: &[&str]) -> Output {
        run(self.ctl_command(number, arguments))
    }

    /// As [`Cluster::ctl`], not run yet.
    pub fn ctl_command(&self, number: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("swarmctl"));
        command.arg("-H").arg(format!("unix://{}", self.socket(number).display())).args(arguments);
        command
    }

    /// # Panics
    /// The command failed.
    pub fn ctl_ok(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert_eq!(
            output.code,
            0,
            "swarmctl {arguments:?}: {}{}{}",
            output.stdout,
            output.stderr,
            self.logs()
        );
        output.stdout
    }

    /// # Panics
    /// The command succeeded, or its exit code or error is another one.
    pub fn ctl_fails(&self, arguments: &[&str], code: i32, says: &str) {
        let output = self.ctl(arguments);
        assert_eq!(output.code, code, "swarmctl {arguments:?}: {output:?}");
        assert!(
            output.stderr.contains(says),
            "swarmctl {arguments:?} says {:?}, not {says:?}",
            output.stderr
        );
    }

    /// All tasks of a service, newest of each slot first.
    pub fn tasks(&self, service: &str) -> Vec<TaskRow> {
        rows(&self.ctl_ok(&["service", "ps", "--no-trunc", "--format", "json", service]))
            .iter()
            .map(task)
            .collect()
    }

    /// Tasks of a service that run and are wanted.
    pub fn running(&self, service: &str) -> Vec<TaskRow> {
        let mut tasks = self.tasks(service);
        tasks.retain(|task| task.state == "Running" && task.desired == "Running");
        tasks
    }

    /// Waits until exactly `count` tasks run, and gives them.
    pub fn wait_running(&self, service: &str, count: usize) -> Vec<TaskRow> {
        eventually(&format!("{count} tasks of {service} run"), || {
            let tasks = self.running(service);
            if tasks.len() == count {
                Ok(tasks)
            } else {
                Err(format!("{:?}\n{}", self.tasks(service), self.logs()))
            }
        })
    }

    /// Host name and state of every node.
    pub fn node_states(&self) -> Vec<(String, String)> {
        let rows = rows(&self.ctl_ok(&["node", "ls", "--format", "json"]));
        rows.iter().map(|row| (field(row, "Hostname"), field(row, "Status"))).collect()
    }

    pub fn wait_node(&self, number: u16, state: &str) {
        let wanted = (format!("node-{number}"), state.to_owned());
        eventually(&format!("{wanted:?}"), || {
            let states = self.node_states();
            if states.contains(&wanted) { Ok(()) } else { Err(format!("{states:?}")) }
        });
    }

    /// The host's process number of a task's container.
    pub fn pid(&self, task: &str) -> i32 {
        let text = self.ctl_ok(&["task", "inspect", task]);
        let objects: Value = serde_json::from_str(&text).expect("JSON");
        let pid = objects[0]["Status"]["ContainerStatus"]["PID"].as_i64().expect("a number");
        i32::try_from(pid).expect("a process number")
    }

    /// Updates a service so many times through a node, one after the other; `change` is told which time it is.
    pub fn edit(&self, number: u16, service: &str, times: u32, change: impl Fn(&mut v1::ServiceSpec, u32)) {
        let edits = async {
            let mut services = ServicesClient::new(self.channel(number).await);
            let request = v1::GetServiceRequest { service: service.to_owned() };
            let mut current = services.get(request).await.expect("the service is there").into_inner();
            for time in 0..times {
                let mut spec = current.spec.expect("a service has a spec");
                change(&mut spec, time);
                let version = current.meta.expect("a service has a version").version;
                let update = v1::UpdateServiceRequest { service_id: current.id, version, spec: Some(spec) };
                let updated = services.update(update).await.expect("an update").into_inner();
                current = updated.service.expect("the updated service");
            }
        };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(edits);
    }

    /// To a node's local socket.
    pub async fn channel(&self, number: u16) -> Channel {
        let socket = self.socket(number);
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://local").connect_with_connector(connector).await;
        channel.expect("the daemon listens")
    }

    /// Starts a node's `swarmd` (again).
    pub fn restart(&mut self, number: u16) {
        self.start_daemon(number);
        self.wait_listening(number);
    }

    /// [`Self::restart`] without waiting for it.
    pub fn start_daemon(&mut self, number: u16) {
        self.network().link_up(number).expect("a link");
        let data = self.data(number);
        std::fs::create_dir_all(&data).expect("a directory");
        let log = File::options().create(true).append(true).open(self.log(number)).expect("a log file");
        let mut command = Command::new(binary("swarmd"));
        command
            .arg("--data-dir")
            .arg(&data)
            .arg("--socket")
            .arg(self.socket(number))
            .args(["--listen", &format!("{}:2377", self.address(number))])
            .args(["--hostname", &format!("node-{number}")])
            .args(["--cgroup-parent", &self.cgroup_parent(number)])
            .args(&self.options.swarmd)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .process_group(0);
        let child = self.network().spawn(number, &mut command).expect("swarmd starts");
        self.node(number).child = Some(child);
    }

    pub fn wait_listening(&self, number: u16) {
        eventually(&format!("swarmd of node {number} listens"), || {
            let output = self.ctl_at(number, &["version", "--format", "{{.Version}}"]);
            if output.code == 0 && !output.stdout.contains("not reached") { Ok(()) } else { Err(self.logs()) }
        });
    }

    fn node(&mut self, number: u16) -> &mut Node {
        &mut self.nodes[usize::from(number) - 1]
    }

    /// Process number of a node's daemon.
    ///
    /// # Panics
    /// It does not run.
    pub fn daemon_pid(&self, number: u16) -> u32 {
        let child = self.nodes[usize::from(number) - 1].child.as_ref();
        child.expect("the daemon runs").id()
    }

    /// Numbers of all processes in a node's network namespace: the daemon and the shims.
    pub fn processes(&self, number: u16) -> Vec<i32> {
        let all = DevNetwork::processes(&self.name).expect("processes can be listed");
        let registry = self.registry.as_ref().map(Registry::pid);
        all.into_iter()
            .filter(|(node, pid)| *node == number && Some(*pid) != registry)
            .map(|(_, pid)| pid)
            .collect()
    }

    /// Where a node's `swarmd` logs.
    pub fn log(&self, number: u16) -> PathBuf {
        self.root.join(format!("{number}.log"))
    }

    /// Keeps the whole logs beyond the end of the cluster.
    pub fn copy_logs(&self, directory: &Path) {
        std::fs::create_dir_all(directory).expect("a directory for logs");
        for number in 1..=self.options.nodes {
            std::fs::copy(self.log(number), directory.join(format!("{number}.log")))
                .expect("a copy of a log");
        }
    }

    /// The ends of all logs, for messages of failing tests.
    pub fn logs(&self) -> String {
        (1..=self.options.nodes).fold(String::new(), |text, number| {
            let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            format!("{text}\n--- node {number}\n{tail}\n")
        })
    }

    /// Removes every service and proves that the hosts hold nothing any more.
    ///
    /// # Panics
    /// Something is left.
    pub fn finish(self) {
        let services = self.ctl_ok(&["service", "ls", "-q"]);
        let mut remove = vec!["service", "rm"];
        remove.extend(services.lines());
        if remove.len() > 2 {
            self.ctl_ok(&remove);
        }
        eventually("nothing is left on the hosts", || {
            let left: BTreeSet<String> =
                (1..=self.options.nodes).flat_map(|number| leaks::on_node(&self, number)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}\n{}", self.logs())) }
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                signal(child, Signal::KILL);
                let _ = child.wait();
            }
        }
        // Shims; each takes its container with it.
        for _ in 0..100 {
            let left = DevNetwork::processes(&self.name).unwrap_or_default();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|(_, pid)| kill(*pid));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for number in 1..=self.options.nodes {
            leaks::remove_cgroups(&self.cgroup_parent(number));
        }
        if let Some(network) = self.network.take()
            && let Err(error) = network.destroy()
        {
            eprintln!("the test's network is left: {error}");
        }
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// On a file system that overlays can have their upper layer on, which the build's is.
fn test_directory() -> PathBuf {
    binary("swarmd").parent().expect("a directory").join("e2e")
}

/// Runs a command to its end.
fn run(mut command: Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `t`, this process, and a number: unique on the machine, and short enough for device names.
pub fn unique_name() -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % 46_656;
    let digit = |value: u32| char::from_digit(value % 36, 36).expect("a base-36 digit");
    ['t', digit(process / 1296), digit(process / 36), digit(process), digit(number / 36), digit(number)]
        .iter()
        .collect()
}

fn rows(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn field(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

fn task(row: &Value) -> TaskRow {
    TaskRow {
        id: field(row, "FullID"),
        name: field(row, "FullName"),
        node: field(row, "Node"),
        image: field(row, "Image"),
        desired: field(row, "DesiredState"),
        state: field(row, "State"),
        error: field(row, "Error"),
        address: field(row, "Address"),
    }
}
