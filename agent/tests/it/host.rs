//! A host of its own for a test: a network namespace with one device, a directory, a cgroup parent, an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sched::{CloneFlags, unshare};
use swarm_agent::{Agent, LocalConfig, LocalExecutor, Managers, NetworkOptions};
use swarm_image::{ContentStore, Digest, RegistryOptions, media_type};
use swarm_model::{ImageRef, PullSource};
use swarm_runtime::LogLimits;
use tempfile::TempDir;

use crate::manager::{Manager, NODE, config, managers};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Host {
    home: TempDir,
    cgroup_parent: String,
}

impl Host {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup_parent = format!("swarm-agent-it-{}-{number}", std::process::id());
        Self { home: tempfile::tempdir().unwrap(), cgroup_parent }
    }

    pub fn directory(&self) -> PathBuf {
        self.home.path().join("agent")
    }

    pub fn volumes(&self) -> PathBuf {
        self.home.path().join("volumes")
    }

    /// The store that the manager serves images from.
    pub fn content(&self) -> ContentStore {
        ContentStore::open(self.home.path().join("manager")).unwrap()
    }

    pub fn start(&self, manager: &Manager) -> Agent {
        self.start_with(manager, managers())
    }

    pub fn start_with(&self, manager: &Manager, managers: Managers) -> Agent {
        let config = config(&[manager.address]);
        let local = LocalConfig {
            directory: self.directory(),
            volumes: self.volumes(),
            node: NODE,
            engine: swarm_model::EngineDescription {
                data_address: std::net::Ipv4Addr::new(192, 0, 2, 1),
                ..config.engine.clone()
            },
            cgroup_parent: self.cgroup_parent.clone(),
            shim_executable: shim(),
            log_limits: LogLimits::default(),
            network: NetworkOptions::default(),
            registry: RegistryOptions::default(),
        };
        Agent::start(config, managers.clone(), |answers| LocalExecutor::open(local, managers, answers))
            .unwrap()
    }

    /// Cgroups of containers that are there.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let in_parent = |parent: PathBuf| fs::read_dir(parent).into_iter().flatten();
        let found = self.parents().into_iter().flat_map(in_parent).map(|entry| entry.unwrap().path());
        found.filter(|path| path.is_dir()).collect()
    }

    fn parents(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
        all.map(|hierarchy| hierarchy.join(&self.cgroup_parent)).filter(|path| path.is_dir()).collect()
    }

    /// Network devices of tasks.
    pub fn devices(&self) -> Vec<String> {
        let text = Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output().unwrap();
        String::from_utf8(text.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for path in self.cgroups().into_iter().chain(self.parents()) {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Runs a test on a host of its own.
pub fn on_host<F: Future<Output = ()>>(test: impl FnOnce(Arc<Host>) -> F + Send) {
    assert!(nix::unistd::geteuid().is_root(), "these tests start real containers: run them as root");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Threads of the runtime are made by this one and share its namespace.
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            ip("link add uplink type bridge");
            ip("addr add 192.0.2.1/24 dev uplink");
            ip("link set uplink up");
            let runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(test(Arc::new(Host::new())));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

/// The shim's program, built once by the tests' own cargo.
fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let build = ["build", "--quiet", "-p", "swarm-runtime", "--bin", "swarm-shim"];
        let mut cargo = Command::new(env!("CARGO"));
        assert!(cargo.args(build).status().unwrap().success(), "the shim cannot be built");
        let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        deps.parent().unwrap().join("swarm-shim")
    })
    .clone()
}

/// An image of the host's static busybox, in `content`.
pub fn busybox_image(content: &ContentStore) -> ImageRef {
    let layer = layer();
    let blob = content.write_bytes(media_type::OCI_LAYER, &layer).unwrap();
    let config = serde_json::json!({
        "os": "linux",
        "architecture": swarm_image::Platform::current().architecture,
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "echo no command"], "StopSignal": "SIGINT"},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    let config = content.write_bytes(media_type::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [blob],
    });
    let manifest = content.write_bytes(media_type::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    ImageRef {
        name: "docker.io/library/busybox:latest".to_owned(),
        digest: Some(manifest.digest.to_string()),
        source: PullSource::Cluster,
    }
}

fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        archive.append_data(&mut header, Path::new(path), content).unwrap();
    };
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        add(directory, tar::EntryType::Directory, 0o755, &[], "");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok());
    let busybox = busybox.expect("a static busybox is needed: apt install busybox-static");
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, "");
    for applet in ["sh", "sleep", "cat", "nc", "httpd", "head", "tail", "hostname", "env", "dd"] {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], "busybox");
    }
    archive.into_inner().unwrap()
}
