//! Arbitrary entries, good and bad: equal stores, no panic, checkpoints that give the same store again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use swarm_model::{
    Availability, ClusterId, ContainerSpec, DesiredState, EngineDescription, FailureAction, ImageRef,
    JoinSecrets, Limits, NodeRole, NodeSpec, Outcome, Placement, Platform, PortMode, PortSpec, Protocol,
    PullSource, Resources, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, TaskState, UpdatePolicy,
};

use super::*;
use crate::addresses;

pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::from_u128(1),
        version: 0,
        created_at: Timestamp::ZERO,
        updated_at: Timestamp::ZERO,
        root_certificate: "certificate".to_owned(),
        root_key: "key".to_owned(),
        join: JoinSecrets { worker: "w".to_owned(), manager: "m".to_owned() },
        gateway_pool: "10.192.0.0/10".parse().unwrap(),
        heartbeat_ms: 1_000,
        certificate_life: swarm_model::MAX_CERTIFICATE_LIFE,
        rotation: None,
        autolock: swarm_model::Autolock::default(),
    }
}

pub(crate) fn node(number: u16) -> Node {
    Node {
        id: NodeId::from_u128(u128::from(number)),
        version: 0,
        created_at: Timestamp::ZERO,
        updated_at: Timestamp::ZERO,
        spec: NodeSpec {
            role: NodeRole::Worker,
            availability: Availability::Active,
            labels: BTreeMap::new(),
        },
        engine: engine(&format!("host-{number}")),
        index: number,
        next_address: Cluster::FIRST_TASK_OFFSET,
        manager_address: None,
        raft_id: None,
    }
}

fn engine(hostname: &str) -> EngineDescription {
    EngineDescription {
        hostname: hostname.to_owned(),
        platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
        resources: Resources { cpu_nanos: 1_000_000_000, memory_bytes: 1 << 30 },
        labels: BTreeMap::new(),
        data_address: Ipv4Addr::LOCALHOST,
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        task: TaskSpec {
            container: ContainerSpec {
                image: ImageRef { name: "web:1".to_owned(), digest: None, source: PullSource::Cluster },
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
                stop_grace_period: std::time::Duration::from_secs(10),
            },
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

pub(crate) fn ingress(published: u16) -> PortSpec {
    PortSpec { protocol: Protocol::Tcp, mode: PortMode::Ingress, target: 80, published: Some(published) }
}

pub(crate) fn service(number: u8, name: &str, ports: Vec<PortSpec>) -> Service {
    Service {
        id: ServiceId::from_u128(u128::from(number)),
        version: 0,
        created_at: Timestamp::ZERO,
        updated_at: Timestamp::ZERO,
        spec: Arc::new(spec(name)),
        revision: 1,
        revisions: BTreeMap::new(),
        ports,
        update: None,
    }
}

/// A world small enough that actions meet, and often do not fit.
struct Chaos(ChaCha12Rng);

impl Chaos {
    fn below(&mut self, end: u16) -> u16 {
        self.0.random_range(0..end)
    }

    fn task(&mut self) -> TaskId {
        TaskId::from_u128(u128::from(self.below(24)))
    }

    fn service(&mut self) -> ServiceId {
        ServiceId::from_u128(u128::from(self.below(5)))
    }

    fn node(&mut self) -> NodeId {
        NodeId::from_u128(u128::from(1 + self.below(4)))
    }

    fn place(&mut self) -> (NodeId, Ipv4Addr) {
        let node = self.node();
        let index = 1 + self.below(4);
        let offset = Cluster::FIRST_TASK_OFFSET + self.below(6);
        (node, addresses::address("10.192.0.0/10".parse().unwrap(), index, offset))
    }

    fn desired(&mut self) -> DesiredState {
        [DesiredState::Ready, DesiredState::Running, DesiredState::Shutdown, DesiredState::Remove]
            [usize::from(self.below(4))]
    }

    fn action(&mut self, store: &Store) -> Action {
        match self.below(16) {
            0 => Action::CreateCluster(Box::new(cluster())),
            1 => Action::CreateNode(Box::new(node(1 + self.below(5)))),
            2 => Action::RemoveNode { node: self.node() },
            3 => {
                let node = self.node();
                let engine = engine(&format!("name-{}", self.below(3)));
                Action::DescribeNode { node, engine }
            }
            4 => {
                let number = self.below(5) as u8;
                let name = format!("s{}", self.below(4));
                Action::CreateService(Box::new(service(number, &name, vec![ingress(80 + self.below(3))])))
            }
            5 => {
                let service = self.service();
                let known = store.service(service);
                let base = known.map_or(0, |known| known.version) + u64::from(self.below(2));
                let revision = known.map_or(1, |known| known.revision) + u64::from(self.below(2));
                let spec = known.map_or_else(|| Arc::new(spec("s0")), |known| known.spec.clone());
                let ports = vec![ingress(80 + self.below(3))];
                Action::UpdateService(Box::new(ServiceUpdate {
                    service,
                    base,
                    spec,
                    revision,
                    ports,
                    update: None,
                }))
            }
            6 => Action::RemoveService { service: self.service() },
            7 => Action::ForgetService { service: self.service() },
            8 | 9 => {
                let place = (self.below(2) == 0).then(|| self.place());
                Action::CreateTask(NewTask {
                    id: self.task(),
                    service: self.service(),
                    slot: 1,
                    revision: 1 + u64::from(self.below(2)),
                    desired: DesiredState::Ready,
                    place,
                    not_before: None,
                    restarts: 0,
                })
            }
            10 => {
                let (node, address) = self.place();
                Action::PlaceTask { task: self.task(), node, address }
            }
            11 | 12 => Action::SetDesired { task: self.task(), desired: self.desired() },
            13 => {
                let state = if self.below(4) == 0 { TaskState::Running } else { TaskState::Failed };
                let outcome = Outcome {
                    state,
                    exit_code: Some(1),
                    oom_killed: false,
                    reason: String::new(),
                    at: Timestamp::ZERO,
                    ran_since: None,
                };
                Action::FinishTask { task: self.task(), outcome }
            }
            14 => Action::ForgetTask { task: self.task() },
            _ => Action::SetJoinSecret { role: NodeRole::Worker, secret: "new".to_owned() },
        }
    }
}

/// Names, ports, numbers and addresses are unique, and indexes say what the tables say.
fn check_consistent(store: &Store) {
    let rebuilt = Store::restore(store.applied(), &store.export()).unwrap();
    assert_eq!(store, &rebuilt);
    let mut addresses: Vec<_> =
        store.tasks().filter(|task| task.outcome.is_none()).filter_map(|task| task.address).collect();
    let held = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), held);
    for task in store.tasks() {
        assert_eq!(task.node.is_some(), task.address.is_some());
        let record = store.service_record(task.service).expect("a task has a service");
        assert!(record.service.revisions.contains_key(&task.revision), "a task has its revision");
    }
    let names = store.services().count();
    assert_eq!(store.service_names().count(), names);
}

#[test]
fn equal_entries_make_equal_stores_and_checkpoints_restore_them() {
    for seed in 0..60 {
        let mut chaos = Chaos(ChaCha12Rng::seed_from_u64(seed));
        let (mut store, mut twin) = (Store::default(), Store::default());
        let mut saved: BTreeMap<ObjectKey, StoredObject> = BTreeMap::new();
        let mut failed = 0;
        for index in 1..=200 {
            let actions = (0..1 + chaos.below(4)).map(|_| chaos.action(&store)).collect();
            let at = Timestamp::from_micros(u64::from(chaos.below(500)));
            let bytes = Payload { at, by: None, actions }.encode();
            let applied = store.apply(index, Payload::decode(&bytes).unwrap());
            let same = twin.apply(index, Payload::decode(&bytes).unwrap());
            assert_eq!((applied.changes, &applied.errors), (same.changes, &same.errors), "seed {seed}");
            failed += applied.errors.len();
            if chaos.below(20) == 0 {
                let (changed, removed) = store.take_unsaved().encode();
                saved.extend(changed.into_iter().map(|object| (object.key.clone(), object)));
                removed.iter().for_each(|key| drop(saved.remove(key)));
                let objects: Vec<_> = saved.values().cloned().collect();
                assert_eq!(Store::restore(index, &objects).unwrap(), twin, "seed {seed}, index {index}");
            }
        }
        assert_eq!(store, twin, "seed {seed}");
        check_consistent(&store);
        assert!(failed > 50, "seed {seed}: bad actions are part of the test");
    }
}

#[test]
fn entries_happen_one_after_the_other_whatever_the_clocks_say() {
    let mut store = Store::default();
    let mut create = |index, at, number| {
        let actions =
            vec![Action::CreateService(Box::new(service(number, &format!("s{number}"), Vec::new())))];
        store.apply(index, Payload { at: Timestamp::from_micros(at), by: None, actions });
        store.service(ServiceId::from_u128(u128::from(number))).unwrap().created_at
    };
    let first = create(1, 1_000, 1);
    let second = create(2, 400, 2);
    let third = create(3, 2_000, 3);
    assert!(first < second && second < third);
}

#[test]
fn revisions_in_use_are_kept_beyond_the_limit() {
    let mut store = Store::default();
    let id = ServiceId::from_u128(1);
    let mut index = 0;
    let mut apply = |store: &mut Store, action| {
        index += 1;
        let applied = store
            .apply(index, Payload { at: Timestamp::from_micros(index), by: None, actions: vec![action] });
        assert_eq!(applied.errors, []);
    };
    apply(&mut store, Action::CreateService(Box::new(service(1, "web", Vec::new()))));
    let task = NewTask {
        id: TaskId::from_u128(1),
        service: id,
        slot: 1,
        revision: 1,
        desired: DesiredState::Running,
        place: None,
        not_before: None,
        restarts: 0,
    };
    apply(&mut store, Action::CreateTask(task));
    for revision in 2..=15 {
        let base = store.service(id).unwrap().version;
        let spec = Arc::new(spec("web"));
        let update = ServiceUpdate { service: id, base, spec, revision, ports: Vec::new(), update: None };
        apply(&mut store, Action::UpdateService(Box::new(update)));
    }
    let kept: Vec<u64> = store.service(id).unwrap().revisions.keys().copied().collect();
    assert_eq!(kept, [&[1][..], &(6..=15).collect::<Vec<_>>()].concat());
}

#[test]
fn a_payload_of_another_format_is_recognised() {
    let error = Payload::decode(&[9, 1, 2]).unwrap_err().to_string();
    assert!(error.contains("format 9"), "{error}");
    assert!(Payload::decode(&[]).is_err());
    assert!(Payload::decode(&[1, 0xc1]).is_err());
}

#[test]
fn a_task_costs_little_memory_in_the_log() {
    let task = NewTask {
        id: TaskId::from_u128(u128::MAX / 3),
        service: ServiceId::from_u128(u128::MAX / 5),
        slot: 77,
        revision: 3,
        desired: DesiredState::Running,
        place: Some((NodeId::from_u128(u128::MAX / 7), Ipv4Addr::new(10, 192, 4, 11))),
        not_before: None,
        restarts: 0,
    };
    let many = Payload { at: Timestamp::ZERO, by: None, actions: vec![Action::CreateTask(task); 1_000] };
    assert!(many.encode().len() < 200_000, "{}", many.encode().len());
}
