//! Where a dev cluster lives on disk, and the clean-up of what a killed one left.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal};
use swarm_network::DevNetwork;
use swarm_runtime::{Runtime, RuntimeConfig};

const DATA: &str = "/var/lib/swarm-dev";
const SOCKETS: &str = "/run/swarm-dev";
/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(5);

/// The directories of one dev cluster; one process holds them at a time.
pub struct Place {
    name: String,
    _lock: File,
}

impl Place {
    /// Takes the place of the cluster `name`.
    ///
    /// # Errors
    /// A name that is none, or another process that runs a cluster of that name.
    pub fn take(name: &str) -> anyhow::Result<Self> {
        let valid = !name.is_empty()
            && name.len() <= 8
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !valid {
            bail!("--name {name:?} is not usable: 1 to 8 lower-case letters and digits");
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(SOCKETS)?;
        let path = Path::new(SOCKETS).join(format!("{name}.lock"));
        let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!("a dev cluster called {name:?} runs already; end it, or give this one another --name")
        })?;
        Ok(Self { name: name.to_owned(), _lock: lock })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn socket(&self, node: u16) -> PathBuf {
        self.sockets().join(format!("node-{node}.sock"))
    }

    pub fn data(&self, node: u16) -> PathBuf {
        self.root().join(format!("node-{node}"))
    }

    pub fn cgroup_parent(&self, node: u16) -> String {
        format!("swarm-dev-{}-{node}", self.name)
    }

    fn root(&self) -> PathBuf {
        Path::new(DATA).join(&self.name)
    }

    fn sockets(&self) -> PathBuf {
        Path::new(SOCKETS).join(&self.name)
    }

    /// Ends the processes of an earlier cluster of this name, and removes its containers, networks and directories.
    pub fn clean_up(&self) -> anyhow::Result<()> {
        self.end_processes()?;
        let nodes = match std::fs::read_dir(self.root()) {
            Ok(nodes) => nodes.collect::<Result<Vec<_>, _>>()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for node in nodes {
            let number = node
                .file_name()
                .to_string_lossy()
                .strip_prefix("node-")
                .and_then(|number| number.parse().ok());
            if let Some(number) = number {
                self.remove_containers(number)?;
            }
        }
        DevNetwork::clean(&self.name)?;
        for directory in [self.root(), self.sockets()] {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", directory.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.sockets())?;
        Ok(())
    }

    /// Whatever still runs in the namespaces of the nodes: daemons and shims; containers die with their shims.
    fn end_processes(&self) -> anyhow::Result<()> {
        let end = Instant::now() + KILLED;
        loop {
            let processes = DevNetwork::processes(&self.name)?;
            if processes.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("processes of an earlier cluster do not end: {processes:?}");
            }
            for (_, pid) in processes {
                if let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) {
                    // It may have ended by itself.
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn remove_containers(&self, node: u16) -> anyhow::Result<()> {
        let root = self.data(node).join("agent/containers");
        if !root.exists() {
            return Ok(());
        }
        let runtime = Runtime::open(RuntimeConfig::new(root, self.cgroup_parent(node)))?;
        for found in runtime.adopt()? {
            runtime.remove(&found.id)?;
        }
        runtime.remove_cgroup_parent();
        Ok(())
    }

    /// Gives the place free; nothing of it is left.
    pub fn release(self) -> anyhow::Result<()> {
        for directory in [self.sockets(), self.root()] {
            let _ = std::fs::remove_dir_all(directory);
        }
        std::fs::remove_file(Path::new(SOCKETS).join(format!("{}.lock", self.name)))
            .context("cannot remove the lock")?;
        // Only if no other cluster uses them.
        let _ = std::fs::remove_dir(SOCKETS);
        let _ = std::fs::remove_dir(DATA);
        Ok(())
    }
}
