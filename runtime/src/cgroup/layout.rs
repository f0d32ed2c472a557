//! Which cgroup hierarchies this host has and where a runtime's own part of them begins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, CgroupError, Controller, LegacyDirectory, read_text, write_file};

/// Controllers that the version 2 directories of containers are given.
const UNIFIED_CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// The cgroup hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    legacy: Vec<LegacyDirectory>,
    unified: Option<PathBuf>,
}

impl Layout {
    /// Reads what is mounted in the caller's mount namespace.
    pub fn detect() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let layout = Self::parse(&mounts);
        if layout.legacy.is_empty() && layout.unified.is_none() {
            let message = "no cgroup file system is mounted; mount one at /sys/fs/cgroup";
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(layout)
    }

    /// Lines of `mountinfo`: `ID PARENT MAJ:MIN ROOT TARGET OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS`.
    fn parse(mounts: &str) -> Self {
        let mut layout = Self { legacy: Vec::new(), unified: None };
        for line in mounts.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next(), filesystem.nth(1));
            let Some(target) = mount.split(' ').nth(4) else { continue };
            match kind {
                Some("cgroup2") if layout.unified.is_none() => {
                    layout.unified = Some(PathBuf::from(target));
                }
                Some("cgroup") => layout.add_legacy(target, options.unwrap_or_default()),
                _ => {}
            }
        }
        layout
    }

    fn add_legacy(&mut self, target: &str, options: &str) {
        let controllers: Vec<Controller> = Controller::ALL
            .into_iter()
            .filter(|controller| options.split(',').any(|option| option == controller.name()))
            .filter(|controller| !self.has(*controller))
            .collect();
        if !controllers.is_empty() {
            let path = PathBuf::from(target);
            self.legacy.push(LegacyDirectory { controllers, path });
        }
    }

    /// Whether a version 1 hierarchy has this controller.
    pub fn has(&self, controller: Controller) -> bool {
        self.legacy.iter().any(|mount| mount.controllers.contains(&controller))
    }

    /// Makes the parent directory of all containers in every hierarchy, and hands the version 2
    /// one the controllers that version 1 has not got.
    pub fn prepare(&self, parent: &Path) -> Result<(), CgroupError> {
        for mount in &self.legacy {
            create(&mount.path.join(parent))?;
        }
        let Some(unified) = &self.unified else { return Ok(()) };
        create(&unified.join(parent))?;
        delegate(unified, parent)
    }

    /// Removes the parent directory in every hierarchy where it is empty.
    pub fn remove(&self, parent: &Path) {
        let legacy = self.legacy.iter().map(|mount| &mount.path);
        for mount in legacy.chain(&self.unified) {
            // In use, or gone: both are fine.
            let _ = fs::remove_dir(mount.join(parent));
        }
    }

    /// The directories of the container `id`; nothing is made.
    pub fn cgroup(&self, parent: &Path, id: &str) -> Cgroup {
        let of = |mount: &Path| mount.join(parent).join(id);
        let legacy = self
            .legacy
            .iter()
            .map(|mount| LegacyDirectory { controllers: mount.controllers.clone(), path: of(&mount.path) });
        Cgroup { legacy: legacy.collect(), unified: self.unified.as_deref().map(of) }
    }
}

fn create(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(path).map_err(|e| CgroupError::new("create cgroup", path, e))
}

/// Enables the controllers in every directory from the mount down to `parent`.
fn delegate(mount: &Path, parent: &Path) -> Result<(), CgroupError> {
    let mut directory = mount.to_owned();
    let mut below = parent.components();
    loop {
        enable(&directory)?;
        match below.next() {
            Some(component) => directory.push(component),
            None => return Ok(()),
        }
    }
}

fn enable(directory: &Path) -> Result<(), CgroupError> {
    let available = directory.join("cgroup.controllers");
    let available = read_text(&available).map_err(|e| CgroupError::new("read", &available, e))?;
    let wanted: Vec<String> = UNIFIED_CONTROLLERS
        .iter()
        .filter(|name| available.split_ascii_whitespace().any(|a| a == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    write_file(&directory.join("cgroup.subtree_control"), &wanted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::View;
    use super::*;

    #[test]
    fn a_mixed_host_has_both_versions() {
        let layout = Layout::parse(
            "30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             34 30 0:27 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n",
        );
        assert_eq!(layout.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(layout.legacy.len(), 1);
        assert_eq!(layout.legacy[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
    }

    #[test]
    fn a_unified_host_is_seen_as_the_whole_tree() {
        let layout = Layout::parse("30 29 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let cgroup = layout.cgroup(Path::new("swarm"), "web.1");
        let expect = Path::new("/sys/fs/cgroup/swarm/web.1");
        assert_eq!(cgroup.view(), View::Whole(expect));
    }
}
