//! The language of the scenarios.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use swarm_model::{
    AgentMessage, Assignment, AssignmentsDelta, ClusterId, DesiredState, EngineDescription, ManagerMessage,
    MeshDelta, NodeId, Platform, PortMode, PortSpec, Protocol, Resources, TableVersion, TaskId, TaskStatus,
    Timestamp, Welcome,
};

use crate::door::{
    Change, Closed, Config, Effect, Event, Exit, Found, Operation, Parallelism, PrepareFailure, Recovered,
    SessionId,
};
use crate::fake::{FakeNode, assignment};
use crate::{AgentCore, Link};

pub const CLUSTER: ClusterId = ClusterId::from_u128(1);
pub const NODE: NodeId = NodeId::from_u128(2);

pub fn config() -> Config {
    let engine = EngineDescription {
        hostname: "n".to_owned(),
        platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
        resources: Resources::default(),
        labels: BTreeMap::new(),
        data_address: Ipv4Addr::LOCALHOST,
        version: "0".to_owned(),
    };
    let parallelism = Parallelism { prepare: 2, start: 1, remove: 1 };
    Config { cluster: CLUSTER, node: NODE, engine, managers: vec!["m1:1".to_owned()], seed: 1, parallelism }
}

/// Runs the events of a scenario and compares it with what really happens.
pub fn check(scenario: &str) {
    let mut world = World::new();
    let mut actual = String::new();
    for line in scenario.lines().map(str::trim).filter(|line| line.starts_with('>')) {
        writeln!(actual, "{line}").unwrap();
        for effect in world.run(line.trim_start_matches('>').trim()) {
            writeln!(actual, "{effect}").unwrap();
        }
    }
    let expect: String = scenario.lines().map(str::trim).filter(|line| !line.is_empty()).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    );
    assert!(actual == expect, "expected:\n{expect}\nactual:\n{actual}");
}

struct World {
    core: AgentCore,
    disk: FakeNode,
    now: Timestamp,
    session: SessionId,
    fresh: bool,
}

fn task(name: &str) -> TaskId {
    TaskId::from_u128(name.bytes().next().unwrap().into())
}

fn name(task: TaskId) -> char {
    char::from_u32(task.as_u128() as u32).unwrap()
}

fn version(text: &str) -> TableVersion {
    let (epoch, number) = text.split_once('.').unwrap();
    TableVersion { epoch: epoch.parse().unwrap(), number: number.parse().unwrap() }
}

fn desired(text: &str) -> DesiredState {
    [DesiredState::Ready, DesiredState::Running, DesiredState::Shutdown, DesiredState::Remove]
        .into_iter()
        .find(|state| state.name() == text)
        .unwrap()
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_micros(1_000_000);
        Self {
            core: AgentCore::new(config(), Recovered::default(), now),
            disk: FakeNode::default(),
            now,
            session: SessionId(0),
            fresh: true,
        }
    }

    /// Runs one line: an event, or time that passes.
    fn run(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut effects = Vec::new();
        match words.as_slice() {
            ["begin"] => assert!(std::mem::take(&mut self.fresh)),
            ["wait", millis] => self.now = self.now + Duration::from_millis(millis.parse().unwrap()),
            ["restart"] => self.restart(FakeNode::restart_agent),
            ["reboot"] => self.restart(FakeNode::reboot),
            ["found", task_name, rest @ ..] => self.restart(|disk| found(disk, task_name, rest)),
            _ => {
                let event = self.event(&words);
                self.core.handle(self.now, event, &mut effects);
            }
        }
        self.core.handle(self.now, Event::Wakeup, &mut effects);
        effects.into_iter().flat_map(|effect| self.show(effect)).collect()
    }

    fn restart(&mut self, how: impl FnOnce(&mut FakeNode) -> Recovered) {
        let recovered = how(&mut self.disk);
        self.core = AgentCore::new(config(), recovered, self.now);
    }

    fn event(&mut self, words: &[&str]) -> Event {
        let session = self.session;
        let message = |message| Event::SessionMessage { session, message };
        match words {
            ["open"] => Event::SessionOpened { session },
            ["closed"] => Event::SessionClosed { session, reason: Closed::Failed("lost".to_owned()) },
            ["not-leader", leader] => {
                let leader = Some((*leader).to_owned());
                Event::SessionClosed { session, reason: Closed::NotLeader { leader } }
            }
            ["welcome"] => message(welcome(CLUSTER)),
            ["welcome-of-another-cluster"] => message(welcome(ClusterId::from_u128(9))),
            ["full", to, rest @ ..] => message(assignments(None, to, rest)),
            ["delta", from, to, rest @ ..] => message(assignments(Some(from), to, rest)),
            ["managers", addresses @ ..] => {
                message(ManagerMessage::Managers(addresses.iter().map(ToString::to_string).collect()))
            }
            ["named", managers @ ..] => {
                Event::ManagersNamed { managers: managers.iter().map(ToString::to_string).collect() }
            }
            ["heartbeat"] => message(ManagerMessage::Heartbeat { heartbeat_ms: 0 }),
            ["heartbeat", millis] => {
                message(ManagerMessage::Heartbeat { heartbeat_ms: millis.parse().unwrap() })
            }
            ["mesh", to] => message(mesh(None, to)),
            ["mesh", from, to] => message(mesh(Some(from), to)),
            ["network-opened"] => Event::NetworkOpened { result: Ok(()) },
            ["mesh-programmed"] => Event::MeshProgrammed { result: Ok(()) },
            ["mesh-failed"] => Event::MeshProgrammed { result: Err("no".to_owned()) },
            ["prepared", t] => Event::Prepared { task: task(t), result: Ok(()) },
            ["prepared", t, "transient", error @ ..] => {
                let failure = PrepareFailure::Transient(error.join(" "));
                Event::Prepared { task: task(t), result: Err(failure) }
            }
            ["prepared", t, error @ ..] => {
                Event::Prepared { task: task(t), result: Err(PrepareFailure::Final(error.join(" "))) }
            }
            ["started", t] => Event::Started { task: task(t), result: Ok(7) },
            ["started", t, error @ ..] => Event::Started { task: task(t), result: Err(error.join(" ")) },
            ["exited", t, code] => Event::Exited { task: task(t), exit: exit(code) },
            ["removed", t] => Event::Removed { task: task(t), result: Ok(()) },
            ["removed", t, error @ ..] => Event::Removed { task: task(t), result: Err(error.join(" ")) },
            ["progress", t, text @ ..] => Event::Progress { task: task(t), message: text.join(" ") },
            other => panic!("no such line: {other:?}"),
        }
    }

    fn show(&mut self, effect: Effect) -> Vec<String> {
        match effect {
            Effect::Persist(changes) => {
                let lines = changes.iter().map(show_change).collect();
                self.disk.persist(changes);
                lines
            }
            Effect::Operate(operation) => vec![show_operation(&operation)],
            Effect::Connect { session, manager } => {
                self.session = session;
                assert!(matches!(self.core.connection().link, Link::Connecting { .. }));
                vec![format!("connect {manager}")]
            }
            Effect::Register { registration, .. } => {
                vec![format!("register{}", show_statuses(&registration.statuses))]
            }
            Effect::Send { message, .. } => vec![match message {
                AgentMessage::Heartbeat => "send heartbeat".to_owned(),
                AgentMessage::Statuses(list) => format!("send{}", show_statuses(&list)),
                AgentMessage::MeshApplied(version) => {
                    format!("send mesh-applied {}.{}", version.epoch, version.number)
                }
                AgentMessage::NeedFull => "send need-full".to_owned(),
                AgentMessage::Certified(root) => format!("send certified {root}"),
            }],
            Effect::Disconnect { .. } => vec!["disconnect".to_owned()],
        }
    }
}

fn found(disk: &mut FakeNode, name: &str, state: &[&str]) -> Recovered {
    let state = match state {
        ["running"] => Found::Running { pid: 7, since: Timestamp::ZERO },
        ["exited", code] => Found::Exited(exit(code)),
        other => panic!("no such state: {other:?}"),
    };
    let mut recovered = disk.restart_agent();
    recovered.containers.insert(task(name), state);
    recovered
}

fn exit(code: &str) -> Exit {
    Exit::Code { code: code.parse().unwrap(), signal: None, oom: false }
}

fn welcome(cluster: ClusterId) -> ManagerMessage {
    ManagerMessage::Welcome(Welcome {
        cluster,
        node: NODE,
        index: 1,
        gateway_pool: "10.192.0.0/10".parse().unwrap(),
        heartbeat_ms: 1_000,
        role: swarm_model::NodeRole::Worker,
        managers: vec!["m1:1".to_owned(), "m2:1".to_owned()],
    })
}

fn assignments(base: Option<&str>, to: &str, words: &[&str]) -> ManagerMessage {
    let (remove, upsert): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    let upsert = upsert.iter().map(|word| {
        let (name, state) = word.split_once('=').unwrap();
        let (state, port) = state.split_once(':').map_or((state, None), |(state, port)| (state, Some(port)));
        Assignment {
            ports: port.into_iter().map(host_port).collect(),
            ..assignment(task(name), desired(state))
        }
    });
    ManagerMessage::Assignments(AssignmentsDelta {
        base: base.map(version),
        version: version(to),
        upsert: upsert.collect(),
        remove: remove.iter().map(|word| task(&word[1..])).collect(),
    })
}

fn host_port(number: &str) -> PortSpec {
    let published = Some(number.parse().unwrap());
    PortSpec { protocol: Protocol::Tcp, mode: PortMode::Host, target: 80, published }
}

fn mesh(base: Option<&str>, to: &str) -> ManagerMessage {
    ManagerMessage::Mesh(MeshDelta { base: base.map(version), version: version(to), ..MeshDelta::default() })
}

fn show_change(change: &Change) -> String {
    match change {
        Change::Node(node) => format!("write node epoch={}", node.epoch),
        Change::Task(record) => {
            let ended = record.ended.as_ref().map(|status| format!(" ended={}", status.state));
            let assignment = &record.assignment;
            format!("write {}={}{}", name(assignment.task), assignment.desired, ended.unwrap_or_default())
        }
        Change::Forget(task) => format!("forget {}", name(*task)),
    }
}

fn show_operation(operation: &Operation) -> String {
    match operation {
        Operation::OpenNetwork(place) => format!("open network {}", place.index),
        Operation::ProgramMesh(_) => "program mesh".to_owned(),
        Operation::Prepare(assignment) => format!("prepare {}", name(assignment.task)),
        Operation::CancelPrepare(task) => format!("cancel {}", name(*task)),
        Operation::Start(assignment) => format!("start {}", name(assignment.task)),
        Operation::SetPorts(assignment) => format!("set ports of {}", name(assignment.task)),
        Operation::Stop(assignment) => format!("stop {}", name(assignment.task)),
        Operation::Kill(task) => format!("kill {}", name(*task)),
        Operation::Remove(task) => format!("remove {}", name(*task)),
        Operation::CollectGarbage { images } => format!("collect garbage, {} used", images.len()),
    }
}

fn show_statuses(statuses: &[(TaskId, TaskStatus)]) -> String {
    statuses.iter().fold(String::new(), |mut text, (task, status)| {
        write!(text, " {}={}", name(*task), status.state).unwrap();
        for detail in [&status.message, &status.error].into_iter().filter(|detail| !detail.is_empty()) {
            write!(text, "({detail})").unwrap();
        }
        text
    })
}

/// A session with nothing assigned; the beginning of most scenarios.
const CONNECTED: &str = "
    > begin
    connect m1:1
    > open
    register
    > welcome
    write node epoch=0
    open network 1
    > network-opened
    > full 1.1
    write node epoch=1
";

pub fn connected(scenario: &str) {
    check(&format!("{CONNECTED}{scenario}"));
}
