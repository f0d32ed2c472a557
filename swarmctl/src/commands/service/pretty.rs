//! `service inspect --pretty`.

use swarm_proto::v1;

use super::object::{failure_action, order, restart_condition, update_state};
use crate::output::{ago, cpu, joined, memory};

pub fn show(service: &v1::Service) {
    let spec = service.spec.clone().unwrap_or_default();
    println!("ID:             {}", service.id);
    println!("Name:           {}", spec.name);
    line("Labels", &joined(&spec.labels));
    println!("Mode:           replicated, {} of {} running", service.running_tasks, service.desired_tasks);
    println!(
        "Revision:       {} (created {})",
        service.revision,
        ago(service.meta.map_or(0, |meta| meta.created_at))
    );
    if let Some(update) = &service.update {
        println!("Update:         {} (started {})", update_state(update), ago(update.started_at));
        line(" Message", &update.message);
    }
    let task = spec.task.clone().unwrap_or_default();
    container(&task.container.clone().unwrap_or_default());
    resources(&task);
    let restart = task.restart.unwrap_or_default();
    let attempts =
        if restart.max_attempts == 0 { "no limit".to_owned() } else { restart.max_attempts.to_string() };
    println!(
        "Restart:        {}, delay {}, attempts: {attempts}",
        restart_condition(restart.condition()),
        seconds(restart.delay_micros.unwrap_or(0))
    );
    let placement = task.placement.unwrap_or_default();
    line("Constraints", &placement.constraints.join(", "));
    line("Preferences", &placement.preferences.join(", "));
    policy("UpdateConfig", spec.update.as_ref());
    policy("RollbackConfig", spec.rollback.as_ref());
    line("Ports", &service.ports.iter().map(super::port).collect::<Vec<_>>().join(", "));
    println!();
}

fn container(container: &v1::ContainerSpec) {
    let image = container.image.clone().unwrap_or_default();
    println!("Image:          {}", super::short_image(&image.name));
    line(" Digest", &image.digest);
    line("Entrypoint", &container.entrypoint.join(" "));
    line("Args", &container.args.join(" "));
    line("Env", &container.env.join(" "));
    line("Dir", &container.workdir);
    line("User", &container.user);
    for mount in &container.mounts {
        println!("Mount:          {}{}", mount.target, if mount.read_only { " (read-only)" } else { "" });
    }
}

fn resources(task: &v1::TaskSpec) {
    let amounts = |nanos: u64, bytes: u64| {
        let cpus = (nanos > 0).then(|| format!("{} CPUs", cpu(nanos)));
        let memory = (bytes > 0).then(|| memory(bytes));
        cpus.into_iter().chain(memory).collect::<Vec<_>>().join(", ")
    };
    let limits = task.limits.unwrap_or_default();
    let reservations = task.reservations.unwrap_or_default();
    line("Limits", &amounts(limits.cpu_nanos, limits.memory_bytes));
    line("Reservations", &amounts(reservations.cpu_nanos, reservations.memory_bytes));
}

fn policy(name: &str, policy: Option<&v1::UpdatePolicy>) {
    let Some(policy) = policy else { return };
    let order = match order(policy) {
        "" => "start-first where possible",
        order => order,
    };
    println!(
        "{:<16}parallelism {}, {order}, monitor {}, on failure {} (ratio {})",
        format!("{name}:"),
        policy.parallelism.unwrap_or(1),
        seconds(policy.monitor_micros.unwrap_or(0)),
        failure_action(policy),
        policy.max_failure_ratio
    );
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn seconds(micros: u64) -> String {
    format!("{}s", micros as f64 / 1e6)
}

fn line(name: &str, value: &str) {
    if !value.is_empty() {
        println!("{:<16}{value}", format!("{name}:"));
    }
}
