//! The cluster and the services: uneven nodes in three zones, and services of eight kinds. Without randomness, so that
//! runs compare.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use swarm_model::{
    Availability, Constraint, EngineDescription, Node, NodeId, NodeRole, NodeSpec, Placement, Platform,
    Resources, ServiceId, SpreadBy, TaskId, Timestamp,
};

pub const ZONES: usize = 3;
const CPU: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;

/// A node in the checker's own words.
#[derive(Debug, Clone)]
pub struct Host {
    pub id: NodeId,
    pub capacity: Resources,
    pub zone: usize,
    pub ssd: bool,
}

/// A service in the checker's own words.
#[derive(Debug, Clone)]
pub struct Kind {
    pub need: Resources,
    /// Only nodes with an SSD.
    pub ssd: bool,
    /// Even over zones before even over nodes.
    pub by_zone: bool,
}

/// Nodes of three sizes, 1 : 3 : 6, with twice the room in all that `tasks` need; the smallest, one in eight, have half
/// the room for their even share, so that they fill up.
pub fn hosts(count: u32, tasks: u32) -> Vec<Host> {
    let share = u64::from(tasks.div_ceil(count)).max(4);
    let four = (0..4).fold(Resources::default(), |sum, service| sum.saturating_add(Kind::of(service).need));
    (0..count)
        .map(|n| {
            let size = match scatter(n.into()) % 8 {
                0 => 1,
                1..=3 => 3,
                _ => 6,
            };
            let amount = |of_four_tasks: u64| of_four_tasks * share * size / 8;
            Host {
                id: NodeId::from_u128(id(1, n)),
                capacity: Resources {
                    cpu_nanos: amount(four.cpu_nanos),
                    memory_bytes: amount(four.memory_bytes),
                },
                zone: n as usize % ZONES,
                ssd: !scatter(u64::from(n) + 1).is_multiple_of(4),
            }
        })
        .collect()
}

impl Host {
    /// The same node in the scheduler's words.
    pub fn node(&self, index: u32) -> Arc<Node> {
        let mut labels = BTreeMap::from([("zone".to_owned(), format!("zone-{}", self.zone))]);
        if self.ssd {
            labels.insert("disk".to_owned(), "ssd".to_owned());
        }
        Arc::new(Node {
            id: self.id,
            version: 1,
            created_at: Timestamp::ZERO,
            updated_at: Timestamp::ZERO,
            spec: NodeSpec { role: NodeRole::Worker, availability: Availability::Active, labels },
            engine: EngineDescription {
                hostname: format!("node-{index}"),
                platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
                resources: self.capacity,
                labels: BTreeMap::new(),
                data_address: Ipv4Addr::from(0x0a00_0000 + index),
                version: String::new(),
            },
            index: 1,
            next_address: 0,
            manager_address: None,
            raft_id: None,
        })
    }
}

impl Kind {
    pub fn of(service: u32) -> Self {
        let size = u64::from(service % 4);
        Self {
            need: Resources { cpu_nanos: CPU * (1 + size) / 10, memory_bytes: (64 << size) * MIB },
            ssd: service % 8 >= 6,
            by_zone: service % 2 == 1,
        }
    }

    /// The same requirement in the scheduler's words.
    pub fn placement(&self) -> Placement {
        let constraint = || Constraint::parse("node.labels.disk==ssd").expect("it is a constraint");
        Placement {
            constraints: self.ssd.then(constraint).into_iter().collect(),
            preferences: self.by_zone.then(|| SpreadBy::NodeLabel("zone".to_owned())).into_iter().collect(),
            max_replicas_per_node: None,
            platforms: vec![Platform { os: "linux".to_owned(), arch: "x86_64".to_owned() }],
        }
    }
}

pub fn service_id(service: u32) -> ServiceId {
    ServiceId::from_u128(id(2, service))
}

pub fn task_id(task: u32) -> TaskId {
    TaskId::from_u128(id(3, task))
}

/// Ids are random in production: far apart and in no order.
fn id(kind: u64, n: u32) -> u128 {
    let seed = kind << 32 | u64::from(n);
    u128::from(scatter(seed)) << 64 | u128::from(scatter(!seed))
}

/// SplitMix64 (Steele, Lea, Flood 2014): a bijection, so ids differ.
pub fn scatter(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
