//! Network namespaces with a name in the file system, laid out as `ip netns` does it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{DevError, netns};

const DIRECTORY: &str = "/run/netns";

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes a namespace with a name. The calling thread moves into it.
pub fn create(name: &str) -> Result<OwnedFd, DevError> {
    let failed = |source| DevError::Namespace { name: name.to_owned(), source };
    share_directory().map_err(failed)?;
    netns::enter_new().map_err(failed)?;
    File::options().write(true).create_new(true).open(path(name)).map_err(failed)?;
    mount(Some("/proc/thread-self/ns/net"), &path(name), NONE, MsFlags::MS_BIND, NONE)
        .map_err(|errno| failed(errno.into()))?;
    netns::current().map_err(failed)
}

const NONE: Option<&str> = None;

/// Makes the directory a mount of its own, shared: a name that is removed is removed from every process's view, also
/// from those of containers, which would hold the namespace otherwise.
fn share_directory() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let share = || mount(NONE, DIRECTORY, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            mount(Some(DIRECTORY), DIRECTORY, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
            Ok(share()?)
        }
        outcome => Ok(outcome?),
    }
}

/// Takes the name away; the namespace goes with the last process inside. There may be no such name.
pub fn remove(name: &str) -> Result<(), DevError> {
    let failed = |source| DevError::Namespace { name: name.to_owned(), source };
    match umount2(&path(name), MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    match fs::remove_file(path(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(failed),
    }
}

/// The namespaces whose name is `prefix` and a number: number, name and path.
pub fn list(prefix: &str) -> Result<Vec<(u16, String, PathBuf)>, DevError> {
    let failed = |source| DevError::Namespace { name: prefix.to_owned(), source };
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(prefix).and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, name, entry.path())));
    }
    found.sort();
    Ok(found)
}
