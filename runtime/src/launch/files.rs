//! The files of `/etc` that the caller gives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::Failure;
use crate::record::Directory;
use crate::spec::EtcFiles;

/// A file of the host and where the container sees it.
#[derive(Debug)]
pub struct EtcFile {
    pub source: PathBuf,
    pub target: &'static str,
}

/// Writes the given files into the container's directory.
pub fn write(files: &EtcFiles, directory: &Directory) -> Result<Vec<EtcFile>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::setup("write the files of /etc", error);
    let wanted = [
        (&files.hosts, "/etc/hosts"),
        (&files.resolv_conf, "/etc/resolv.conf"),
        (&files.hostname, "/etc/hostname"),
    ];
    let mut written = Vec::new();
    for (content, target) in wanted {
        let Some(content) = content else { continue };
        let parent = directory.join("etc");
        fs::create_dir_all(&parent).map_err(|error| failed(&error))?;
        let source = parent.join(target.rsplit('/').next().expect("has a name"));
        fs::write(&source, content).map_err(|error| failed(&error))?;
        // Whatever the caller's umask: the container's users must read them.
        fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).map_err(|error| failed(&error))?;
        written.push(EtcFile { source, target });
    }
    Ok(written)
}
