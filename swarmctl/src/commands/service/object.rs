//! Services as JSON, in the shape that `docker service inspect` prints.

use serde_json::{Value, json};
use swarm_proto::v1;

use crate::output::rfc3339;

pub fn service_object(service: &v1::Service) -> Value {
    let spec = service.spec.clone().unwrap_or_default();
    let meta = service.meta.unwrap_or_default();
    json!({
        "ID": service.id,
        "Version": { "Index": meta.version },
        "CreatedAt": rfc3339(meta.created_at),
        "UpdatedAt": rfc3339(meta.updated_at),
        "Revision": service.revision,
        "Revisions": service.revisions,
        "Spec": {
            "Name": spec.name,
            "Labels": spec.labels,
            "TaskTemplate": spec.task.as_ref().map(task_object),
            "Mode": { "Replicated": { "Replicas": service.desired_tasks } },
            "UpdateConfig": spec.update.as_ref().map(policy),
            "RollbackConfig": spec.rollback.as_ref().map(policy),
            "EndpointSpec": { "Ports": spec.ports.iter().map(port).collect::<Vec<_>>() },
        },
        "Endpoint": { "Ports": service.ports.iter().map(port).collect::<Vec<_>>() },
        "ServiceStatus": { "RunningTasks": service.running_tasks, "DesiredTasks": service.desired_tasks },
        "UpdateStatus": service.update.as_ref().map(|update| json!({
            "State": update_state(update),
            "StartedAt": rfc3339(update.started_at),
            "CompletedAt": rfc3339(update.completed_at),
            "Message": update.message,
            "FromRevision": update.from_revision,
            "ToRevision": update.to_revision,
        })),
    })
}

pub fn task_object(task: &v1::TaskSpec) -> Value {
    let limits = task.limits.unwrap_or_default();
    let reservations = task.reservations.unwrap_or_default();
    let restart = task.restart.unwrap_or_default();
    let placement = task.placement.clone().unwrap_or_default();
    json!({
        "ContainerSpec": task.container.as_ref().map(container_object),
        "Resources": {
            "Limits": { "NanoCPUs": limits.cpu_nanos, "MemoryBytes": limits.memory_bytes, "Pids": limits.pids },
            "Reservations": { "NanoCPUs": reservations.cpu_nanos, "MemoryBytes": reservations.memory_bytes },
        },
        "RestartPolicy": {
            "Condition": restart_condition(restart.condition()),
            "Delay": nanos(restart.delay_micros.unwrap_or(0)),
            "MaxAttempts": restart.max_attempts,
            "Window": nanos(restart.window_micros),
        },
        "Placement": {
            "Constraints": placement.constraints,
            "Preferences": placement.preferences,
            "MaxReplicas": placement.max_replicas_per_node,
            "Platforms": placement.platforms.iter().map(|p| json!({ "Architecture": p.arch, "OS": p.os })).collect::<Vec<_>>(),
        },
        "ForceUpdate": task.force_update,
    })
}

fn container_object(container: &v1::ContainerSpec) -> Value {
    let image = container.image.clone().unwrap_or_default();
    let name = if image.digest.is_empty() { image.name } else { format!("{}@{}", image.name, image.digest) };
    json!({
        "Image": name,
        "Command": container.entrypoint,
        "Args": container.args,
        "Env": container.env,
        "Dir": container.workdir,
        "User": container.user,
        "Groups": container.groups,
        "Hostname": container.hostname,
        "Hosts": container.hosts.iter().map(|host| format!("{} {}", host.address, host.name)).collect::<Vec<_>>(),
        "Labels": container.labels,
        "Mounts": container.mounts.iter().map(mount).collect::<Vec<_>>(),
        "ReadOnly": container.read_only,
        "Init": container.init,
        "CapabilityAdd": container.cap_add,
        "CapabilityDrop": container.cap_drop,
        "Sysctls": container.sysctls,
        "Ulimits": container.ulimits.iter().map(|l| json!({ "Name": l.name, "Soft": l.soft, "Hard": l.hard })).collect::<Vec<_>>(),
        "StopSignal": container.stop_signal,
        "StopGracePeriod": nanos(container.stop_grace_micros.unwrap_or(0)),
    })
}

fn mount(mount: &v1::Mount) -> Value {
    use v1::mount::Kind;
    let (kind, source) = match &mount.kind {
        Some(Kind::BindSource(source)) => ("bind", source.as_str()),
        Some(Kind::VolumeName(name)) => ("volume", name.as_str()),
        Some(Kind::Tmpfs(_)) | None => ("tmpfs", ""),
    };
    json!({ "Type": kind, "Source": source, "Target": mount.target, "ReadOnly": mount.read_only })
}

fn port(port: &v1::PortSpec) -> Value {
    let protocol = if port.protocol() == v1::port_spec::Protocol::Udp { "udp" } else { "tcp" };
    let mode = if port.mode() == v1::port_spec::Mode::Host { "host" } else { "ingress" };
    json!({ "Protocol": protocol, "TargetPort": port.target, "PublishedPort": port.published, "PublishMode": mode })
}

fn policy(policy: &v1::UpdatePolicy) -> Value {
    json!({
        "Parallelism": policy.parallelism.unwrap_or(1),
        "Delay": nanos(policy.delay_micros),
        "FailureAction": failure_action(policy),
        "Monitor": nanos(policy.monitor_micros.unwrap_or(0)),
        "MaxFailureRatio": policy.max_failure_ratio,
        "Order": order(policy),
    })
}

/// Docker's JSON has durations in nanoseconds.
fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1_000)
}

pub fn restart_condition(condition: v1::restart_policy::Condition) -> &'static str {
    use v1::restart_policy::Condition;
    match condition {
        Condition::Unspecified | Condition::Any => "any",
        Condition::OnFailure => "on-failure",
        Condition::None => "none",
    }
}

pub fn failure_action(policy: &v1::UpdatePolicy) -> &'static str {
    use v1::update_policy::FailureAction;
    match policy.failure_action() {
        FailureAction::Unspecified => "",
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    }
}

pub fn order(policy: &v1::UpdatePolicy) -> &'static str {
    use v1::update_policy::Order;
    match policy.order() {
        Order::Unspecified => "",
        Order::StopFirst => "stop-first",
        Order::StartFirst => "start-first",
    }
}

pub fn update_state(update: &v1::UpdateStatus) -> String {
    update.state().as_str_name().trim_start_matches("STATE_").to_lowercase()
}
