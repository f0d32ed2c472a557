//! Objects that scenarios start from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{CreateCluster, NewNode};
use swarm_model::{
    ClusterId, ContainerSpec, EngineDescription, FailureAction, ImageRef, JoinSecrets, Limits, NodeId,
    NodeRole, Placement, Platform, PortMode, PortSpec, Protocol, PullSource, Resources, RestartPolicy,
    ServiceMode, ServiceSpec, TaskSpec, UpdatePolicy,
};

pub fn node_id(index: usize) -> NodeId {
    NodeId::from_u128(1 + index as u128)
}

pub fn new_node(index: usize, manager: bool) -> NewNode {
    NewNode {
        id: node_id(index),
        role: if manager { NodeRole::Manager } else { NodeRole::Worker },
        engine: EngineDescription {
            hostname: format!("host-{index}"),
            platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
            resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30 },
            labels: BTreeMap::new(),
            data_address: Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 0, 1)) + index as u32),
            version: "0.1.0".to_owned(),
        },
        manager_address: manager.then(|| format!("192.168.0.{}:2377", index + 1)),
    }
}

pub fn create_cluster(node: NewNode) -> CreateCluster {
    CreateCluster {
        id: ClusterId::from_u128(7),
        root_certificate: "certificate".to_owned(),
        root_key: "key".to_owned(),
        join: JoinSecrets { worker: "w".repeat(25), manager: "m".repeat(25) },
        gateway_pool: "10.192.0.0/10".parse().expect("a block"),
        heartbeat_ms: 1_000,
        node,
    }
}

pub fn service(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas },
        task: TaskSpec {
            container: ContainerSpec {
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
                stop_grace_period: Duration::from_secs(10),
            },
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

pub fn port(published: Option<u16>, mode: PortMode) -> PortSpec {
    PortSpec { protocol: Protocol::Tcp, mode, target: 80, published }
}

/// The spec with another image tag.
pub fn with_image(spec: &ServiceSpec, tag: &str) -> Arc<ServiceSpec> {
    let mut spec = spec.clone();
    spec.task.container.image.name = format!("docker.io/library/web:{tag}");
    Arc::new(spec)
}

pub fn with_replicas(spec: &ServiceSpec, replicas: u32) -> Arc<ServiceSpec> {
    Arc::new(ServiceSpec { mode: ServiceMode::Replicated { replicas }, ..spec.clone() })
}
