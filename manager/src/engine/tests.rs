//! Three engines in one process, and a disk that takes its time or fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::time::Instant;

use swarm_manager_core::api::{CreateCluster, ManagerStatus, NewNode};
use swarm_manager_core::door::LogEntry;
use swarm_manager_core::first_raft_id;
use swarm_model::{
    AgentMessage, ClusterId, EngineDescription, JoinSecrets, NodeRole, NodeState, Platform, Resources,
};

use super::*;

/// A sync takes so long; None: it fails.
type Pace = Arc<Mutex<Option<Duration>>>;

struct SlowLog {
    log: SegmentLog,
    pace: Pace,
}

impl LogStore for SlowLog {
    fn append(&mut self, hard_state: Option<&Bytes>, entries: &[LogEntry]) -> Result<(), LogError> {
        self.log.append(hard_state, entries)
    }

    fn reset(&mut self, index: u64) -> Result<(), LogError> {
        self.log.reset(index)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        let pace = *self.pace.lock().unwrap();
        match pace {
            Some(pace) => std::thread::sleep(pace),
            None => return Err(LogError::Poisoned),
        }
        self.log.sync()
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.log.close()
    }

    fn truncate(&mut self, up_to: u64) -> Result<(), LogError> {
        self.log.truncate(up_to)
    }
}

pub fn new_node(number: u128) -> NewNode {
    NewNode {
        id: NodeId::from_u128(number),
        role: NodeRole::Manager,
        engine: EngineDescription {
            hostname: format!("host-{number}"),
            platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
            resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 8 << 30 },
            labels: BTreeMap::new(),
            data_address: "192.168.0.1".parse().unwrap(),
            version: "test".to_owned(),
        },
        manager_address: Some(format!("192.168.0.{number}:2377")),
    }
}

pub fn create_cluster() -> CreateCluster {
    CreateCluster {
        id: ClusterId::from_u128(7),
        root_certificate: "certificate".to_owned(),
        root_key: "key".to_owned(),
        join: JoinSecrets { worker: "w".repeat(25), manager: "m".repeat(25) },
        gateway_pool: "10.192.0.0/10".parse().unwrap(),
        heartbeat_ms: 200,
        node: new_node(1),
    }
}

struct Three {
    engines: Vec<Engine>,
    paces: Vec<Pace>,
    _directory: tempfile::TempDir,
}

impl Three {
    /// Three managers that vote; the first one leads.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let network: Arc<Mutex<HashMap<u64, Engine>>> = Arc::default();
        let (mut engines, mut paces) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            let node_id = NodeId::from_u128(number);
            let raft_id = first_raft_id(node_id);
            let config = Config::new(node_id, raft_id, [number as u8; 32]);
            let wires = Arc::clone(&network);
            let raft_out: RaftOut = Box::new(move |to, outgoing| {
                let message = match outgoing {
                    Outgoing::Message(message) => message,
                    Outgoing::Snapshot(message, state) => state.within(&message),
                };
                if let Some(engine) = wires.lock().unwrap_or_else(PoisonError::into_inner).get(&to) {
                    let _ = engine.put(Item::Event(Event::Raft { message }, None));
                }
            });
            let pace: Pace = Arc::new(Mutex::new(Some(Duration::ZERO)));
            let slow = Arc::clone(&pace);
            let path = directory.path().join(number.to_string());
            let engine = Engine::start_on(config, &path, &DataKey::generate(), raft_out, |log| {
                Box::new(SlowLog { log, pace: slow })
            });
            let engine = engine.unwrap();
            network.lock().unwrap().insert(raft_id, engine.clone());
            engines.push(engine);
            paces.push(pace);
        }
        engines[0].request(Request::CreateCluster(Box::new(create_cluster()))).await.unwrap();
        for number in 2..=3 {
            engines[0].request(Request::AdmitNode(new_node(number))).await.unwrap();
        }
        let three = Self { engines, paces, _directory: directory };
        while three.voting().await < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        three
    }

    async fn nodes(&self) -> Vec<swarm_manager_core::api::NodeView> {
        match self.engines[0].request(Request::ListNodes).await.unwrap() {
            Response::Nodes(nodes) => nodes,
            other => panic!("{other:?}"),
        }
    }

    async fn voting(&self) -> usize {
        let votes = |status| matches!(status, Some(ManagerStatus::Leader | ManagerStatus::Reachable));
        self.nodes().await.iter().filter(|view| votes(view.manager)).count()
    }

    fn set_pace(&self, engine: usize, pace: Option<Duration>) {
        *self.paces[engine].lock().unwrap() = pace;
    }

    async fn stop(&self) {
        for engine in &self.engines {
            engine.stop().await;
        }
    }
}

fn rotate() -> Request {
    Request::RotateJoinSecret { role: NodeRole::Worker, secret: "n".repeat(25) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_seconds_costs_neither_leadership_nor_sessions() {
    let three = Three::new().await;
    let term = *three.engines[0].leadership().borrow();
    assert!(matches!(term, Leadership::Leader { .. }));
    let registration = Registration { engine: new_node(1).engine, statuses: Vec::new() };
    let mut session = three.engines[0].open_session(NodeId::from_u128(1), registration).await.unwrap();
    session.messages.recv().await.unwrap().unwrap();

    let slow = Duration::from_secs(2);
    three.set_pace(0, Some(slow));
    let started = Instant::now();
    let leader = three.engines[0].clone();
    let write = tokio::spawn(async move { leader.request(rotate()).await });
    while started.elapsed() < slow - Duration::from_millis(200) {
        session.send(AgentMessage::Heartbeat).await.unwrap();
        while let Ok(message) = session.messages.try_recv() {
            message.expect("the session goes on");
        }
        assert_eq!(*three.engines[0].leadership().borrow(), term);
        for engine in &three.engines[1..] {
            let follows = Leadership::Follower { leader: Some(first_raft_id(NodeId::from_u128(1))) };
            assert_eq!(*engine.leadership().borrow(), follows, "after {:?}", started.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Committed by the others, but answered once it is applied here.
    assert!(!write.is_finished());
    write.await.unwrap().unwrap();
    assert_eq!(*three.engines[0].leadership().borrow(), term);
    assert_eq!(three.nodes().await[0].state, NodeState::Ready, "the session's node");

    // A follower's disk is nobody's concern: the others are enough.
    three.set_pace(0, Some(Duration::ZERO));
    three.set_pace(2, Some(slow));
    let started = Instant::now();
    three.engines[0].request(rotate()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    three.set_pace(2, Some(Duration::ZERO));
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_stops_that_manager_and_no_other() {
    let three = Three::new().await;
    three.set_pace(0, None);
    let refused = three.engines[0].request(rotate()).await.unwrap_err();
    assert!(matches!(refused, ApiError::Unavailable(_)), "{refused}");
    tokio::time::timeout(Duration::from_secs(10), three.engines[0].failed()).await.expect("it stops");
    let text = three.engines[0].request(Request::ListNodes).await.unwrap_err().to_string();
    assert!(text.contains("this manager"), "{text}");
    // The others elect one of them.
    let leads = async {
        loop {
            for engine in &three.engines[1..] {
                if matches!(*engine.leadership().borrow(), Leadership::Leader { .. })
                    && engine.request(rotate()).await.is_ok()
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), leads).await.expect("another one leads");
    three.stop().await;
}
