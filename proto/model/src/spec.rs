//! What a task is to run: the part of a service's spec that replaces tasks when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ConstraintError, Limits, NameError, Placement, Resources, RestartPolicy};

/// Everything that decides how one task runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub limits: Limits,
    pub reservations: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    /// Counts `service update --force`; a change replaces every task.
    pub force_update: u64,
}

/// One container. Empty lists and `None` mean "as the image says".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub image: ImageRef,
    /// Replaces the image's entrypoint if not empty.
    pub entrypoint: Vec<String>,
    /// Replaces the image's command if not empty.
    pub args: Vec<String>,
    /// `KEY=VALUE`, over the image's.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    /// `uid[:gid]` or `name[:group]`.
    pub user: Option<String>,
    pub groups: Vec<String>,
    /// May hold `{{.Node.Hostname}}`, `{{.Task.Slot}}` and the like.
    pub hostname: Option<String>,
    /// Extra lines of /etc/hosts: (name, address).
    pub hosts: Vec<(String, String)>,
    pub labels: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    pub read_only: bool,
    pub init: bool,
    pub tty: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    /// Name or number; `None`: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Between the stop signal and SIGKILL.
    pub stop_grace_period: Duration,
}

/// An image as it was asked for, and the exact content that it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageRef {
    /// Canonical name with tag, as `docker.io/library/nginx:latest`.
    pub name: String,
    /// Manifest digest `sha256:…`; `None` only with `--no-resolve-image`.
    pub digest: Option<String>,
    pub source: PullSource,
}

/// Where the agents get an image's content from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PullSource {
    /// The registry in its name.
    Registry,
    /// The cluster's own image store, over the managers.
    Cluster,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute path in the container.
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// An existing absolute path of the node.
    Bind { source: String },
    /// A directory of the node that outlives tasks, made on first use.
    Volume { name: String },
    /// Memory; `None`: half of the node's.
    Tmpfs { size_bytes: Option<u64> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in `ulimit`: nofile, nproc, core …
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// Why a spec was refused. The text goes to the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("the service's name was refused")]
    Name(#[source] NameError),
    #[error("the placement was refused")]
    Constraint(#[source] ConstraintError),
    #[error("{field} is required")]
    Missing { field: &'static str },
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("{field} has {count} entries, at most {limit} are allowed")]
    TooMany { field: &'static str, count: usize, limit: usize },
    #[error("{field} is {bytes} bytes long, at most {limit} are allowed")]
    TooLong { field: &'static str, bytes: usize, limit: usize },
    #[error("{0} cannot be done by this version yet")]
    NotSupported(&'static str),
}
