//! A small internet in namespaces: a router, a client on one side, the cluster's nodes on the other.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use swarm_network::{DevNetwork, HostPort, Mesh, NodeNetwork, NodeNetworkConfig, Protocol, Target};

/// More than any answer in this small internet takes; hit only where something is blocked.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a test waits for an answer that must not come.
pub const SILENCE: Duration = Duration::from_millis(300);
/// The port that every task serves, TCP and UDP.
pub const TASK_PORT: u16 = 80;

pub struct World {
    pub hosts: DevNetwork,
    pub clients: DevNetwork,
    pub nodes: BTreeMap<u16, NodeNetwork>,
}

/// Runs a test in a namespace of its own with that many nodes, each with its network opened.
pub fn with_nodes(count: u16, test: impl FnOnce(&mut World) + Send) {
    isolated(|| {
        let mut world = World::new(count);
        for i in 1..=count {
            world.open(i);
        }
        test(&mut world);
    });
}

/// Runs `work` in a thread with a fresh network namespace.
pub fn isolated(work: impl FnOnce() + Send) {
    assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            work();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A name that no other test, also of another process, uses.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{number:02x}{:x}", std::process::id())
}

impl World {
    pub fn new(count: u16) -> Self {
        let hosts = DevNetwork::create(&unique_name(), count).unwrap();
        let clients = DevNetwork::create(&unique_name(), 2).unwrap();
        Self { hosts, clients, nodes: BTreeMap::new() }
    }

    pub fn config(&self, i: u16) -> NodeNetworkConfig {
        NodeNetworkConfig { prepared: 2, ..NodeNetworkConfig::new(i, self.hosts.address(i)) }
    }

    /// Opens node `i`'s network, as its daemon does at its start.
    pub fn open(&mut self, i: u16) {
        let config = self.config(i);
        let node = self.hosts.within(i, || NodeNetwork::open(config)).unwrap();
        self.nodes.insert(i, node.unwrap());
    }

    pub fn node(&self, i: u16) -> &NodeNetwork {
        &self.nodes[&i]
    }

    /// Attaches a task to node `i` that answers on [`TASK_PORT`] and may be reached by other nodes.
    pub fn task(&self, i: u16, number: u32, name: &str) -> Task {
        let address = task_address(i, number);
        let netns = self.node(i).attach(name, address).unwrap();
        let targets =
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Target { protocol, target_port: TASK_PORT });
        self.node(i).set_targets(name, &targets).unwrap();
        let server = Server::start(&netns, name, TASK_PORT);
        Task { address, netns, server: Some(server) }
    }

    /// The mesh of all nodes with TCP and UDP port `port` leading to these tasks.
    pub fn mesh(&self, port: u16, tasks: &[&Task]) -> Mesh {
        let backends: Vec<_> = tasks.iter().map(|task| SocketAddrV4::new(task.address, TASK_PORT)).collect();
        let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| ((protocol, port), backends.clone()));
        let nodes = (1..=self.hosts.nodes()).map(|i| (i, self.hosts.address(i))).collect();
        Mesh { nodes, ports: ports.into() }
    }

    pub fn apply(&self, mesh: &Mesh) {
        for node in self.nodes.values() {
            node.apply_mesh(mesh).unwrap();
        }
    }

    pub fn publish(&self, port: u16, tasks: &[&Task]) {
        self.apply(&self.mesh(port, tasks));
    }

    /// Runs `work` at the client.
    pub fn at_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.clients.within(1, work).unwrap()
    }

    /// Runs `work` on node `i` itself.
    pub fn at_node<T: Send>(&self, i: u16, work: impl FnOnce() -> T + Send) -> T {
        self.hosts.within(i, work).unwrap()
    }

    pub fn endpoint(&self, i: u16, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.hosts.address(i), port)
    }
}

impl World {
    /// After a failure: runs the command in `SWARM_TEST_LOOK` (say, "nft list ruleset") on every node, for debugging.
    fn look(&self) {
        let Some(command) = std::env::var_os("SWARM_TEST_LOOK") else { return };
        for i in 1..=self.hosts.nodes() {
            eprintln!("--- node {i}");
            let mut shell = std::process::Command::new("sh");
            let _ = self.hosts.spawn(i, shell.arg("-c").arg(&command)).map(|mut child| child.wait());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.look();
        }
        for network in [&self.hosts, &self.clients] {
            let name = network.netns_name(1);
            let name = name.strip_prefix("swarm-").and_then(|rest| rest.strip_suffix("-1")).unwrap();
            DevNetwork::clean(name).unwrap();
        }
    }
}

/// Address of a node's task, numbered from 0.
pub fn task_address(node: u16, number: u32) -> Ipv4Addr {
    let pool = NodeNetworkConfig::DEFAULT_POOL.network().to_bits();
    (pool + u32::from(node) * 1024 + 11 + number).into()
}

pub fn host_port(protocol: Protocol, published: u16) -> HostPort {
    HostPort { protocol, published, target: TASK_PORT }
}

pub struct Task {
    pub address: Ipv4Addr,
    pub netns: OwnedFd,
    pub server: Option<Server>,
}

impl Task {
    /// Runs `work` inside the task's namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.netns, work)
    }
}

pub fn within<T: Send>(netns: impl AsFd + Send, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Answers every TCP connection and UDP datagram with its name and the peer it sees; then echoes lines.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub fn start(netns: impl AsFd + Send, name: &str, port: u16) -> Self {
        let (tcp, udp) = within(netns, || {
            let address = (Ipv4Addr::UNSPECIFIED, port);
            (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
        });
        let stop = Arc::new(AtomicBool::new(false));
        let tick = TimeVal::new(0, 20_000);
        setsockopt(&tcp, sockopt::ReceiveTimeout, &tick).unwrap();
        setsockopt(&udp, sockopt::ReceiveTimeout, &tick).unwrap();
        let threads = vec![
            std::thread::spawn({
                let (stop, name) = (Arc::clone(&stop), name.to_owned());
                move || serve_tcp(&tcp, &name, &stop)
            }),
            std::thread::spawn({
                let (stop, name) = (Arc::clone(&stop), name.to_owned());
                move || serve_udp(&udp, &name, &stop)
            }),
        ];
        Self { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, peer)) = listener.accept() else { continue };
        let name = name.to_owned();
        std::thread::spawn(move || -> io::Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            writeln!(stream, "{name} {peer}")?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 {
                stream.write_all(line.as_bytes())?;
                line.clear();
            }
            Ok(())
        });
    }
}

fn serve_udp(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
        let _ = socket.send_to(format!("{name} {peer}").as_bytes(), peer);
    }
}

/// Who answered, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub name: String,
    pub peer: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let bad = || io::Error::other(format!("not an answer: {text:?}"));
        let (name, peer) = text.trim().split_once(' ').ok_or_else(bad)?;
        Ok(Self { name: name.to_owned(), peer: peer.parse().map_err(|_| bad())? })
    }
}

/// An open TCP connection whose greeting has been read.
pub struct Connection {
    reader: BufReader<TcpStream>,
    pub answer: Answer,
}

impl Connection {
    pub fn open(to: SocketAddrV4, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to.into(), patience)?;
        Self::greet(stream)
    }

    pub fn greet(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok(Self { answer: Answer::parse(&line)?, reader })
    }

    /// Sends a line and expects it back.
    pub fn echo(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.reader.get_mut(), "{text}")?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line.trim() == text { Ok(()) } else { Err(io::Error::other(format!("echoed {line:?}"))) }
    }

    /// Ends the connection and waits for the other side to end it too.
    pub fn finish(self) -> io::Result<()> {
        let mut reader = self.reader;
        reader.get_ref().shutdown(std::net::Shutdown::Write)?;
        reader.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

pub fn tcp(to: SocketAddrV4) -> io::Result<Answer> {
    let connection = Connection::open(to, PATIENCE)?;
    let answer = connection.answer.clone();
    connection.finish()?;
    Ok(answer)
}

/// Sends a datagram from a socket and reads the answer.
pub fn ask(socket: &UdpSocket, to: SocketAddrV4, patience: Duration) -> io::Result<Answer> {
    ask_with(socket, to, patience, b"hello")
}

pub fn ask_with(
    socket: &UdpSocket,
    to: SocketAddrV4,
    patience: Duration,
    question: &[u8],
) -> io::Result<Answer> {
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(question, to)?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, to.into(), "the answer comes from the address that was asked");
    Answer::parse(&String::from_utf8_lossy(&buffer[..length]))
}

pub fn udp(to: SocketAddrV4) -> io::Result<Answer> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Only a connected socket learns of refusals.
    socket.connect(to)?;
    ask(&socket, to, PATIENCE)
}

/// Waits for a state of the world.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        std::thread::yield_now();
    }
}

/// Names of the devices in the calling thread's namespace.
pub fn devices() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.collect()
}

/// A TCP connection from a chosen local port, which may be in use for another destination.
pub fn bound_stream(from: SocketAddrV4, to: SocketAddrV4) -> io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    use std::os::fd::AsRawFd;
    bind(socket.as_raw_fd(), &SockaddrIn::from(from))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}
