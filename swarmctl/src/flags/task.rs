//! The flags that set one value, and mean the same on creation and on update.

use std::time::Duration;

use clap::{Args, ValueEnum};
use swarm_proto::v1;

use crate::parse;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Condition {
    Any,
    OnFailure,
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Action {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Order {
    StopFirst,
    StartFirst,
}

#[derive(Debug, Default, Args)]
pub struct TaskFlags {
    /// Number of tasks
    #[arg(long)]
    pub replicas: Option<u32>,
    /// Most tasks per node (0: no limit)
    #[arg(long, value_name = "N")]
    replicas_max_per_node: Option<u32>,
    /// Entrypoint instead of the image's
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, as uid[:gid] or name[:group]
    #[arg(short, long)]
    user: Option<String>,
    /// Host name in the container
    #[arg(long)]
    hostname: Option<String>,
    /// Most CPUs, as 0.5
    #[arg(long, value_parser = parse::cpus, value_name = "CPUS")]
    limit_cpu: Option<u64>,
    /// Most memory, as 512m
    #[arg(long, value_parser = parse::bytes, value_name = "BYTES")]
    limit_memory: Option<u64>,
    /// Most processes (0: the default)
    #[arg(long, value_name = "N")]
    limit_pids: Option<u64>,
    /// CPUs set aside on the node
    #[arg(long, value_parser = parse::cpus, value_name = "CPUS")]
    reserve_cpu: Option<u64>,
    /// Memory set aside on the node
    #[arg(long, value_parser = parse::bytes, value_name = "BYTES")]
    reserve_memory: Option<u64>,
    /// When a task that ended is replaced [default: any]
    #[arg(long, value_enum)]
    pub restart_condition: Option<Condition>,
    /// Base of the back-off between restarts [default: 5s]
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    restart_delay: Option<Duration>,
    /// Restarts before giving up (0: no limit)
    #[arg(long, value_name = "N")]
    restart_max_attempts: Option<u64>,
    /// Time in which attempts are counted
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    restart_window: Option<Duration>,
    /// Tasks updated at the same time (0: all) [default: 1]
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u64>,
    /// Pause between updates
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    update_delay: Option<Duration>,
    /// What a failed update does [default: rollback]
    #[arg(long, value_enum)]
    update_failure_action: Option<Action>,
    /// How long a new task is watched [default: 5s]
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    update_monitor: Option<Duration>,
    /// Share of failures that is tolerated, 0 to 1
    #[arg(long, value_name = "RATIO")]
    update_max_failure_ratio: Option<f64>,
    /// [default: start-first, unless the service has a volume, a host port or a limit of replicas per node]
    #[arg(long, value_enum)]
    update_order: Option<Order>,
    /// Tasks rolled back at the same time (0: all) [default: 1]
    #[arg(long, value_name = "N")]
    rollback_parallelism: Option<u64>,
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    rollback_delay: Option<Duration>,
    /// What a failed rollback does [default: pause]
    #[arg(long, value_enum)]
    rollback_failure_action: Option<Action>,
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    rollback_monitor: Option<Duration>,
    #[arg(long, value_name = "RATIO")]
    rollback_max_failure_ratio: Option<f64>,
    #[arg(long, value_enum)]
    rollback_order: Option<Order>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time before it is killed [default: 10s]
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    stop_grace_period: Option<Duration>,
    /// Run a minimal init as process 1 of the container
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    init: Option<bool>,
    /// Make the root file system read-only
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    read_only: Option<bool>,
    /// Do not ask the registry for the image's digest
    #[arg(long)]
    pub no_resolve_image: bool,
}

impl TaskFlags {
    pub fn apply(&self, spec: &mut v1::ServiceSpec) {
        if let Some(replicas) = self.replicas {
            let replicated = v1::service_mode::Replicated { replicas };
            spec.mode = Some(v1::ServiceMode { mode: Some(v1::service_mode::Mode::Replicated(replicated)) });
        }
        self.apply_update(spec.update.get_or_insert_default());
        // A policy that nothing sets stays absent, so that the managers' default holds.
        let mut rollback = spec.rollback.unwrap_or_default();
        self.apply_rollback(&mut rollback);
        if spec.rollback.is_some() || rollback != v1::UpdatePolicy::default() {
            spec.rollback = Some(rollback);
        }
        let task = spec.task.get_or_insert_default();
        self.apply_resources(task);
        self.apply_restart(task.restart.get_or_insert_default());
        set(&mut task.placement.get_or_insert_default().max_replicas_per_node, self.replicas_max_per_node);
        self.apply_container(task.container.get_or_insert_default());
    }

    fn apply_resources(&self, task: &mut v1::TaskSpec) {
        let limits = task.limits.get_or_insert_default();
        set(&mut limits.cpu_nanos, self.limit_cpu);
        set(&mut limits.memory_bytes, self.limit_memory);
        set(&mut limits.pids, self.limit_pids);
        let reservations = task.reservations.get_or_insert_default();
        set(&mut reservations.cpu_nanos, self.reserve_cpu);
        set(&mut reservations.memory_bytes, self.reserve_memory);
    }

    fn apply_restart(&self, restart: &mut v1::RestartPolicy) {
        use v1::restart_policy::Condition as Wire;
        set(
            &mut restart.condition,
            self.restart_condition.map(|condition| match condition {
                Condition::Any => Wire::Any as i32,
                Condition::OnFailure => Wire::OnFailure as i32,
                Condition::None => Wire::None as i32,
            }),
        );
        set_some(&mut restart.delay_micros, self.restart_delay.map(micros));
        set(&mut restart.max_attempts, self.restart_max_attempts);
        set(&mut restart.window_micros, self.restart_window.map(micros));
    }

    fn apply_container(&self, container: &mut v1::ContainerSpec) {
        if let Some(entrypoint) = &self.entrypoint {
            container.entrypoint = words(entrypoint);
        }
        set(&mut container.workdir, self.workdir.clone());
        set(&mut container.user, self.user.clone());
        set(&mut container.hostname, self.hostname.clone());
        set(&mut container.stop_signal, self.stop_signal.clone());
        set_some(&mut container.stop_grace_micros, self.stop_grace_period.map(micros));
        set(&mut container.init, self.init);
        set(&mut container.read_only, self.read_only);
    }

    fn apply_update(&self, policy: &mut v1::UpdatePolicy) {
        set_some(&mut policy.parallelism, self.update_parallelism);
        set(&mut policy.delay_micros, self.update_delay.map(micros));
        set(&mut policy.failure_action, self.update_failure_action.map(action));
        set_some(&mut policy.monitor_micros, self.update_monitor.map(micros));
        set(&mut policy.max_failure_ratio, self.update_max_failure_ratio);
        set(&mut policy.order, self.update_order.map(order));
    }

    fn apply_rollback(&self, policy: &mut v1::UpdatePolicy) {
        set_some(&mut policy.parallelism, self.rollback_parallelism);
        set(&mut policy.delay_micros, self.rollback_delay.map(micros));
        set(&mut policy.failure_action, self.rollback_failure_action.map(action));
        set_some(&mut policy.monitor_micros, self.rollback_monitor.map(micros));
        set(&mut policy.max_failure_ratio, self.rollback_max_failure_ratio);
        set(&mut policy.order, self.rollback_order.map(order));
    }
}

/// Splits a command at white space; quotes keep words together.
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None | Some(_), c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn set_some<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn action(action: Action) -> i32 {
    use v1::update_policy::FailureAction;
    match action {
        Action::Pause => FailureAction::Pause as i32,
        Action::Continue => FailureAction::Continue as i32,
        Action::Rollback => FailureAction::Rollback as i32,
    }
}

fn order(order: Order) -> i32 {
    match order {
        Order::StopFirst => v1::update_policy::Order::StopFirst as i32,
        Order::StartFirst => v1::update_policy::Order::StartFirst as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_split_like_a_shells() {
        assert_eq!(words(r#"sh -c "echo 'a b'" ''"#), ["sh", "-c", "echo 'a b'", ""]);
        assert!(words("  ").is_empty());
    }
}
