//! Contexts: names for clusters. Each is a file `contexts/NAME.json` with a socket or with addresses of managers; with
//! addresses goes `contexts/NAME.pem`, the operator's key, certificate and the cluster's roots. `current` names the one
//! that is used where none is asked for. All under `$XDG_CONFIG_HOME/swarmctl`, else `~/.config/swarmctl`, for the
//! owner only (`swarmd dev` writes a context named `dev` there).

mod files;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use swarm_pki::OperatorCredentials;

use crate::failure::{Failure, Result};
pub use files::{Files, check_name};

/// Where `swarmd` listens on its own machine.
const LOCAL_SOCKET: &str = "/run/swarm/swarmd.sock";
/// The name that always stands for it.
pub const LOCAL: &str = "default";
/// Where managers listen.
pub const PORT: u16 = 2377;

/// Whom a command talks to.
#[derive(Debug)]
pub enum Target {
    /// A node's own socket.
    Socket(PathBuf),
    Managers(Remote),
}

/// Managers of a cluster, and who we are there.
#[derive(Debug)]
pub struct Remote {
    /// The context's name.
    pub name: String,
    /// `host:port`, the one that answered last in front.
    pub managers: Vec<String>,
    pub credentials: OperatorCredentials,
}

/// What the JSON file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    Socket { endpoint: String },
    Managers { managers: Vec<String> },
}

/// Whom to talk to: `--host`, else the context that was asked for, else the current one, else this machine's daemon.
///
/// # Errors
/// There is no such context, it cannot be read, or nothing was chosen and there is no daemon here.
pub fn target(host: Option<String>, context: Option<&str>) -> Result<Target> {
    if let Some(host) = host {
        return socket(&host).map(Target::Socket);
    }
    match context.map(str::to_owned) {
        Some(name) if name == LOCAL => Ok(Target::Socket(LOCAL_SOCKET.into())),
        Some(name) => Files::open()?.target(&name),
        None => unasked(),
    }
}

fn unasked() -> Result<Target> {
    let files = Files::open();
    if let Ok(files) = &files
        && let Some(name) = files.current()?
    {
        return files.target(&name);
    }
    if Path::new(LOCAL_SOCKET).exists() {
        return Ok(Target::Socket(LOCAL_SOCKET.into()));
    }
    let failure = Failure::new(crate::failure::Code::Unreachable, "no cluster is chosen")
        .why(format!("there is no current context, and no swarmd on this machine ({LOCAL_SOCKET})"));
    let known = files.and_then(|files| files.names()).unwrap_or_default();
    Err(match known.first() {
        Some(name) => failure.next(format!("swarmctl context use {name}   or: swarmctl --context {name} …")),
        None => failure.next(
            "swarmctl cluster operator-token (on a manager) prints the command that makes a context here",
        ),
    })
}

fn socket(endpoint: &str) -> Result<PathBuf> {
    endpoint.strip_prefix("unix://").map(PathBuf::from).ok_or_else(|| {
        Failure::usage(format!("{endpoint:?} is not a socket"))
            .why(
                "--host takes the local socket of a node, as unix:///path; managers elsewhere need a context",
            )
            .next("swarmctl context create NAME --manager HOST --token TOKEN")
    })
}
