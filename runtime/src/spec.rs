//! What a container is asked to be: [`ContainerSpec`] and its parts, and the checks that need
//! nothing but the words themselves. What depends on the image (users, directories, the command)
//! is checked when the container starts.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::capabilities;
use crate::launch::oci::limit_type;
use crate::launch::rootfs::LAYERS_LIMIT;

/// Processes and threads of a container that names no limit of its own. Enough for every server we
/// know, and too few for a fork bomb to fill the default `pid_max` of 32,768.
pub const DEFAULT_PIDS_LIMIT: u64 = 4096;

/// One container, ready to start: every choice is made, nothing is looked up elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name of the container's directory and cgroup: 1 to 128 of `[A-Za-z0-9_.-]`, not starting
    /// with a dot.
    pub id: String,
    /// Unpacked image layers, bottom to top, absolute. They are only read.
    pub layers: Vec<PathBuf>,
    /// The command and its arguments. A command without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`, later entries winning. `PATH` and `HOME` are added where absent.
    pub env: Vec<String>,
    /// Working directory inside the container, absolute; made if missing. Empty means `/`.
    pub cwd: String,
    /// `uid[:gid]` or `name[:group]`, resolved in the image. Empty means root.
    pub user: String,
    /// Further groups, by number or by name in the image, on top of those that the image's
    /// `/etc/group` gives the user.
    pub additional_groups: Vec<String>,
    /// Host name of the container's own UTS namespace.
    pub hostname: String,
    /// Where the container's network comes from. Never written to disk.
    #[serde(skip)]
    pub network: Network,
    /// Mounts on top of the image, in this order.
    pub mounts: Vec<Mount>,
    /// The root filesystem refuses writes.
    pub read_only_root: bool,
    /// Limits and weights.
    pub resources: Resources,
    /// Capabilities on top of the default set, with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Kernel settings by their dotted names; only those that a namespace isolates.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the first process, inherited by all.
    pub ulimits: Vec<Ulimit>,
    /// Run a small reaper as process 1, which forwards signals and collects orphans.
    pub init: bool,
    /// Contents of the files of `/etc` that depend on the network.
    pub etc_files: EtcFiles,
    /// Kept in the container's directory and in its OCI annotations; no meaning here.
    pub labels: BTreeMap<String, String>,
}

/// Where a container's network comes from.
#[derive(Debug, Default)]
pub enum Network {
    /// The caller's own network namespace.
    #[default]
    Host,
    /// This network namespace.
    Netns(OwnedFd),
}

/// A mount on top of the image. Targets are absolute paths inside the container and are resolved
/// there: a symbolic link of the image never leads outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host; must exist.
        source: PathBuf,
        /// Made if missing.
        target: String,
        /// Refuse writes, also in mounts below the source.
        readonly: bool,
    },
    /// Memory that disappears with the container.
    Tmpfs {
        /// Made if missing.
        target: String,
        /// Most it may hold; 0 means half of the host's memory, as in the kernel.
        size_bytes: u64,
    },
}

impl Mount {
    /// The path inside the container.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// Limits and weights of a container; `None` means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory with page cache and kernel memory. Swap adds nothing to it.
    pub memory_bytes: Option<u64>,
    /// CPU time per second of wall time, in nanoseconds: 1.5 CPUs are 1,500,000,000. Enforced
    /// per period of 100 ms.
    pub cpu_nanos: Option<u64>,
    /// Share of a contended CPU in cgroup v1's unit: 1,024 is one CPU's worth.
    pub cpu_shares: Option<u64>,
    /// Processes and threads; [`DEFAULT_PIDS_LIMIT`] where absent.
    pub pids: Option<u64>,
}

/// One resource limit, named as in `ulimit`: `nofile`, `nproc`, `core`, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// Contents of the files of `/etc` that depend on the network; `None` leaves the image's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcFiles {
    pub hosts: Option<String>,
    pub resolv_conf: Option<String>,
    pub hostname: Option<String>,
}

/// A specification that can never become a container, whatever the image holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidSpec {
    /// The field, as it is named in [`ContainerSpec`].
    pub field: &'static str,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

/// Longest host name that the kernel takes.
const HOSTNAME_LIMIT: usize = 64;
/// Most entries of each list. The kernel's limit on arguments is 128 KiB a string and 2 MiB in
/// all; it says so itself.
const ENTRIES_LIMIT: usize = 10_000;
/// Least memory that a container can start in: the launching process is accounted to it.
const MEMORY_LEAST_BYTES: u64 = 4 << 20;
/// Least number of processes: making a container takes three.
const PIDS_LEAST: u64 = 4;
/// Kernel settings beside `net.` and `fs.mqueue.` that are isolated by the IPC namespace.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// Directories that the runtime itself fills.
const RESERVED_TARGETS: [&str; 6] = ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue"];

impl ContainerSpec {
    /// A container with this command, of an empty image, with nothing else asked for. Its host
    /// name is its id.
    pub fn new<S: Into<String>>(id: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            id: id.to_owned(),
            layers: Vec::new(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            additional_groups: Vec::new(),
            hostname: id.chars().take(HOSTNAME_LIMIT).collect(),
            network: Network::Host,
            mounts: Vec::new(),
            read_only_root: false,
            resources: Resources::default(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            sysctls: BTreeMap::new(),
            ulimits: Vec::new(),
            init: false,
            etc_files: EtcFiles::default(),
            labels: BTreeMap::new(),
        }
    }

    /// Whether this may name a container: it becomes a directory and a cgroup.
    #[must_use]
    pub fn is_id(id: &str) -> bool {
        const ID_LIMIT: usize = 128;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        (1..=ID_LIMIT).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(allowed)
    }

    /// Checks everything that does not depend on the image.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        self.validate_names()?;
        self.validate_lists()?;
        self.validate_mounts()?;
        self.validate_resources()?;
        self.validate_sysctls()?;
        for limit in &self.ulimits {
            if limit_type(&limit.name).is_none() {
                return invalid("ulimits", format!("{:?} is not a resource limit", limit.name));
            }
            if limit.soft > limit.hard {
                let name = &limit.name;
                return invalid("ulimits", format!("the soft limit of {name} is above the hard one"));
            }
        }
        capabilities::resolve(&self.cap_add, &self.cap_drop).map(drop)
    }

    fn validate_names(&self) -> Result<(), InvalidSpec> {
        if !Self::is_id(&self.id) {
            let reason = format!("{:?} must be 1 to 128 of A-Z a-z 0-9 _ . -", self.id);
            return invalid("id", reason);
        }
        if self.args.first().is_none_or(String::is_empty) {
            return invalid("args", "no command given, and the image names none".to_owned());
        }
        if !self.cwd.is_empty() && !self.cwd.starts_with('/') {
            return invalid("cwd", format!("{:?} is not an absolute path", self.cwd));
        }
        if self.hostname.is_empty() || self.hostname.len() > HOSTNAME_LIMIT {
            return invalid("hostname", format!("must have 1 to {HOSTNAME_LIMIT} characters"));
        }
        Ok(())
    }

    fn validate_lists(&self) -> Result<(), InvalidSpec> {
        for (field, length) in [
            ("args", self.args.len()),
            ("env", self.env.len()),
            ("mounts", self.mounts.len()),
            ("additional_groups", self.additional_groups.len()),
        ] {
            if length > ENTRIES_LIMIT {
                return invalid(field, format!("has more than {ENTRIES_LIMIT} entries"));
            }
        }
        for (field, list) in [("args", &self.args), ("env", &self.env)] {
            if list.iter().any(|entry| entry.contains('\0')) {
                return invalid(field, "an entry contains a zero byte".to_owned());
            }
        }
        if let Some(entry) = self.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
            return invalid("env", format!("{entry:?} is not NAME=value"));
        }
        if self.layers.len() > LAYERS_LIMIT {
            return invalid("layers", format!("more than {LAYERS_LIMIT}"));
        }
        match self.layers.iter().find(|layer| !layer.is_absolute()) {
            Some(layer) => invalid("layers", format!("{} is not absolute", layer.display())),
            None => Ok(()),
        }
    }

    fn validate_mounts(&self) -> Result<(), InvalidSpec> {
        for mount in &self.mounts {
            let target = mount.target();
            let parts = || Path::new(target).components();
            let plain = parts().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            if !target.starts_with('/') || !plain {
                return invalid("mounts", format!("target {target:?} is not a plain absolute path"));
            }
            let normal: PathBuf = parts().collect();
            let in_kernel = normal.starts_with("/proc") || normal.starts_with("/sys");
            if in_kernel || RESERVED_TARGETS.iter().any(|reserved| normal == Path::new(reserved)) {
                return invalid("mounts", format!("{target:?} is the runtime's own"));
            }
            if let Mount::Bind { source, .. } = mount
                && !source.is_absolute()
            {
                return invalid("mounts", format!("source {} is not absolute", source.display()));
            }
        }
        Ok(())
    }

    fn validate_resources(&self) -> Result<(), InvalidSpec> {
        let Resources { memory_bytes, cpu_nanos, cpu_shares, pids } = self.resources;
        if memory_bytes.is_some_and(|bytes| bytes < MEMORY_LEAST_BYTES) {
            let reason = format!("a memory limit is at least {MEMORY_LEAST_BYTES} bytes");
            return invalid("resources", reason);
        }
        if pids.is_some_and(|pids| pids < PIDS_LEAST) {
            return invalid("resources", format!("a limit of processes is at least {PIDS_LEAST}"));
        }
        let zero = [("cpu_nanos", cpu_nanos), ("cpu_shares", cpu_shares)];
        match zero.into_iter().find(|(_, value)| *value == Some(0)) {
            Some((name, _)) => invalid("resources", format!("{name} is 0; leave it out for no limit")),
            None => Ok(()),
        }
    }

    fn validate_sysctls(&self) -> Result<(), InvalidSpec> {
        for name in self.sysctls.keys() {
            let dotted = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            let network = name.starts_with("net.");
            if network && matches!(self.network, Network::Host) {
                let reason = format!("{name} would change the host's network");
                return invalid("sysctls", reason);
            }
            let isolated = network || name.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&name.as_str());
            if !dotted || name.contains("..") || !isolated {
                return invalid("sysctls", format!("{name:?} is not isolated by a namespace"));
            }
        }
        Ok(())
    }
}

fn invalid(field: &'static str, reason: String) -> Result<(), InvalidSpec> {
    Err(InvalidSpec { field, reason })
}
