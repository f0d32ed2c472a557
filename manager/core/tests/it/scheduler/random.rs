//! Random histories of a cluster: the index must place every task where a scan of everything would.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_manager_core::scheduler::{PlacedTask, PlacementRequest, Scheduler};
use swarm_model::{
    Availability, Constraint, EngineDescription, HostPort, Node, NodeId, NodeRole, NodeSpec, NodeState,
    Placement, Platform, Protocol, Resources, ServiceId, SpreadBy, TaskId, Timestamp,
};

use super::reference::{Held, Reference, matches};

/// What happens to the cluster.
#[derive(Debug, Clone)]
enum Step {
    Node {
        id: u8,
        zone: u8,
        rack: u8,
        ssd: bool,
        arm: bool,
        cpu: u8,
        memory: u8,
        availability: u8,
        state: u8,
    },
    RemoveNode {
        id: u8,
    },
    Plan {
        service: u8,
        shape: Shape,
        tasks: u8,
    },
    AddTask {
        service: u8,
        revision: u8,
        node: u8,
        cpu: u8,
        memory: u8,
        port: Option<u16>,
    },
    /// The n-th of the tasks there are.
    RemoveTask {
        nth: u16,
    },
    RemoveTasksOf {
        node: u8,
    },
    Fail {
        service: u8,
        revision: u8,
        node: u8,
        times: u8,
    },
    Pass {
        seconds: u16,
    },
}

#[derive(Debug, Clone)]
struct Shape {
    cpu: u8,
    memory: u8,
    constraint: u8,
    spread: u8,
    arm: bool,
    port: Option<u16>,
    max: Option<u32>,
    revision: u8,
}

const NODES: u8 = 12;

fn step() -> impl Strategy<Value = Step> {
    let id = || 1..=NODES;
    let node = (id(), 0..4u8, 0..3u8, any::<bool>(), prop::bool::weighted(0.1), 0..9u8, 0..9u8);
    // Most nodes are there for work.
    let standing = (prop_oneof![6 => Just(0u8), 1 => 1..3u8], prop_oneof![8 => Just(0u8), 1 => 1..3u8]);
    let port = || prop::option::weighted(0.15, 80..82u16);
    let shape = (
        0..3u8,
        0..3u8,
        0..5u8,
        0..5u8,
        prop::bool::weighted(0.1),
        port(),
        prop::option::weighted(0.2, 0..4u32),
        1..3u8,
    )
        .prop_map(|(cpu, memory, constraint, spread, arm, port, max, revision)| Shape {
            cpu,
            memory,
            constraint,
            spread,
            arm,
            port,
            max,
            revision,
        });
    prop_oneof![
        5 => (node, standing).prop_map(|((id, zone, rack, ssd, arm, cpu, memory), (availability, state))|
            Step::Node { id, zone, rack, ssd, arm, cpu, memory, availability, state }),
        1 => id().prop_map(|id| Step::RemoveNode { id }),
        8 => (1..5u8, shape, 1..14u8).prop_map(|(service, shape, tasks)| Step::Plan { service, shape, tasks }),
        2 => (1..5u8, 1..3u8, 1..=NODES + 1, 0..3u8, 0..3u8, port())
            .prop_map(|(service, revision, node, cpu, memory, port)|
                Step::AddTask { service, revision, node, cpu, memory, port }),
        4 => any::<u16>().prop_map(|nth| Step::RemoveTask { nth }),
        1 => id().prop_map(|node| Step::RemoveTasksOf { node }),
        1 => (1..5u8, 1..3u8, id(), 1..8u8)
            .prop_map(|(service, revision, node, times)| Step::Fail { service, revision, node, times }),
        1 => (0..400u16).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// The index and the reference, fed with the same history.
#[derive(Default)]
struct Twins {
    scheduler: Scheduler,
    reference: Reference,
    now: Timestamp,
    tasks_made: u128,
    /// What was refused, and the capacity generation then.
    refused: Vec<(u64, u8, Shape)>,
}

impl Twins {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Node { .. } => self.node(&step),
            Step::RemoveNode { id } => {
                self.scheduler.remove_node(node_id(id));
                self.reference.nodes.remove(&node_id(id));
            }
            Step::Plan { service, shape, tasks } => self.plan(service, shape, tasks),
            Step::AddTask { service, revision, node, cpu, memory, port } => {
                self.add((service, revision), node, cpu, memory, port);
            }
            Step::RemoveTask { nth } => {
                let count = self.reference.tasks.len().max(1);
                if let Some(id) = self.reference.tasks.keys().nth(usize::from(nth) % count).copied() {
                    self.remove(id);
                }
            }
            Step::RemoveTasksOf { node } => {
                let on = |held: &Held| held.node == node_id(node);
                let tasks = self.reference.tasks.iter().filter(|(_, held)| on(held));
                tasks.map(|(id, _)| *id).collect::<Vec<_>>().into_iter().for_each(|id| self.remove(id));
            }
            Step::Fail { service, revision, node, times } => {
                for _ in 0..times {
                    let subject = (service_id(service), u64::from(revision), node_id(node), self.now);
                    self.scheduler.record_failure(subject.0, subject.1, subject.2, subject.3);
                    self.reference.failures.push(subject);
                }
            }
            Step::Pass { seconds } => {
                self.now = self.now + std::time::Duration::from_secs(seconds.into());
            }
        }
    }

    fn node(&mut self, step: &Step) {
        let Step::Node { id, zone, rack, ssd, arm, cpu, memory, availability, state } = *step else { return };
        let mut labels = BTreeMap::new();
        if zone > 0 {
            labels.insert("zone".to_owned(), format!("z{zone}"));
        }
        if ssd {
            labels.insert("ssd".to_owned(), "true".to_owned());
        }
        let node = Node {
            id: node_id(id),
            version: 1,
            created_at: Timestamp::ZERO,
            updated_at: Timestamp::ZERO,
            spec: NodeSpec {
                role: if id % 5 == 0 { NodeRole::Manager } else { NodeRole::Worker },
                availability: [Availability::Active, Availability::Pause, Availability::Drain]
                    [usize::from(availability)],
                labels,
            },
            engine: EngineDescription {
                hostname: format!("node-{id}"),
                platform: Platform {
                    os: "linux".into(),
                    arch: if arm { "aarch64" } else { "x86_64" }.into(),
                },
                resources: resources(cpu, memory),
                labels: BTreeMap::from([("rack".to_owned(), format!("r{rack}"))]),
                data_address: Ipv4Addr::new(10, 0, 0, id),
                version: String::new(),
            },
            index: id.into(),
            next_address: 0,
            manager_address: None,
            raft_id: None,
        };
        let state = [NodeState::Ready, NodeState::Down, NodeState::Unknown][usize::from(state)];
        let node = Arc::new(node);
        self.scheduler.upsert_node(&node, state);
        self.reference.nodes.insert(node.id, (node, state));
    }

    fn add(&mut self, (service, revision): (u8, u8), node: u8, cpu: u8, memory: u8, port: Option<u16>) {
        self.tasks_made += 1;
        let id = TaskId::from_u128(self.tasks_made);
        let held = Held {
            service: service_id(service),
            revision: revision.into(),
            node: node_id(node),
            reservations: resources(cpu, memory),
            host_ports: ports(port),
        };
        let Held { service, revision, node, reservations, ref host_ports } = held;
        let task = PlacedTask { id, service, revision, node, reservations, host_ports };
        self.scheduler.add_task(&task);
        self.scheduler.add_task(&task);
        self.reference.tasks.insert(id, held);
    }

    fn remove(&mut self, id: TaskId) {
        self.scheduler.remove_task(id);
        self.scheduler.remove_task(id);
        self.reference.tasks.remove(&id);
    }

    fn plan(&mut self, service: u8, shape: Shape, count: u8) {
        let (placement, host_ports) = (shape.placement(), ports(shape.port));
        let tasks: Vec<TaskId> =
            (1..=u128::from(count)).map(|n| TaskId::from_u128(self.tasks_made + n)).collect();
        self.tasks_made += u128::from(count);
        let request = shape.request(service, &placement, &host_ports, &tasks);
        let fits = self.reference.best(self.now, &request).is_some();
        assert_eq!(self.scheduler.can_place(self.now, &request), fits, "can_place");
        let expected = self.reference.plan(self.now, &request);
        let plan = self.scheduler.plan(self.now, &request);
        assert_eq!(plan.placed, expected);
        let unplaced = tasks.len() - expected.len();
        assert_eq!(plan.refusal.as_ref().map_or(0, |refusal| refusal.unplaced), unplaced);
        if let Some(refusal) = plan.refusal {
            let excluded: usize = refusal.excluded.iter().map(|exclusion| exclusion.nodes).sum();
            assert_eq!((refusal.nodes, excluded), (self.reference.nodes.len(), refusal.nodes), "{refusal}");
            assert_eq!(refusal.nearest.is_some(), refusal.nodes > 0);
            self.refused.push((self.scheduler.capacity_generation(), service, shape));
        }
    }

    fn check(&mut self) {
        self.check_stays();
        let generation = self.scheduler.capacity_generation();
        self.refused.retain(|(then, _, _)| *then == generation);
        for (_, service, shape) in &self.refused {
            let (placement, host_ports) = (shape.placement(), ports(shape.port));
            let request = shape.request(*service, &placement, &host_ports, &[]);
            assert!(!self.scheduler.can_place(self.now, &request), "refused, but fits now");
        }
    }

    fn check_stays(&self) {
        let shape = Shape {
            cpu: 0,
            memory: 0,
            constraint: 1,
            spread: 0,
            arm: false,
            port: None,
            max: None,
            revision: 1,
        };
        let placement = shape.placement();
        for id in (1..=NODES).map(node_id) {
            let stays = self.reference.nodes.get(&id).is_some_and(|(node, _)| {
                node.spec.availability != Availability::Drain && matches(&placement, node)
            });
            assert_eq!(self.scheduler.still_fits(id, &placement), stays);
            let on = self.reference.tasks.values().filter(|held| held.node == id);
            let sum =
                on.clone().fold(Resources::default(), |sum, held| sum.saturating_add(held.reservations));
            assert_eq!(self.scheduler.reserved(id), (sum, on.count() as u32));
        }
        assert_eq!(self.scheduler.task_count(), self.reference.tasks.len());
    }
}

impl Shape {
    fn placement(&self) -> Placement {
        let constraint = |text| vec![Constraint::parse(text).expect("a constraint")];
        let zone = || SpreadBy::NodeLabel("zone".to_owned());
        let rack = || SpreadBy::EngineLabel("rack".to_owned());
        Placement {
            constraints: match self.constraint {
                1 => constraint("node.labels.ssd==true"),
                2 => constraint("node.role!=manager"),
                3 => constraint("node.labels.zone!=z1"),
                _ => Vec::new(),
            },
            preferences: match self.spread {
                1 => vec![zone()],
                2 => vec![zone(), rack()],
                3 => vec![rack(), zone()],
                _ => Vec::new(),
            },
            max_replicas_per_node: self.max,
            platforms: self
                .arm
                .then(|| Platform { os: "linux".into(), arch: "arm64".into() })
                .into_iter()
                .collect(),
        }
    }

    fn request<'a>(
        &self,
        service: u8,
        placement: &'a Placement,
        host_ports: &'a [HostPort],
        tasks: &'a [TaskId],
    ) -> PlacementRequest<'a> {
        PlacementRequest {
            service: service_id(service),
            revision: self.revision.into(),
            placement,
            reservations: resources(self.cpu, self.memory),
            host_ports,
            tasks,
        }
    }
}

fn ports(port: Option<u16>) -> Vec<HostPort> {
    port.map(|published| HostPort { protocol: Protocol::Tcp, published }).into_iter().collect()
}

fn resources(cpu: u8, memory: u8) -> Resources {
    Resources { cpu_nanos: u64::from(cpu) * 1_000_000_000, memory_bytes: u64::from(memory) << 30 }
}

/// Ids in another order than the nodes come.
fn node_id(n: u8) -> NodeId {
    NodeId::from_u128(u128::from(n.wrapping_mul(101)) << 64 | u128::from(n))
}

fn service_id(n: u8) -> ServiceId {
    ServiceId::from_u128(n.into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn places_where_a_scan_would(steps in prop::collection::vec(step(), 1..80)) {
        let mut twins = Twins::default();
        for step in steps {
            twins.apply(step);
            twins.check();
        }
    }
}
