//! Contexts: names for clusters. One JSON file each, `{"endpoint": "unix:///run/swarm/swarmd.sock"}`, under
//! `$XDG_CONFIG_HOME/swarm/contexts` (`swarmd dev` writes one named `dev`).

use std::path::PathBuf;

use serde::Deserialize;

use crate::failure::{Failure, Result};

/// Where `swarmd` listens on its own machine.
pub const DEFAULT_ENDPOINT: &str = "unix:///run/swarm/swarmd.sock";

#[derive(Debug, Deserialize)]
struct Context {
    endpoint: String,
}

/// The endpoint to talk to: `--host`, else the context's, else this machine's daemon.
///
/// # Errors
/// A context that does not exist or cannot be read.
pub fn endpoint(host: Option<String>, context: Option<&str>) -> Result<String> {
    match (host, context) {
        (Some(host), _) => Ok(host),
        (None, None | Some("default")) => Ok(DEFAULT_ENDPOINT.to_owned()),
        (None, Some(name)) => read(name).map(|context| context.endpoint),
    }
}

fn read(name: &str) -> Result<Context> {
    let valid = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !valid {
        return Err(Failure::usage(format!("{name:?} is not a context's name")));
    }
    let path = directory()?.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let failure = Failure::failed(format!("there is no context {name:?}"))
            .why(format!("{}: {error}", path.display()));
        if name == "dev" { failure.next("start a cluster on this machine: swarmd dev") } else { failure }
    })?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("context {name:?} cannot be read")).why(error.to_string()))
}

fn directory() -> Result<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    config
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))
        .map(|config| config.join("swarm/contexts"))
        .ok_or_else(|| Failure::failed("neither HOME nor XDG_CONFIG_HOME is set").next("pass --host"))
}
