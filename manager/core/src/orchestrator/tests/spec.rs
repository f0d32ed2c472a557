//! Service specs from words: `replicas=3 image=v2 parallelism=2 order=stop-first …`.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::{
    ContainerSpec, FailureAction, ImageRef, Limits, Mount, MountKind, Placement, PortMode, PortSpec,
    Protocol, PullSource, Resources, RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec,
    UpdateOrder, UpdatePolicy,
};

pub fn plain(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        task: TaskSpec {
            container: container(),
            limits: Limits::default(),
            reservations: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            force_update: 0,
        },
        ports: Vec::new(),
        update: UpdatePolicy::default(),
        rollback: UpdatePolicy { failure_action: FailureAction::Pause, ..UpdatePolicy::default() },
    }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        image: ImageRef { name: "v1".to_owned(), digest: None, source: PullSource::Cluster },
        entrypoint: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        workdir: None,
        user: None,
        groups: Vec::new(),
        hostname: None,
        hosts: Vec::new(),
        labels: BTreeMap::new(),
        mounts: Vec::new(),
        read_only: false,
        init: false,
        tty: false,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        sysctls: BTreeMap::new(),
        ulimits: Vec::new(),
        stop_signal: None,
        stop_grace_period: Duration::from_secs(10),
    }
}

/// Changes a spec by one `key=value`.
pub fn set(spec: &mut ServiceSpec, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    if let Some(key) = key.strip_prefix("rollback.") {
        return set_policy(&mut spec.rollback, key, value);
    }
    let restart = &mut spec.task.restart;
    match key {
        "replicas" => spec.mode = ServiceMode::Replicated { replicas: value.parse().unwrap() },
        "image" => spec.task.container.image.name = value.to_owned(),
        "force" => spec.task.force_update += 1,
        "memory" => spec.task.limits.memory_bytes = Some(value.parse::<u64>().unwrap() << 20),
        "platform" => spec.task.placement.max_replicas_per_node = Some(value.parse().unwrap()),
        "volume" => spec.task.container.mounts.push(Mount {
            kind: MountKind::Volume { name: value.to_owned() },
            target: "/data".to_owned(),
            read_only: false,
        }),
        "host-port" => spec.ports.push(PortSpec {
            protocol: Protocol::Tcp,
            mode: PortMode::Host,
            target: 80,
            published: Some(value.parse().unwrap()),
        }),
        "restart" => {
            restart.condition = match value {
                "any" => RestartCondition::Any,
                "on-failure" => RestartCondition::OnFailure,
                "none" => RestartCondition::None,
                other => panic!("restart condition {other}"),
            }
        }
        "restart-delay" => restart.delay = duration(value),
        "max-attempts" => restart.max_attempts = value.parse().unwrap(),
        "window" => restart.window = duration(value),
        key => set_policy(&mut spec.update, key, value),
    }
}

fn set_policy(policy: &mut UpdatePolicy, key: &str, value: &str) {
    match key {
        "parallelism" => policy.parallelism = value.parse().unwrap(),
        "delay" => policy.delay = duration(value),
        "monitor" => policy.monitor = duration(value),
        "max-failures" => {
            let percent: u32 = value.strip_suffix('%').unwrap().parse().unwrap();
            policy.max_failure_ratio_millionths = percent * 10_000;
        }
        "action" => {
            policy.failure_action = match value {
                "pause" => FailureAction::Pause,
                "continue" => FailureAction::Continue,
                "rollback" => FailureAction::Rollback,
                other => panic!("failure action {other}"),
            }
        }
        "order" => {
            policy.order = match value {
                "stop-first" => Some(UpdateOrder::StopFirst),
                "start-first" => Some(UpdateOrder::StartFirst),
                other => panic!("order {other}"),
            }
        }
        other => panic!("no part of a spec is called {other}"),
    }
}

pub fn duration(text: &str) -> Duration {
    let split = text.find(|c: char| c.is_alphabetic()).expect("a duration has a unit");
    let number: u64 = text[..split].parse().unwrap();
    Duration::from_millis(match &text[split..] {
        "ms" => number,
        "s" => number * 1_000,
        "m" => number * 60_000,
        "h" => number * 3_600_000,
        unit => panic!("unit {unit}"),
    })
}
