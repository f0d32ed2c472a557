//! The session: registration, assignments, statuses, reconnecting.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use swarm_agent::{Agent, Delays, FakeExecutor, Link};
use swarm_agent_core::Exit;
use swarm_agent_core::fake::assignment;
use swarm_model::{AgentMessage, ClusterId, DesiredState, ManagerMessage, TaskId, TaskState, Welcome};
use tonic::Status;

use crate::manager::{CLUSTER, LIMIT, Manager, NODE, config, managers};

const TASK: TaskId = TaskId::from_u128(1);

fn start(addresses: &[SocketAddr], node: &FakeExecutor) -> Agent {
    let agent = Agent::start(config(addresses), managers(), |answers| {
        let recovered = node.attach(answers);
        Ok::<_, Infallible>((Arc::new(node.clone()), recovered))
    });
    agent.unwrap_or_else(|never| match never {})
}

async fn wait_for_link(agent: &Agent, expect: impl Fn(&Link) -> bool) -> String {
    let mut status = agent.status();
    let reached = status.wait_for(|status| expect(&status.connection.link));
    let reached = tokio::time::timeout(LIMIT, reached).await.expect("the link never came to that").unwrap();
    reached.connection.last_error.clone()
}

#[tokio::test]
async fn a_task_runs_and_its_end_is_reported() {
    let mut manager = Manager::start(None).await;
    let node = FakeExecutor::new(Delays::default());
    let _agent = start(&[manager.address], &node);
    let mut session = manager.session().await;
    let registration = session.registration().await;
    assert_eq!(registration.engine.hostname, "node-1");
    assert!(registration.statuses.is_empty());
    session.welcome(&[]).await;
    session.assign(vec![assignment(TASK, DesiredState::Running)]).await;
    // Everything on the way is overtaken: the first report is of the running task.
    let AgentMessage::Statuses(statuses) = session.message().await else { panic!("no statuses came") };
    assert_eq!(statuses[0].1.state, TaskState::Running);
    node.exit(TASK, Exit::Code { code: 3, signal: None, oom: false });
    let status = session.status(TASK, TaskState::Failed).await;
    assert_eq!((status.exit_code, status.error.as_str()), (Some(3), ""));
}

#[tokio::test]
async fn heartbeats_come_at_the_told_interval() {
    let mut manager = Manager::start(None).await;
    let node = FakeExecutor::new(Delays::default());
    let _agent = start(&[manager.address], &node);
    let mut session = manager.session().await;
    session.registration().await;
    let welcome = Welcome {
        cluster: CLUSTER,
        node: NODE,
        index: 1,
        gateway_pool: "10.192.0.0/10".parse().unwrap(),
        heartbeat_ms: 100,
        role: swarm_model::NodeRole::Worker,
        managers: Vec::new(),
    };
    session.send(ManagerMessage::Welcome(welcome)).await;
    for _ in 0..3 {
        assert_eq!(session.message().await, AgentMessage::Heartbeat);
    }
}

#[tokio::test]
async fn a_lost_session_is_opened_again_with_a_full_report() {
    let mut manager = Manager::start(None).await;
    let node = FakeExecutor::new(Delays::default());
    let _agent = start(&[manager.address], &node);
    let mut session = manager.session().await;
    session.registration().await;
    session.welcome(&[]).await;
    session.assign(vec![assignment(TASK, DesiredState::Running)]).await;
    session.status(TASK, TaskState::Running).await;
    session.end(Status::unavailable("going down")).await;
    let mut session = manager.session().await;
    let statuses = session.registration().await.statuses;
    assert_eq!((statuses.len(), statuses[0].0, statuses[0].1.state), (1, TASK, TaskState::Running));
    assert_eq!(node.running(), [TASK]);
}

#[tokio::test]
async fn the_named_leader_is_followed() {
    let (follower, mut leader) = (Manager::start(None).await, Manager::start(None).await);
    let mut refusal = Status::failed_precondition("not the leader");
    refusal.metadata_mut().insert("swarm-leader", leader.address.to_string().parse().unwrap());
    *follower.refusal.lock().unwrap() = Some(refusal);
    let node = FakeExecutor::new(Delays::default());
    let agent = start(&[follower.address], &node);
    let mut session = leader.session().await;
    session.registration().await;
    session.welcome(&[follower.address, leader.address]).await;
    let expect = Link::Up { manager: leader.address.to_string() };
    wait_for_link(&agent, |link| *link == expect).await;
}

#[tokio::test]
async fn another_manager_is_tried_where_one_is_down() {
    let mut manager = Manager::start(None).await;
    // A port that nobody listens on any more.
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let node = FakeExecutor::new(Delays::default());
    let _agent = start(&[down, manager.address], &node);
    manager.session().await.registration().await;
}

#[tokio::test]
async fn another_cluster_is_refused_and_named() {
    let mut manager = Manager::start(None).await;
    let node = FakeExecutor::new(Delays::default());
    let agent = start(&[manager.address], &node);
    let mut session = manager.session().await;
    session.registration().await;
    let welcome = Welcome {
        cluster: ClusterId::from_u128(99),
        node: NODE,
        index: 1,
        gateway_pool: "10.192.0.0/10".parse().unwrap(),
        heartbeat_ms: 100,
        role: swarm_model::NodeRole::Worker,
        managers: Vec::new(),
    };
    session.send(ManagerMessage::Welcome(welcome)).await;
    let error = wait_for_link(&agent, |link| *link == Link::Down).await;
    assert!(error.contains(&ClusterId::from_u128(99).to_string()), "{error}");
}

#[tokio::test]
async fn a_stopped_agent_leaves_tasks_running_for_the_next() {
    let mut manager = Manager::start(None).await;
    let node = FakeExecutor::new(Delays::default());
    let agent = start(&[manager.address], &node);
    let mut session = manager.session().await;
    session.registration().await;
    session.welcome(&[]).await;
    session.assign(vec![assignment(TASK, DesiredState::Running)]).await;
    session.status(TASK, TaskState::Running).await;
    agent.stop().await;
    assert_eq!(node.running(), [TASK]);
    let agent = start(&[manager.address], &node);
    let mut session = manager.session().await;
    assert_eq!(session.registration().await.statuses[0].1.state, TaskState::Running);
    agent.leave().await.unwrap();
    assert!(node.running().is_empty());
}
