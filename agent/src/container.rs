//! From a task's spec and its image to a container: what each field means, as Docker means it.
//!
//! Values only, but for the existence of what is to be mounted. What the container's own files say (users, the command's
//! path) is checked when it starts.

mod etc;
mod mounts;
mod template;

use std::path::PathBuf;

use swarm_image::ImageConfig;
use swarm_model::{Assignment, ContainerSpec, EngineDescription, Limits, NodeId, Resources, TaskSpec};
use swarm_runtime::{EtcFiles, InvalidSignal, Network, Signal};

pub(crate) use etc::resolver_configuration;
pub(crate) use mounts::MountError;
use template::Placeholders;
pub(crate) use template::TemplateError;

/// CPU shares of one CPU, in cgroup v1's unit.
const SHARES_PER_CPU: u64 = 1_024;
/// Characters of the task's id that make the default host name, as in Docker.
const SHORT_ID: usize = 12;

/// What a container needs of its node.
#[derive(Debug, Clone)]
pub(crate) struct NodeFacts {
    pub node: NodeId,
    pub engine: EngineDescription,
    /// Directory of the named volumes.
    pub volumes: PathBuf,
    /// Contents of /etc/resolv.conf.
    pub resolver: String,
}

/// Why a spec and an image do not make a container; the cause, for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("image {image} has no command: give one with the service")]
    NoCommand { image: String },
    #[error("{field}: {source}")]
    Template { field: &'static str, source: TemplateError },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("stop signal: {0}")]
    Signal(#[from] InvalidSignal),
}

/// The container of a task, without its network.
pub(crate) fn container_spec(
    assignment: &Assignment,
    image: &ImageConfig,
    layers: Vec<PathBuf>,
    node: &NodeFacts,
) -> Result<swarm_runtime::ContainerSpec, ContainerError> {
    let TaskSpec { container: spec, limits, reservations, .. } = &*assignment.spec;
    let placeholders = Placeholders { assignment, node: node.node, engine: &node.engine };
    let fill = |field, text: &str| {
        placeholders.fill(text).map_err(|source| ContainerError::Template { field, source })
    };
    let hostname = match &spec.hostname {
        Some(hostname) => fill("hostname", hostname)?,
        None => assignment.task.to_string()[..SHORT_ID].to_owned(),
    };
    let env = spec.env.iter().map(|variable| fill("env", variable)).collect::<Result<Vec<_>, _>>()?;
    Ok(swarm_runtime::ContainerSpec {
        id: assignment.task.to_string(),
        layers,
        args: command(spec, image)?,
        env: environment(image, env, &hostname),
        cwd: spec.workdir.clone().unwrap_or_else(|| image.working_dir.clone()),
        user: spec.user.clone().unwrap_or_else(|| image.user.clone()),
        additional_groups: spec.groups.clone(),
        network: Network::Host,
        mounts: mounts::mounts(&spec.mounts, &node.volumes, &placeholders)?,
        read_only_root: spec.read_only,
        resources: resources(limits, reservations),
        cap_add: spec.cap_add.clone(),
        cap_drop: spec.cap_drop.clone(),
        sysctls: spec.sysctls.clone(),
        ulimits: spec.ulimits.iter().map(ulimit).collect(),
        init: spec.init,
        etc_files: EtcFiles {
            hosts: Some(etc::hosts(&hostname, assignment.address, &spec.hosts)),
            resolv_conf: Some(node.resolver.clone()),
            hostname: Some(format!("{hostname}\n")),
        },
        hostname,
        labels: spec.labels.clone(),
    })
}

/// The signal that asks the container to stop: the spec's, else the image's, else SIGTERM.
pub(crate) fn stop_signal(
    spec: &ContainerSpec,
    image: Option<&ImageConfig>,
) -> Result<Signal, InvalidSignal> {
    let of_image = || image.and_then(|image| image.stop_signal.as_deref());
    spec.stop_signal.as_deref().or_else(of_image).map_or(Ok(Signal::TERM), str::parse)
}

/// A spec's entrypoint makes the image's command void, too: its arguments were meant for the image's own entrypoint.
fn command(spec: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, ContainerError> {
    let (entrypoint, default_args) = match spec.entrypoint.as_slice() {
        [] => (image.entrypoint.as_slice(), image.cmd.as_slice()),
        own => (own, &[][..]),
    };
    let args = if spec.args.is_empty() { default_args } else { &spec.args };
    let command: Vec<String> = entrypoint.iter().chain(args).cloned().collect();
    match command.first() {
        Some(program) if !program.is_empty() => Ok(command),
        _ => Err(ContainerError::NoCommand { image: spec.image.name.clone() }),
    }
}

/// The image's variables, then our own, then the spec's: the last of a name wins.
fn environment(image: &ImageConfig, spec: Vec<String>, hostname: &str) -> Vec<String> {
    let own = [format!("HOSTNAME={hostname}")];
    let mut variables: Vec<String> = Vec::new();
    for variable in image.env.iter().cloned().chain(own).chain(spec) {
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        let own_name = name(&variable);
        variables.retain(|earlier| name(earlier) != own_name);
        variables.push(variable);
    }
    variables
}

fn resources(limits: &Limits, reservations: &Resources) -> swarm_runtime::Resources {
    let shares = reservations.cpu_nanos.saturating_mul(SHARES_PER_CPU) / 1_000_000_000;
    swarm_runtime::Resources {
        memory_bytes: limits.memory_bytes,
        cpu_nanos: limits.cpu_nanos,
        // The kernel's bounds. Without a reservation the container competes as one CPU's worth, the kernel's default.
        cpu_shares: (shares > 0).then(|| shares.clamp(2, 262_144)),
        pids: limits.pids,
    }
}

fn ulimit(ulimit: &swarm_model::Ulimit) -> swarm_runtime::Ulimit {
    swarm_runtime::Ulimit { name: ulimit.name.clone(), soft: ulimit.soft, hard: ulimit.hard }
}

#[cfg(test)]
mod tests;
