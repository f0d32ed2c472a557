//! The version 2 filter, on the version 2 hierarchy that a mixed host has too.

use std::fs;

use super::*;
use crate::sys::{Fork, exit_now, fork_into};

/// Whether a process in this cgroup can open a device file; `None` where it does not exist.
fn opens_in(cgroup: &Path, device: &str) -> Option<bool> {
    if !Path::new(device).exists() {
        return None;
    }
    let directory = File::open(cgroup).unwrap();
    let fd = std::os::fd::AsFd::as_fd(&directory);
    match fork_into(Some(fd)).unwrap() {
        Fork::Child => exit_now(i32::from(File::open(device).is_err())),
        Fork::Parent { child } => {
            let pid = rustix::process::Pid::from_raw(child).unwrap();
            let options = rustix::process::WaitOptions::empty();
            let (_, status) = rustix::process::waitpid(Some(pid), options).unwrap().unwrap();
            Some(status.exit_status() == Some(0))
        }
    }
}

#[test]
fn the_program_lets_only_harmless_devices_be_opened() {
    assert!(rustix::process::geteuid().is_root(), "this test makes a cgroup: run it as root");
    let layout = Layout::detect().unwrap();
    let parent = format!("swarm-devices-{}", std::process::id());
    let cgroup = layout.cgroup(Path::new(""), &parent);
    let path = cgroup.unified.clone().expect("this host mounts no version 2 cgroups");
    fs::create_dir(&path).unwrap();
    let DeviceProgram::Unified(program) = DeviceProgram::load().unwrap() else { unreachable!() };
    attach(&program, &path).unwrap();
    assert_eq!(opens_in(&path, "/dev/null"), Some(true));
    assert_eq!(opens_in(&path, "/dev/urandom"), Some(true));
    for refused in ["/dev/mem", "/dev/kmsg", "/dev/loop-control", "/dev/fuse"] {
        assert_ne!(opens_in(&path, refused), Some(true), "{refused}");
    }
    fs::remove_dir(&path).unwrap();
}
