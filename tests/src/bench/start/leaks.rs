//! What containers have left on the host once all are removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

const CGROUPS: &str = "/sys/fs/cgroup";
/// The kernel takes network namespaces down by and by.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Waits until nothing is left; gives what stays.
pub fn settled(home: &Path, containers: &Path, cgroup_parent: &str) -> anyhow::Result<Vec<String>> {
    let end = Instant::now() + LIMIT;
    loop {
        let left = list(home, containers, cgroup_parent)?;
        if left.is_empty() || Instant::now() > end {
            return Ok(left);
        }
        thread::sleep(POLL);
    }
}

fn list(home: &Path, containers: &Path, cgroup_parent: &str) -> anyhow::Result<Vec<String>> {
    let home = home.to_str().context("a directory with a name in UTF-8")?;
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    left.extend(mounts.lines().filter(|line| line.contains(home)).map(|line| format!("mount {line}")));
    for parent in parents(cgroup_parent) {
        left.extend(directories(&parent)?.iter().map(|path| format!("cgroup {}", path.display())));
    }
    left.extend(directories(containers)?.iter().map(|path| format!("directory {}", path.display())));
    left.extend(processes(home)?.iter().map(|pid| format!("process {pid}")));
    // Each network of a task has its cable's other end here.
    left.extend(devices()?.into_iter().filter(|name| name != "lo").map(|name| format!("device {name}")));
    Ok(left)
}

/// The containers' parent cgroup in every hierarchy.
fn parents(cgroup_parent: &str) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = hierarchies.chain([root.to_owned()]).map(|path| path.join(cgroup_parent));
    below.filter(|path| path.is_dir()).collect()
}

/// Removes the parents; whatever is below one keeps it.
pub fn remove_parents(cgroup_parent: &str) {
    for path in parents(cgroup_parent) {
        let _ = fs::remove_dir(path);
    }
}

fn directories(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// Other processes that have `home` among their arguments: shims.
fn processes(home: &str) -> anyhow::Result<Vec<i32>> {
    let numbers =
        fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_home = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(home)
    };
    Ok(numbers.filter(of_home).collect())
}

/// Devices of this thread's network namespace.
fn devices() -> anyhow::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    Ok(table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}
