//! What of the host a container sees: masked and read-only paths, its own cgroup.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::Failure;
use crate::cgroup::{Cgroup, View};
use crate::record::Directory;

/// Paths of `/proc` and `/sys` that leak or steer the host. Those of Docker's profile.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that a container may read only. Those of Docker's profile.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// [`MASKED`] with the thermal counters of each CPU, whose side channel Docker masks too.
pub fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = MASKED.map(str::to_owned).to_vec();
    for cpu in 0.. {
        let directory = format!("/sys/devices/system/cpu/cpu{cpu}");
        if !Path::new(&directory).exists() {
            break;
        }
        let counters = format!("{directory}/thermal_throttle");
        if Path::new(&counters).exists() {
            paths.push(counters);
        }
    }
    paths
}

/// Collects the container's cgroup directories in one place, to be mounted into it, and takes
/// `/sys/fs/cgroup` away from everything that runs in this mount namespace after.
pub fn cgroup_view(cgroup: &Cgroup, directory: &Directory) -> Result<PathBuf, Failure> {
    collect(cgroup, &directory.launch().join("cgroup"))
        .map_err(|error| Failure::setup("prepare the container's view of its cgroup", &error))
}

fn collect(cgroup: &Cgroup, view: &Path) -> std::io::Result<PathBuf> {
    const CGROUPS: &str = "/sys/fs/cgroup";
    fs::create_dir(view)?;
    match cgroup.view() {
        View::Whole(source) => mount_bind(source, view)?,
        View::PerController(sources) => {
            for (name, source) in sources {
                // libcontainer takes every cgroup mount whose last name is a controller for that
                // controller's hierarchy; so the well-known name is a link.
                let mounted = format!("v1-{name}");
                fs::create_dir(view.join(&mounted))?;
                mount_bind(source, view.join(&mounted))?;
                symlink(&mounted, view.join(name))?;
            }
        }
    }
    unmount(CGROUPS, UnmountFlags::DETACH)?;
    // libcontainer takes a tmpfs here for a version 1 host, and finds no controller on it.
    mount("tmpfs", CGROUPS, "tmpfs", MountFlags::empty(), None)?;
    Ok(view.to_owned())
}
