//! A container in the words of the OCI runtime specification.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use rustix::process::{Resource, getrlimit};

use super::Failure;
use super::files::EtcFile;
use super::isolation::{READ_ONLY, masked_paths};
use super::user::User;
use crate::capabilities;
use crate::record::Launch;
use crate::spec::{self, ContainerSpec};

/// Size of `/dev/shm`. Docker's value.
const SHM_SIZE: &str = "size=65536k";
/// Open files of a process, soft and hard, where the specification says nothing and the daemon
/// itself may have so many. Docker's value.
const OPEN_FILES: u64 = 1_048_576;

/// Everything that decides a container.
#[derive(Debug)]
pub struct Container<'a> {
    pub launch: &'a Launch,
    pub root: &'a Path,
    pub user: &'a User,
    pub workdir: &'a Path,
    pub etc: &'a [EtcFile],
    pub cgroup_view: &'a Path,
    pub netns: Option<&'a OwnedFd>,
}

impl Container<'_> {
    pub fn specification(&self) -> Result<Spec, Failure> {
        self.build().map_err(|error| Failure::setup("write the OCI specification", &error))
    }

    fn spec(&self) -> &ContainerSpec {
        &self.launch.spec
    }

    fn build(&self) -> Result<Spec, OciSpecError> {
        let labels: HashMap<String, String> = self.spec().labels.clone().into_iter().collect();
        SpecBuilder::default()
            .version("1.2.0")
            .root(RootBuilder::default().path(self.root).readonly(self.spec().read_only_root).build()?)
            .hostname(self.spec().hostname.clone())
            .process(self.process()?)
            .mounts(self.mounts()?)
            .linux(self.linux()?)
            .annotations(labels)
            .build()
    }

    fn process(&self) -> Result<Process, OciSpecError> {
        let spec = self.spec();
        let held = self.capabilities();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(held.clone())
            .effective(held.clone())
            .permitted(held)
            .inheritable(Capabilities::new())
            .ambient(Capabilities::new())
            .build()?;
        ProcessBuilder::default()
            .terminal(false)
            .user(
                UserBuilder::default()
                    .uid(self.user.uid)
                    .gid(self.user.gid)
                    .umask(0o022_u32)
                    .additional_gids(self.user.groups.clone())
                    .build()?,
            )
            .args(spec.args.clone())
            .env(self.user.environment(&spec.env))
            .cwd(self.workdir)
            .capabilities(capabilities)
            .rlimits(self.limits()?)
            .no_new_privileges(true)
            // The shim protects itself, and its child inherits that.
            .oom_score_adj(0)
            .build()
    }

    fn capabilities(&self) -> Capabilities {
        let spec = self.spec();
        let names = capabilities::resolve(&spec.cap_add, &spec.cap_drop).unwrap_or_default();
        let known = names.iter().filter_map(|name| name.strip_prefix("CAP_")?.parse().ok());
        known.collect()
    }

    fn limits(&self) -> Result<Vec<PosixRlimit>, OciSpecError> {
        let mut limits = Vec::new();
        let given = &self.spec().ulimits;
        if !given.iter().any(|limit| limit.name == "nofile") {
            let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
            let files = OPEN_FILES.min(own);
            limits.push((PosixRlimitType::RlimitNofile, files, files));
        }
        for limit in given {
            if let Some(kind) = limit_type(&limit.name) {
                limits.push((kind, limit.soft, limit.hard));
            }
        }
        let build = |(kind, soft, hard): (PosixRlimitType, u64, u64)| {
            PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build()
        };
        limits.into_iter().map(build).collect()
    }

    fn linux(&self) -> Result<Linux, OciSpecError> {
        let mut namespaces = Vec::new();
        for kind in [
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Uts,
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Cgroup,
        ] {
            namespaces.push(LinuxNamespaceBuilder::default().typ(kind).build()?);
        }
        if let Some(netns) = self.netns {
            let path = PathBuf::from(format!("/proc/self/fd/{}", netns.as_raw_fd()));
            namespaces
                .push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path).build()?);
        }
        let mut linux = LinuxBuilder::default()
            .namespaces(namespaces)
            .sysctl(self.sysctls())
            .masked_paths(masked_paths())
            .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
            .build()?;
        // The runtime limits resources itself; libcontainer would look for controllers.
        linux.set_resources(None);
        Ok(linux)
    }

    /// Those given, and as in Docker: in a network namespace of its own nothing speaks against
    /// low ports and `ping` for everybody.
    fn sysctls(&self) -> HashMap<String, String> {
        let mut sysctls: HashMap<String, String> = HashMap::new();
        if self.netns.is_some() {
            sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
            sysctls.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
        }
        sysctls.extend(self.spec().sysctls.clone());
        sysctls
    }

    fn mounts(&self) -> Result<Vec<Mount>, OciSpecError> {
        let mut mounts = kernel_mounts()?;
        let view = self.cgroup_view.display().to_string();
        let options = ["rbind", "rro", "nosuid", "noexec", "nodev"];
        mounts.push(mount("/sys/fs/cgroup", "bind", &view, &options)?);
        for file in self.etc {
            let source = file.source.display().to_string();
            mounts.push(mount(file.target, "bind", &source, &["rbind", "nosuid", "nodev"])?);
        }
        for given in &self.spec().mounts {
            mounts.push(user_mount(given)?);
        }
        Ok(mounts)
    }
}

fn kernel_mounts() -> Result<Vec<Mount>, OciSpecError> {
    Ok(vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", SHM_SIZE])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
    ])
}

fn user_mount(given: &spec::Mount) -> Result<Mount, OciSpecError> {
    match given {
        spec::Mount::Bind { source, target, readonly } => {
            let mut options = vec!["rbind", "nosuid", "nodev"];
            if *readonly {
                options.push("rro");
            }
            mount(target, "bind", &source.display().to_string(), &options)
        }
        spec::Mount::Tmpfs { target, size_bytes } => {
            let size = format!("size={size_bytes}");
            let options = ["nosuid", "nodev", "noexec", "mode=1777", &size];
            mount(target, "tmpfs", "tmpfs", &options)
        }
    }
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(ToString::to_string).collect::<Vec<_>>())
        .build()
}

/// Resource limits by the names that `ulimit` users know.
pub fn limit_type(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "as" => PosixRlimitType::RlimitAs,
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}
