//! Objects of the simulated cluster: nodes, and services that an operator might think of.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use swarm_manager_core::api::{CreateCluster, NewNode};
use swarm_model::{
    ClusterId, Constraint, ContainerSpec, EngineDescription, FailureAction, ImageRef, JoinSecrets, Limits,
    NodeId, NodeRole, Placement, Platform, PortMode, PortSpec, Protocol, PullSource, Resources,
    RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateOrder, UpdatePolicy,
};

use super::dice::Dice;
use super::runtime::Behaviour;

pub const CLUSTER: ClusterId = ClusterId::from_u128(7);

/// Ids of nodes rise with every node that ever joins.
pub fn node_id(number: usize) -> NodeId {
    NodeId::from_u128(1 + number as u128)
}

pub fn address(host: usize) -> String {
    format!("host-{host}:2377")
}

/// The host behind an address.
pub fn host_at(address: &str) -> Option<usize> {
    address.strip_prefix("host-")?.strip_suffix(":2377")?.parse().ok()
}

/// `host`: the machine; `number`: of the node, which a machine that joins again has anew.
pub fn engine(host: usize) -> EngineDescription {
    let zone = if host.is_multiple_of(2) { "even" } else { "odd" };
    EngineDescription {
        hostname: format!("host-{host}"),
        platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
        resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: (4 + host as u64 % 3) << 30 },
        labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
        data_address: Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 0, 1)) + host as u32),
        version: "0.1.0".to_owned(),
    }
}

pub fn new_node(host: usize, number: usize, manager: bool) -> NewNode {
    NewNode {
        id: node_id(number),
        role: if manager { NodeRole::Manager } else { NodeRole::Worker },
        engine: engine(host),
        manager_address: manager.then(|| address(host)),
    }
}

pub fn create_cluster(node: NewNode) -> CreateCluster {
    CreateCluster {
        id: CLUSTER,
        root_certificate: "certificate".to_owned(),
        root_key: "key".to_owned(),
        join: JoinSecrets { worker: "w".repeat(25), manager: "m".repeat(25) },
        gateway_pool: "10.192.0.0/10".parse().expect("it is a block"),
        heartbeat_ms: 1_000,
        node,
    }
}

/// Services whose name begins so come up whenever they fit, and are there at the end.
pub const STEADY: &str = "steady";

pub fn is_steady(spec: &ServiceSpec) -> bool {
    spec.name.starts_with(STEADY)
}

/// A service that behaves, or one that does anything.
pub fn service(dice: &mut Dice, number: u32) -> ServiceSpec {
    let steady = dice.per_mille(650);
    let name = if steady { format!("{STEADY}-{number}") } else { format!("wild-{number}") };
    let mut spec = plain(&name, dice.number(0..6) as u32);
    spec.task.reservations.memory_bytes = [0, 0, 256 << 20, 1 << 30][dice.below(4)];
    match dice.below(8) {
        0..=2 => spec.ports = vec![port(None, PortMode::Ingress)],
        3 => spec.ports = vec![port(Some(8_000 + dice.number(0..6) as u16), PortMode::Ingress)],
        4 => spec.ports = vec![port(Some(443), PortMode::Host)],
        _ => {}
    }
    spec.task.placement.constraints = match dice.below(6) {
        0 => vec![constraint("engine.labels.zone==even")],
        1 => vec![constraint("node.labels.tier!=gold")],
        2 => vec![constraint("node.role==worker")],
        _ => Vec::new(),
    };
    spec.task.placement.max_replicas_per_node = dice.per_mille(200).then(|| 1 + dice.number(0..2) as u32);
    spec.update = update(dice);
    spec.task.restart.delay = Duration::from_millis([0, 50, 100][dice.below(3)]);
    if steady {
        spec.task.container.args = good(dice).arguments();
    } else {
        spec.task.container.args = any(dice).arguments();
        spec.task.restart.max_attempts = dice.number(0..4);
        spec.task.restart.condition =
            [RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None][dice.below(3)];
    }
    spec
}

fn update(dice: &mut Dice) -> UpdatePolicy {
    UpdatePolicy {
        parallelism: dice.number(0..4),
        delay: Duration::from_millis([0, 0, 300][dice.below(3)]),
        monitor: Duration::from_millis([50, 200, 1_000][dice.below(3)]),
        failure_action: [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback]
            [dice.below(3)],
        max_failure_ratio_millionths: [0, 0, 500_000][dice.below(3)],
        order: [None, Some(UpdateOrder::StopFirst), Some(UpdateOrder::StartFirst)][dice.below(3)],
    }
}

pub fn good(dice: &mut Dice) -> Behaviour {
    [Behaviour::Serves, Behaviour::Serves, Behaviour::FlakyImage, Behaviour::IgnoresStop][dice.below(4)]
}

fn any(dice: &mut Dice) -> Behaviour {
    match dice.below(6) {
        0 => Behaviour::Exits { code: 1, after: dice.millis(1..3_000) },
        1 => Behaviour::Exits { code: 0, after: dice.millis(1..3_000) },
        2 => Behaviour::CannotBePrepared,
        3 => Behaviour::CannotStart,
        _ => good(dice),
    }
}

/// A change that an operator makes to a service.
pub fn change(dice: &mut Dice, spec: &mut ServiceSpec) {
    match dice.below(6) {
        0 | 1 => spec.mode = ServiceMode::Replicated { replicas: dice.number(0..7) as u32 },
        2 | 3 => spec.task.force_update += 1,
        4 => {
            let behaviour = if is_steady(spec) { good(dice) } else { any(dice) };
            spec.task.container.args = behaviour.arguments();
            spec.task.container.image.name = format!("docker.io/library/web:{}", dice.number(0..1_000));
        }
        _ => spec.update = update(dice),
    }
}

pub fn plain(name: &str, replicas: u32) -> ServiceSpec {
    let container = ContainerSpec {
        image: ImageRef {
            name: "docker.io/library/web:1".to_owned(),
            digest: None,
            source: PullSource::Cluster,
        },
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
        stop_grace_period: Duration::from_secs(1),
    };
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas },
        task: TaskSpec {
            container,
            limits: Limits::default(),
            reservations: Resources::default(),
            restart: RestartPolicy { delay: Duration::from_millis(100), ..RestartPolicy::default() },
            placement: Placement::default(),
            force_update: 0,
        },
        ports: Vec::new(),
        update: UpdatePolicy { monitor: Duration::from_millis(200), ..UpdatePolicy::default() },
        rollback: UpdatePolicy { failure_action: FailureAction::Pause, ..UpdatePolicy::default() },
    }
}

fn port(published: Option<u16>, mode: PortMode) -> PortSpec {
    PortSpec { protocol: Protocol::Tcp, mode, target: 80, published }
}

fn constraint(text: &str) -> Constraint {
    Constraint::parse(text).expect("it is one")
}
