//! What can go wrong, an enum per operation. No text repeats its source.

use std::io;
use std::path::PathBuf;

use crate::cgroup::CgroupError;
use crate::launch::Failure;
use crate::signal::Signal;
use crate::spec::InvalidSpec;

/// Why a runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the runtime needs root; run the daemon as root")]
    NotRoot,
    #[error("cgroup parent {parent:?} must be a relative path without `..`, such as \"swarm\"")]
    CgroupParent { parent: String },
    #[error("runtime directory {root:?} must be an absolute path")]
    Root { root: PathBuf },
    #[error("cannot make the runtime directory {root}", root = root.display())]
    MakeRoot {
        root: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot find this host's cgroups")]
    Layout(#[source] io::Error),
    #[error("cannot prepare the cgroups of containers")]
    Cgroup(#[from] CgroupError),
    #[error("cannot mount the shim's program {program} (Linux 5.12 or newer is needed)", program = program.display())]
    Shim {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare the filter of device nodes")]
    Devices(#[source] io::Error),
}

/// Why a container did not start. Nothing of it is left, but its directory where removing it
/// failed too.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("container {id}: {invalid}")]
    Invalid { id: String, invalid: InvalidSpec },
    #[error("container {id} exists already; remove it first")]
    Exists { id: String },
    #[error("container {id}: cannot prepare {what}")]
    Prepare {
        id: String,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("container {id}: cannot limit its resources")]
    Cgroup {
        id: String,
        #[source]
        source: CgroupError,
    },
    #[error("container {id}: cannot run its shim {program}", program = program.display())]
    Shim {
        id: String,
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("container {id}: its shim ended without an answer{last_words}")]
    ShimDied { id: String, last_words: String },
    /// The specification is fine, this image or host refuses it.
    #[error("container {id}: {failure}")]
    Failed { id: String, failure: Failure },
}

/// Why something could not be done with a container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("container {id} is not running")]
    NotRunning { id: String },
    #[error("container {id}: cannot send {signal}")]
    Signal {
        id: String,
        signal: Signal,
        #[source]
        source: io::Error,
    },
    #[error("container {id}: cannot tell how it ended")]
    ExitStatus {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("container {id}: cannot read what it uses")]
    Stats {
        id: String,
        #[source]
        source: io::Error,
    },
}

/// Why the containers of a directory cannot be found again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the containers in {path}", path = path.display())]
pub struct AdoptError {
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

/// Why a container is not wholly removed. Trying again is safe.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("{0:?} is not a container's name")]
    Id(String),
    #[error("container {id}: cannot end its shim")]
    Shim {
        id: String,
        #[source]
        source: io::Error,
    },
    #[error("container {id}: cannot remove its cgroup; a process of it may hang in the kernel")]
    Cgroup {
        id: String,
        #[source]
        source: CgroupError,
    },
    #[error("container {id}: cannot remove its directory")]
    Directory {
        id: String,
        #[source]
        source: io::Error,
    },
}
