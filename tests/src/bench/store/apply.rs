//! The log of a cluster full of placed tasks, applied again from its beginning, as a manager does after a crash.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use swarm_manager_core::api::{CreateCluster, NewNode, Request, Response};
use swarm_manager_core::door::{Event, SessionId};
use swarm_model::{
    ClusterId, EngineDescription, JoinSecrets, NodeId, NodeRole, Platform, Registration, Resources,
    ServiceSpec, Task,
};
use swarm_proto::v1;

use super::world::World;

const TASKS_PER_SERVICE: u32 = 1_000;

pub struct Applied {
    /// Tasks, services and nodes, each written once.
    pub objects: u64,
    pub entries: usize,
    pub bytes: u64,
    pub replay: Duration,
}

impl Applied {
    pub fn bytes_text(&self) -> String {
        format!("{:.1} MiB", self.bytes as f64 / f64::from(1 << 20))
    }
}

/// # Errors
/// A task has no node, or the store that was rebuilt differs from the first one.
pub fn measure(nodes: u32, services: u32) -> anyhow::Result<Applied> {
    let mut world = World::start(super::world::Log::default())?;
    world.ask(Request::CreateCluster(Box::new(cluster())))?;
    for number in 2..=nodes {
        world.ask(Request::AdmitNode(node(number)))?;
    }
    for number in 1..=nodes {
        let (node, engine) = (node(number).id, engine(number));
        let session = SessionId(number.into());
        let registration = Registration { engine, statuses: Vec::new() };
        world.event(Event::SessionOpened { session, node, registration });
    }
    for number in 0..services {
        world.ask(Request::CreateService { spec: Arc::new(service(number)?), request_id: None })?;
    }
    let expected = tasks(&mut world)?;
    ensure!(expected.len() as u64 == u64::from(services) * u64::from(TASKS_PER_SERVICE), "tasks are missing");
    ensure!(expected.iter().all(|task| task.node.is_some()), "a task has no node");

    let log = world.into_log();
    let (entries, bytes) = (log.entries.len(), log.bytes());
    let objects = expected.len() as u64 + u64::from(services) + u64::from(nodes);
    let started = Instant::now();
    let mut rebuilt = World::start(log)?;
    let replay = started.elapsed();
    ensure!(tasks(&mut rebuilt)? == expected, "the rebuilt store differs");
    Ok(Applied { objects, entries, bytes, replay })
}

fn tasks(world: &mut World) -> anyhow::Result<Vec<Arc<Task>>> {
    match world.ask(Request::ListTasks { service: None, node: None })? {
        Response::Tasks(tasks) => Ok(tasks.into_iter().map(|view| view.task).collect()),
        other => anyhow::bail!("ListTasks was answered by {other:?}"),
    }
}

fn cluster() -> CreateCluster {
    CreateCluster {
        id: ClusterId::from_u128(1),
        root_certificate: String::new(),
        root_key: String::new(),
        join: JoinSecrets { worker: String::new(), manager: String::new() },
        gateway_pool: "10.192.0.0/10".parse().expect("a network"),
        heartbeat_ms: 1_000,
        node: node(1),
    }
}

fn node(number: u32) -> NewNode {
    NewNode {
        id: NodeId::from_u128(number.into()),
        role: if number == 1 { NodeRole::Manager } else { NodeRole::Worker },
        engine: engine(number),
        manager_address: None,
    }
}

fn engine(number: u32) -> EngineDescription {
    EngineDescription {
        hostname: format!("node-{number}"),
        platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
        resources: Resources { cpu_nanos: 64_000_000_000, memory_bytes: 256 << 30 },
        labels: std::collections::BTreeMap::new(),
        data_address: std::net::Ipv4Addr::from(u32::from_be_bytes([10, 0, 0, 0]) + number),
        version: "bench".to_owned(),
    }
}

/// As an operator's spec comes in.
fn service(number: u32) -> anyhow::Result<ServiceSpec> {
    let image = v1::ImageRef { name: "docker.io/shop/web:1".to_owned(), ..Default::default() };
    let container = v1::ContainerSpec {
        image: Some(image),
        env: vec!["MODE=production".to_owned()],
        ..Default::default()
    };
    let replicated = v1::service_mode::Replicated { replicas: TASKS_PER_SERVICE };
    let spec = v1::ServiceSpec {
        name: format!("service-{number}"),
        mode: Some(v1::ServiceMode { mode: Some(v1::service_mode::Mode::Replicated(replicated)) }),
        task: Some(v1::TaskSpec { container: Some(container), ..Default::default() }),
        ..Default::default()
    };
    spec.try_into().context("the benchmark's own spec")
}
