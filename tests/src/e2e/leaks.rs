//! What a host holds although no service needs it.

use std::path::{Path, PathBuf};

use super::Cluster;

/// Everything that is left on a node without tasks.
pub fn on_node(cluster: &Cluster, number: u16) -> Vec<String> {
    let mut left = Vec::new();
    // Only the daemon itself may be in the node's namespace: a shim is a container that is still there.
    if cluster.processes(number).len() > 1 {
        left.push(format!("node {number}: processes {:?}", cluster.processes(number)));
    }
    left.extend(cgroups(&cluster.cgroup_parent(number)).into_iter().map(|path| path.display().to_string()));
    let data = cluster.data(number).display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(&format!("{data}/"))).map(str::to_owned));
    left.extend(containers(&cluster.data(number)));
    left
}

/// Directories of containers, wherever the agent keeps them.
fn containers(data: &Path) -> Vec<String> {
    ["agent/containers", "containers"]
        .iter()
        .filter_map(|directory| std::fs::read_dir(data.join(directory)).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Cgroups below the parent, in every hierarchy.
fn cgroups(parent: &str) -> Vec<PathBuf> {
    cgroups_of(parent).iter().flat_map(|path| children(path)).collect()
}

/// The cgroups of that name directly below a root, in every hierarchy.
pub fn cgroups_of(parent: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|path| path.join(parent)).filter(|path| path.is_dir()).collect()
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Removes a parent cgroup and what is below it; only works once no process is in it.
pub fn remove_cgroups(parent: &str) {
    for path in cgroups_of(parent) {
        remove(&path);
    }
}

fn remove(path: &Path) {
    for child in children(path) {
        remove(&child);
    }
    let _ = std::fs::remove_dir(path);
}
