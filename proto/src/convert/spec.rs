//! Specs of services and their parts.

use std::sync::Arc;
use std::time::Duration;

use swarm_model as model;
use swarm_model::SpecError;

use super::{ConvertError, invalid, micros, nonempty, nonzero, port, required};
use crate::v1 as wire;

const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);
const MILLIONTHS: f64 = 1_000_000.0;

impl TryFrom<wire::ServiceSpec> for model::ServiceSpec {
    type Error = ConvertError;

    /// Converts and validates; what comes out can be admitted as far as one can tell without a store.
    fn try_from(spec: wire::ServiceSpec) -> Result<Self, ConvertError> {
        let mode = match spec.mode.and_then(|mode| mode.mode) {
            Some(wire::service_mode::Mode::Replicated(replicated)) => {
                model::ServiceMode::Replicated { replicas: replicated.replicas }
            }
            None => model::ServiceMode::Replicated { replicas: 1 },
        };
        let rollback = spec.rollback.unwrap_or(wire::UpdatePolicy {
            failure_action: wire::update_policy::FailureAction::Pause as i32,
            ..Default::default()
        });
        let spec = Self {
            name: spec.name,
            labels: spec.labels,
            mode,
            task: required("task", spec.task)?.try_into()?,
            ports: spec.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            update: update_policy(spec.update.unwrap_or_default(), model::FailureAction::Rollback)?,
            rollback: update_policy(rollback, model::FailureAction::Pause)?,
        };
        spec.validate()?;
        Ok(spec)
    }
}

impl From<&model::ServiceSpec> for wire::ServiceSpec {
    fn from(spec: &model::ServiceSpec) -> Self {
        let model::ServiceMode::Replicated { replicas } = spec.mode;
        let replicated = wire::service_mode::Replicated { replicas };
        Self {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            mode: Some(wire::ServiceMode { mode: Some(wire::service_mode::Mode::Replicated(replicated)) }),
            task: Some((&spec.task).into()),
            ports: spec.ports.iter().map(Into::into).collect(),
            update: Some((&spec.update).into()),
            rollback: Some((&spec.rollback).into()),
        }
    }
}

impl TryFrom<wire::TaskSpec> for model::TaskSpec {
    type Error = ConvertError;

    fn try_from(spec: wire::TaskSpec) -> Result<Self, ConvertError> {
        let limits = spec.limits.unwrap_or_default();
        Ok(Self {
            container: required("container", spec.container)?.try_into()?,
            limits: model::Limits {
                cpu_nanos: nonzero(limits.cpu_nanos),
                memory_bytes: nonzero(limits.memory_bytes),
                pids: nonzero(limits.pids),
            },
            reservations: spec.reservations.unwrap_or_default().into(),
            restart: restart_policy(spec.restart.unwrap_or_default())?,
            placement: spec.placement.unwrap_or_default().try_into()?,
            force_update: spec.force_update,
        })
    }
}

impl From<&model::TaskSpec> for wire::TaskSpec {
    fn from(spec: &model::TaskSpec) -> Self {
        let limits = wire::Limits {
            cpu_nanos: spec.limits.cpu_nanos.unwrap_or(0),
            memory_bytes: spec.limits.memory_bytes.unwrap_or(0),
            pids: spec.limits.pids.unwrap_or(0),
        };
        Self {
            container: Some((&spec.container).into()),
            limits: Some(limits),
            reservations: Some(spec.reservations.into()),
            restart: Some((&spec.restart).into()),
            placement: Some((&spec.placement).into()),
            force_update: spec.force_update,
        }
    }
}

impl TryFrom<wire::ContainerSpec> for model::ContainerSpec {
    type Error = ConvertError;

    fn try_from(spec: wire::ContainerSpec) -> Result<Self, ConvertError> {
        Ok(Self {
            image: required("image", spec.image)?.into(),
            entrypoint: spec.entrypoint,
            args: spec.args,
            env: spec.env,
            workdir: nonempty(spec.workdir),
            user: nonempty(spec.user),
            groups: spec.groups,
            hostname: nonempty(spec.hostname),
            hosts: spec.hosts.into_iter().map(|host| (host.name, host.address)).collect(),
            labels: spec.labels,
            mounts: spec.mounts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            read_only: spec.read_only,
            init: spec.init,
            tty: spec.tty,
            cap_add: spec.cap_add,
            cap_drop: spec.cap_drop,
            sysctls: spec.sysctls,
            ulimits: spec
                .ulimits
                .into_iter()
                .map(|limit| model::Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
                .collect(),
            stop_signal: nonempty(spec.stop_signal),
            stop_grace_period: spec.stop_grace_micros.map_or(DEFAULT_STOP_GRACE, Duration::from_micros),
        })
    }
}

impl From<&model::ContainerSpec> for wire::ContainerSpec {
    fn from(spec: &model::ContainerSpec) -> Self {
        let host = |(name, address): &(String, String)| wire::HostEntry {
            name: name.clone(),
            address: address.clone(),
        };
        let ulimit = |limit: &model::Ulimit| wire::Ulimit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        };
        Self {
            image: Some((&spec.image).into()),
            entrypoint: spec.entrypoint.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            workdir: spec.workdir.clone().unwrap_or_default(),
            user: spec.user.clone().unwrap_or_default(),
            groups: spec.groups.clone(),
            hostname: spec.hostname.clone().unwrap_or_default(),
            hosts: spec.hosts.iter().map(host).collect(),
            labels: spec.labels.clone(),
            mounts: spec.mounts.iter().map(Into::into).collect(),
            read_only: spec.read_only,
            init: spec.init,
            tty: spec.tty,
            cap_add: spec.cap_add.clone(),
            cap_drop: spec.cap_drop.clone(),
            sysctls: spec.sysctls.clone(),
            ulimits: spec.ulimits.iter().map(ulimit).collect(),
            stop_signal: spec.stop_signal.clone().unwrap_or_default(),
            stop_grace_micros: Some(micros(spec.stop_grace_period)),
        }
    }
}

impl From<wire::ImageRef> for model::ImageRef {
    fn from(image: wire::ImageRef) -> Self {
        let source =
            if image.in_cluster_store { model::PullSource::Cluster } else { model::PullSource::Registry };
        Self { name: image.name, digest: nonempty(image.digest), source }
    }
}

impl From<&model::ImageRef> for wire::ImageRef {
    fn from(image: &model::ImageRef) -> Self {
        Self {
            name: image.name.clone(),
            digest: image.digest.clone().unwrap_or_default(),
            in_cluster_store: image.source == model::PullSource::Cluster,
            no_resolve: image.digest.is_none(),
        }
    }
}

impl TryFrom<wire::Mount> for model::Mount {
    type Error = ConvertError;

    fn try_from(mount: wire::Mount) -> Result<Self, ConvertError> {
        let kind = match required("mount kind", mount.kind)? {
            wire::mount::Kind::BindSource(source) => model::MountKind::Bind { source },
            wire::mount::Kind::VolumeName(name) => model::MountKind::Volume { name },
            wire::mount::Kind::Tmpfs(tmpfs) => {
                model::MountKind::Tmpfs { size_bytes: nonzero(tmpfs.size_bytes) }
            }
        };
        Ok(Self { kind, target: mount.target, read_only: mount.read_only })
    }
}

impl From<&model::Mount> for wire::Mount {
    fn from(mount: &model::Mount) -> Self {
        let kind = match &mount.kind {
            model::MountKind::Bind { source } => wire::mount::Kind::BindSource(source.clone()),
            model::MountKind::Volume { name } => wire::mount::Kind::VolumeName(name.clone()),
            model::MountKind::Tmpfs { size_bytes } => {
                wire::mount::Kind::Tmpfs(wire::mount::Tmpfs { size_bytes: size_bytes.unwrap_or(0) })
            }
        };
        Self { target: mount.target.clone(), read_only: mount.read_only, kind: Some(kind) }
    }
}

impl From<wire::Resources> for model::Resources {
    fn from(resources: wire::Resources) -> Self {
        Self { cpu_nanos: resources.cpu_nanos, memory_bytes: resources.memory_bytes }
    }
}

impl From<model::Resources> for wire::Resources {
    fn from(resources: model::Resources) -> Self {
        Self { cpu_nanos: resources.cpu_nanos, memory_bytes: resources.memory_bytes }
    }
}

fn restart_policy(policy: wire::RestartPolicy) -> Result<model::RestartPolicy, ConvertError> {
    use wire::restart_policy::Condition;
    let defaults = model::RestartPolicy::default();
    let condition =
        Condition::try_from(policy.condition).map_err(|_| invalid("restart condition", policy.condition))?;
    Ok(model::RestartPolicy {
        condition: match condition {
            Condition::Unspecified => defaults.condition,
            Condition::Any => model::RestartCondition::Any,
            Condition::OnFailure => model::RestartCondition::OnFailure,
            Condition::None => model::RestartCondition::None,
        },
        delay: policy.delay_micros.map_or(defaults.delay, Duration::from_micros),
        max_attempts: policy.max_attempts,
        window: Duration::from_micros(policy.window_micros),
    })
}

impl From<&model::RestartPolicy> for wire::RestartPolicy {
    fn from(policy: &model::RestartPolicy) -> Self {
        use wire::restart_policy::Condition;
        let condition = match policy.condition {
            model::RestartCondition::Any => Condition::Any,
            model::RestartCondition::OnFailure => Condition::OnFailure,
            model::RestartCondition::None => Condition::None,
        };
        Self {
            condition: condition as i32,
            delay_micros: Some(micros(policy.delay)),
            max_attempts: policy.max_attempts,
            window_micros: micros(policy.window),
        }
    }
}

impl TryFrom<wire::Placement> for model::Placement {
    type Error = ConvertError;

    fn try_from(placement: wire::Placement) -> Result<Self, ConvertError> {
        let constraints = placement.constraints.iter().map(|text| model::Constraint::parse(text));
        let preferences = placement.preferences.iter().map(|text| model::SpreadBy::parse(text));
        Ok(Self {
            constraints: constraints.collect::<Result<_, _>>().map_err(SpecError::Constraint)?,
            preferences: preferences.collect::<Result<_, _>>().map_err(SpecError::Constraint)?,
            max_replicas_per_node: Some(placement.max_replicas_per_node).filter(|limit| *limit != 0),
            platforms: placement.platforms.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<&model::Placement> for wire::Placement {
    fn from(placement: &model::Placement) -> Self {
        Self {
            constraints: placement.constraints.iter().map(ToString::to_string).collect(),
            preferences: placement.preferences.iter().map(ToString::to_string).collect(),
            max_replicas_per_node: placement.max_replicas_per_node.unwrap_or(0),
            platforms: placement.platforms.iter().map(Into::into).collect(),
        }
    }
}

impl From<wire::Platform> for model::Platform {
    fn from(platform: wire::Platform) -> Self {
        Self { os: platform.os.to_ascii_lowercase(), arch: Self::canonical_arch(&platform.arch) }
    }
}

impl From<&model::Platform> for wire::Platform {
    fn from(platform: &model::Platform) -> Self {
        Self { os: platform.os.clone(), arch: platform.arch.clone() }
    }
}

pub(super) fn protocol(number: i32) -> Result<model::Protocol, ConvertError> {
    use wire::port_spec::Protocol;
    match Protocol::try_from(number).map_err(|_| invalid("protocol", number))? {
        Protocol::Unspecified | Protocol::Tcp => Ok(model::Protocol::Tcp),
        Protocol::Udp => Ok(model::Protocol::Udp),
    }
}

pub(super) fn wire_protocol(protocol: model::Protocol) -> i32 {
    use wire::port_spec::Protocol;
    match protocol {
        model::Protocol::Tcp => Protocol::Tcp as i32,
        model::Protocol::Udp => Protocol::Udp as i32,
    }
}

impl TryFrom<wire::PortSpec> for model::PortSpec {
    type Error = ConvertError;

    fn try_from(spec: wire::PortSpec) -> Result<Self, ConvertError> {
        use wire::port_spec::Mode;
        Ok(Self {
            protocol: protocol(spec.protocol)?,
            mode: match Mode::try_from(spec.mode).map_err(|_| invalid("port mode", spec.mode))? {
                Mode::Unspecified | Mode::Ingress => model::PortMode::Ingress,
                Mode::Host => model::PortMode::Host,
            },
            target: port("target port", spec.target)?,
            published: Some(port("published port", spec.published)?).filter(|port| *port != 0),
        })
    }
}

impl From<&model::PortSpec> for wire::PortSpec {
    fn from(spec: &model::PortSpec) -> Self {
        use wire::port_spec::Mode;
        let mode = match spec.mode {
            model::PortMode::Ingress => Mode::Ingress,
            model::PortMode::Host => Mode::Host,
        };
        Self {
            protocol: wire_protocol(spec.protocol),
            mode: mode as i32,
            target: spec.target.into(),
            published: spec.published.unwrap_or(0).into(),
        }
    }
}

fn update_policy(
    policy: wire::UpdatePolicy,
    default_action: model::FailureAction,
) -> Result<model::UpdatePolicy, ConvertError> {
    use wire::update_policy::{FailureAction, Order};
    let defaults = model::UpdatePolicy::default();
    if !(0.0..=1.0).contains(&policy.max_failure_ratio) {
        return Err(invalid("max-failure-ratio", policy.max_failure_ratio));
    }
    let action = FailureAction::try_from(policy.failure_action)
        .map_err(|_| invalid("failure-action", policy.failure_action))?;
    let order = Order::try_from(policy.order).map_err(|_| invalid("order", policy.order))?;
    Ok(model::UpdatePolicy {
        parallelism: policy.parallelism.unwrap_or(defaults.parallelism),
        delay: Duration::from_micros(policy.delay_micros),
        failure_action: match action {
            FailureAction::Unspecified => default_action,
            FailureAction::Pause => model::FailureAction::Pause,
            FailureAction::Continue => model::FailureAction::Continue,
            FailureAction::Rollback => model::FailureAction::Rollback,
        },
        monitor: policy.monitor_micros.map_or(defaults.monitor, Duration::from_micros),
        // In 0..=1 by the check above, so the product fits.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
        max_failure_ratio_millionths: (policy.max_failure_ratio * MILLIONTHS).round() as u32,
        order: match order {
            Order::Unspecified => None,
            Order::StopFirst => Some(model::UpdateOrder::StopFirst),
            Order::StartFirst => Some(model::UpdateOrder::StartFirst),
        },
    })
}

impl From<&model::UpdatePolicy> for wire::UpdatePolicy {
    fn from(policy: &model::UpdatePolicy) -> Self {
        use wire::update_policy::{FailureAction, Order};
        let action = match policy.failure_action {
            model::FailureAction::Pause => FailureAction::Pause,
            model::FailureAction::Continue => FailureAction::Continue,
            model::FailureAction::Rollback => FailureAction::Rollback,
        };
        let order = match policy.order {
            None => Order::Unspecified,
            Some(model::UpdateOrder::StopFirst) => Order::StopFirst,
            Some(model::UpdateOrder::StartFirst) => Order::StartFirst,
        };
        Self {
            parallelism: Some(policy.parallelism),
            delay_micros: micros(policy.delay),
            failure_action: action as i32,
            monitor_micros: Some(micros(policy.monitor)),
            max_failure_ratio: f64::from(policy.max_failure_ratio_millionths) / MILLIONTHS,
            order: order as i32,
        }
    }
}

/// Specs are shared by many tasks.
pub(super) fn shared(spec: wire::TaskSpec) -> Result<Arc<model::TaskSpec>, ConvertError> {
    spec.try_into().map(Arc::new)
}
