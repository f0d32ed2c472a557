//! A host for containers: a network namespace, a cgroup and a directory of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use swarm_network::{NodeNetwork, NodeNetworkConfig};
use swarm_runtime::{Container, ContainerSpec, Network, Outcome, Resources, Runtime, RuntimeConfig};
use tempfile::TempDir;

use super::leaks;

const NODE: u16 = 1;
/// Ethernet's; the namespace has no underlay that could tell.
const MTU: u16 = 1500;
/// The first addresses of a node's block are not for tasks.
const FIRST_TASK_OFFSET: u32 = 11;
/// Most that the end of `true` may take.
const EXIT_WAIT: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Limits of each container: enough for busybox, and none of them at its default.
pub const MEMORY_BYTES: u64 = 64 << 20;
pub const CPU_NANOS: u64 = 500_000_000;
pub const PIDS: u64 = 100;

pub struct Host {
    home: TempDir,
    network: NodeNetwork,
    runtime: Runtime,
    cgroup_parent: String,
}

/// One container, measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub started: Duration,
    pub ended: Duration,
}

impl Host {
    /// Moves the calling thread into a network namespace of its own; to be called before there are other threads.
    pub fn open() -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "containers need root: run swarm-bench as root");
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
        let home = tempfile::Builder::new().prefix("swarm-bench-").tempdir()?;
        make_layer(&layer(home.path()))?;
        let config =
            NodeNetworkConfig { mtu: Some(MTU), ..NodeNetworkConfig::new(NODE, Ipv4Addr::LOCALHOST) };
        let network = NodeNetwork::open(config)?;
        let cgroup_parent = format!("swarm-bench-{}", std::process::id());
        let runtime = Runtime::open(RuntimeConfig::new(containers(home.path()), cgroup_parent.clone()))?;
        Ok(Self { home, network, runtime, cgroup_parent })
    }

    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    pub fn layer(&self) -> PathBuf {
        layer(self.home.path())
    }

    /// Starts a container, waits until it has ended and removes it.
    pub fn run_to_exit(&self, number: u32) -> anyhow::Result<Measured> {
        let begin = Instant::now();
        let container = self.start(number, &["true"])?;
        let started = begin.elapsed();
        wait(&container)?;
        let ended = begin.elapsed();
        self.remove(number)?;
        Ok(Measured { started, ended })
    }

    /// Starts a container that stays. Gives the process number of its shim.
    pub fn start_sleeper(&self, number: u32) -> anyhow::Result<i32> {
        let container = self.start(number, &["sleep", "1000000"])?;
        parent(container.init_pid())
    }

    fn start(&self, number: u32, command: &[&str]) -> anyhow::Result<Container> {
        let name = name(number);
        let netns = self.network.attach(&name, address(number))?;
        let mut spec = ContainerSpec::new(&name, command.iter().copied());
        spec.layers = vec![self.layer()];
        spec.network = Network::Netns(netns);
        spec.resources = Resources {
            memory_bytes: Some(MEMORY_BYTES),
            cpu_nanos: Some(CPU_NANOS),
            cpu_shares: None,
            pids: Some(PIDS),
        };
        Ok(self.runtime.start(spec)?)
    }

    fn remove(&self, number: u32) -> anyhow::Result<()> {
        self.runtime.remove(&name(number))?;
        Ok(self.network.detach(&name(number))?)
    }

    /// Removes the first containers, whether they run or not.
    pub fn remove_all(&self, count: u32) -> anyhow::Result<()> {
        (0..count).try_for_each(|number| self.remove(number))
    }

    /// Takes the host down. Gives what the containers have left.
    pub fn close(self) -> anyhow::Result<Vec<String>> {
        self.network.teardown()?;
        let left = leaks::settled(self.home.path(), &containers(self.home.path()), &self.cgroup_parent)?;
        leaks::remove_parents(&self.cgroup_parent);
        Ok(left)
    }
}

fn name(number: u32) -> String {
    format!("bench-{number}")
}

fn containers(home: &Path) -> PathBuf {
    home.join("containers")
}

fn layer(home: &Path) -> PathBuf {
    home.join("layer")
}

/// Addresses are used again once all are taken: a container of the series is gone before the next one starts.
fn address(number: u32) -> Ipv4Addr {
    let block = NodeNetworkConfig::DEFAULT_POOL.network().to_bits() + (u32::from(NODE) << 10);
    (block + FIRST_TASK_OFFSET + number % super::MOST_AT_ONCE).into()
}

fn wait(container: &Container) -> anyhow::Result<()> {
    let shim = container.shim_pidfd();
    let ended = poll(&mut [PollFd::new(&shim.as_fd(), PollFlags::IN)], Some(&EXIT_WAIT))?;
    ensure!(ended == 1, "container {} does not end", container.id());
    match container.exit_status()? {
        Some(Outcome::Exited(exit)) if exit.code == 0 => Ok(()),
        other => bail!("container {} ended as {other:?}", container.id()),
    }
}

/// The layer that an image of Debian's busybox has.
fn make_layer(layer: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(layer.join("bin"))?;
    fs::copy("/bin/busybox", layer.join("bin/busybox"))
        .context("/bin/busybox is needed: apt-get install -y busybox-static")?;
    for command in ["true", "sleep"] {
        symlink("busybox", layer.join("bin").join(command))?;
    }
    // The others' read-only root needs its mount points.
    for directory in ["proc", "sys", "dev"] {
        fs::create_dir(layer.join(directory))?;
    }
    Ok(())
}

/// The parent of a process.
fn parent(pid: i32) -> anyhow::Result<i32> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(path)?;
    let parent =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).context("a process has a parent")?;
    Ok(parent.trim().parse()?)
}
