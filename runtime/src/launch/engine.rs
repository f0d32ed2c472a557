//! The seam to libcontainer: everything that knows it is here and in [`super::executor`].
//!
//! libcontainer makes the namespaces, mounts, device nodes and masked paths, and sets user,
//! capabilities and limits. It is kept away from cgroups, whose joining it does slowly: in the
//! mount namespace that it runs in, `/sys/fs/cgroup` is empty.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::notify_socket::{NOTIFY_FILE, NotifySocket};
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Spec;

use super::executor::ContainerExecutor;
use super::{Failure, Parts, Report, seccomp};
use crate::record::Launch;

/// Directory of libcontainer's own state, of use only while it starts the container.
const STATE_DIRECTORY: &str = "oci";

/// Makes the container's first process, reports it and lets it run its command.
pub fn start(spec: &Spec, launch: &Launch, environment: Vec<String>, parts: Parts) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::setup("make the container", error);
    let bundle = parts.directory.launch();
    spec.save(bundle.join("config.json")).map_err(|error| failed(&error))?;
    let state = bundle.join(STATE_DIRECTORY);
    std::fs::create_dir(&state).map_err(|error| failed(&error))?;

    let executor = ContainerExecutor::new(
        &launch.spec,
        environment,
        seccomp::program(spec),
        parts.shim.as_raw_fd(),
        parts.report.as_raw_fd(),
    )?;
    let null: OwnedFd = File::open("/dev/null").map_err(|error| failed(&error))?.into();
    let container = ContainerBuilder::new(launch.spec.id.clone(), SyscallType::default())
        .with_executor(executor)
        .with_stdin(null)
        .with_stdout(parts.stdout)
        .with_stderr(parts.stderr)
        .with_root_path(&state)
        .map_err(|error| failed(&error))?
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        // The shim, not this process, becomes the container's parent.
        .as_sibling(true)
        .build()
        .map_err(|error| failed(&error))?;
    let missing = io::Error::other("it has no process");
    let init = container.pid().ok_or_else(|| failed(&missing))?;
    Report::Init(init.as_raw()).send(&File::from(parts.report));
    // Not `container.start()`, which would read and write its state files three times more.
    NotifySocket::new(state.join(&launch.spec.id).join(NOTIFY_FILE))
        .notify_container_start()
        .map_err(|error| failed(&error))
}
