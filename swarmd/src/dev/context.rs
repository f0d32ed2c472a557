//! The context that makes `swarmctl --context NAME` find the dev cluster (the file's form is swarmctl's).

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub fn write(name: &str, socket: &Path) -> anyhow::Result<()> {
    let path = path(name)?;
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    std::fs::write(&path, text(socket))
        .with_context(|| format!("cannot write the context {}", path.display()))
}

/// Removes the context if it is still the one that was written.
pub fn remove(name: &str, socket: &Path) -> anyhow::Result<()> {
    let path = path(name)?;
    match std::fs::read_to_string(&path) {
        Ok(found) if found == text(socket) => std::fs::remove_file(&path)
            .with_context(|| format!("cannot remove the context {}", path.display())),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn text(socket: &Path) -> String {
    format!("{}\n", serde_json::json!({ "endpoint": format!("unix://{}", socket.display()) }))
}

fn path(name: &str) -> anyhow::Result<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let config = config.context("neither HOME nor XDG_CONFIG_HOME is set, so the context has no place")?;
    Ok(config.join("swarmctl/contexts").join(format!("{name}.json")))
}
