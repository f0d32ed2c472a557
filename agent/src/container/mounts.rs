//! What is mounted into a container: directories of the node, named volumes, memory.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use swarm_model::{Mount, MountKind};

use super::template::{Placeholders, TemplateError};

/// Longest name of a volume: that of a file.
const NAME_LIMIT: usize = 255;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("mount on {target}: {source}")]
    Template { target: String, source: TemplateError },
    #[error("mount on {target}: {path} does not exist on this node")]
    NoSource { target: String, path: String },
    #[error("mount on {target}: {name:?} is no name for a volume: use letters, digits, '.', '_' and '-'")]
    VolumeName { target: String, name: String },
    #[error("mount on {target}: cannot make volume {name}: {source}")]
    Volume { target: String, name: String, source: io::Error },
}

/// The mounts of a spec; named volumes are made where they do not exist.
pub(super) fn mounts(
    mounts: &[Mount],
    volumes: &Path,
    placeholders: &Placeholders<'_>,
) -> Result<Vec<swarm_runtime::Mount>, MountError> {
    mounts.iter().map(|mount| one(mount, volumes, placeholders)).collect()
}

fn one(
    mount: &Mount,
    volumes: &Path,
    placeholders: &Placeholders<'_>,
) -> Result<swarm_runtime::Mount, MountError> {
    let fill = |text: &str| {
        let failed = |source| MountError::Template { target: mount.target.clone(), source };
        placeholders.fill(text).map_err(failed)
    };
    let target = fill(&mount.target)?;
    let readonly = mount.read_only;
    Ok(match &mount.kind {
        MountKind::Bind { source } => {
            let path = fill(source)?;
            if !Path::new(&path).exists() {
                return Err(MountError::NoSource { target, path });
            }
            swarm_runtime::Mount::Bind { source: PathBuf::from(path), target, readonly }
        }
        MountKind::Volume { name } => {
            let source = volume(volumes, &fill(name)?, &target)?;
            swarm_runtime::Mount::Bind { source, target, readonly }
        }
        MountKind::Tmpfs { size_bytes } => {
            swarm_runtime::Mount::Tmpfs { target, size_bytes: size_bytes.unwrap_or(0) }
        }
    })
}

fn volume(volumes: &Path, name: &str, target: &str) -> Result<PathBuf, MountError> {
    if !is_volume_name(name) {
        return Err(MountError::VolumeName { target: target.to_owned(), name: name.to_owned() });
    }
    let path = volumes.join(name);
    // The directory of all volumes is its owner's only; inside one, the container's users need to pass.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(volumes).and_then(|()| {
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    let failed = |source| MountError::Volume { target: target.to_owned(), name: name.to_owned(), source };
    made.map(|()| path).map_err(failed)
}

fn is_volume_name(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= NAME_LIMIT
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_cannot_lead_elsewhere() {
        for good in ["data", "web-1", "a.b_c"] {
            assert!(is_volume_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../a", ".hidden", "a b", &"x".repeat(256)] {
            assert!(!is_volume_name(bad), "{bad}");
        }
    }
}
