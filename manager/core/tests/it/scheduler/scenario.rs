//! Runs `tests/data/scheduler/*.txt`: a cluster and requests in, placements and refusals out.
//!
//! Lines that begin with `=` are what the scheduler answers to the line above; all others are commands, described in
//! `tests/data/scheduler/README.md`. With `UPDATE_SCENARIOS=1` the answers are written into the files instead of compared.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use swarm_manager_core::scheduler::{PlacedTask, PlacementRequest, Refusal, Scheduler};
use swarm_model::{
    Availability, Constraint, EngineDescription, HostPort, Node, NodeId, NodeRole, NodeSpec, NodeState,
    Placement, Platform, Protocol, Resources, ServiceId, SpreadBy, TaskId, Timestamp,
};

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads its data")]
fn scenarios_give_their_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scheduler");
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut run = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = answer(&expected);
        if update {
            std::fs::write(&path, &actual).unwrap();
        }
        assert!(update || actual == expected, "{}: the answers are now\n{actual}", path.display());
        run += 1;
    }
    assert!(run > 5, "only {run} scenarios found");
}

fn answer(text: &str) -> String {
    let mut scenario = Scenario::default();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with('=')) {
        out.push_str(line);
        out.push('\n');
        let command = line.split('#').next().unwrap_or_default();
        for answer in scenario.run(&command.split_whitespace().collect::<Vec<_>>()) {
            out.push_str(&format!("= {answer}\n"));
        }
    }
    out
}

#[derive(Default)]
struct Scenario {
    scheduler: Scheduler,
    now: Timestamp,
    nodes: BTreeMap<String, NodeId>,
    services: BTreeMap<String, ServiceId>,
    /// By service and number.
    tasks: BTreeMap<String, TaskId>,
}

/// All that a command's words may say.
#[derive(Default)]
struct Words {
    amount: Resources,
    labels: BTreeMap<String, String>,
    engine_labels: BTreeMap<String, String>,
    placement: Placement,
    ports: Vec<HostPort>,
    times: u32,
    revision: u64,
    role: Option<NodeRole>,
    availability: Option<Availability>,
    state: Option<NodeState>,
}

impl Scenario {
    fn run(&mut self, words: &[&str]) -> Vec<String> {
        match words {
            [] => {}
            ["node", name, rest @ ..] => self.node(name, &Words::read(rest)),
            ["remove", name] => self.scheduler.remove_node(self.nodes[*name]),
            ["now", seconds] => self.now = Timestamp::from_micros(number(seconds) * 1_000_000),
            ["task", task, "on", node, rest @ ..] => self.task(task, node, &Words::read(rest)),
            ["end", task] => self.scheduler.remove_task(self.tasks[*task]),
            ["fail", service, "on", node, rest @ ..] => {
                let (service, words) = (self.service(service), Words::read(rest));
                for _ in 0..words.times {
                    self.scheduler.record_failure(service, words.revision, self.nodes[*node], self.now);
                }
            }
            ["place", service, rest @ ..] => return self.place(service, &Words::read(rest)),
            ["stay", node, rest @ ..] => {
                let misfit = self.scheduler.misfit(self.nodes[*node], &Words::read(rest).placement);
                return vec![misfit.map_or("yes".to_owned(), |cause| format!("no: {cause}"))];
            }
            other => panic!("unknown command {other:?}"),
        }
        Vec::new()
    }

    fn node(&mut self, name: &str, words: &Words) {
        let count = self.nodes.len() as u8 + 1;
        let id = *self.nodes.entry(name.to_owned()).or_insert_with(|| NodeId::from_u128(u128::from(count)));
        let engine = EngineDescription {
            hostname: name.to_owned(),
            platform: words
                .placement
                .platforms
                .first()
                .cloned()
                .unwrap_or(Platform { os: "linux".to_owned(), arch: "amd64".to_owned() }),
            resources: words.amount,
            labels: words.engine_labels.clone(),
            data_address: Ipv4Addr::new(10, 0, 0, count),
            version: String::new(),
        };
        let node = Node {
            id,
            version: 1,
            created_at: Timestamp::ZERO,
            updated_at: Timestamp::ZERO,
            spec: NodeSpec {
                role: words.role.unwrap_or(NodeRole::Worker),
                availability: words.availability.unwrap_or(Availability::Active),
                labels: words.labels.clone(),
            },
            engine,
            index: count.into(),
            next_address: 0,
            manager_address: None,
            raft_id: None,
        };
        self.scheduler.upsert_node(&Arc::new(node), words.state.unwrap_or(NodeState::Ready));
    }

    fn service(&mut self, name: &str) -> ServiceId {
        let count = self.services.len() as u128 + 1;
        *self.services.entry(name.to_owned()).or_insert_with(|| ServiceId::from_u128(count))
    }

    fn new_task(&mut self, name: String) -> TaskId {
        let id = TaskId::from_u128(self.tasks.len() as u128 + 1);
        assert!(self.tasks.insert(name, id).is_none(), "a task's name is used twice");
        id
    }

    fn task(&mut self, task: &str, node: &str, words: &Words) {
        let id = self.new_task(task.to_owned());
        let service = self.service(task.split('.').next().unwrap_or_default());
        let (node, reservations) = (self.nodes[node], words.amount);
        let revision = words.revision;
        let host_ports = &words.ports;
        self.scheduler.add_task(&PlacedTask { id, service, revision, node, reservations, host_ports });
    }

    fn place(&mut self, name: &str, words: &Words) -> Vec<String> {
        let service = self.service(name);
        let first = (1..).find(|n| !self.tasks.contains_key(&format!("{name}.{n}"))).expect("numbers go on");
        let tasks: Vec<TaskId> =
            (first..first + words.times).map(|n| self.new_task(format!("{name}.{n}"))).collect();
        let request = PlacementRequest {
            service,
            revision: words.revision,
            placement: &words.placement,
            reservations: words.amount,
            host_ports: &words.ports,
            tasks: &tasks,
        };
        let plan = self.scheduler.plan(self.now, &request);
        let name_of =
            |id: &NodeId| self.nodes.iter().find(|(_, known)| *known == id).expect("known").0.as_str();
        let placed: Vec<&str> = plan.placed.iter().map(|(_, node)| name_of(node)).collect();
        let mut lines = Vec::new();
        if !placed.is_empty() {
            lines.push(placed.join(" "));
        }
        lines.extend(plan.refusal.iter().flat_map(refused));
        lines
    }
}

fn refused(refusal: &Refusal) -> Vec<String> {
    let mut lines = vec![format!("refused {}: {refusal}", refusal.unplaced)];
    lines.extend(refusal.nearest.iter().map(|nearest| {
        let lacks: Vec<String> = nearest.lacks.iter().map(ToString::to_string).collect();
        format!("nearest {}: {}", nearest.name, lacks.join(", "))
    }));
    lines.extend(refusal.fixes.iter().map(|fix| format!("fix: {fix}")));
    lines
}

impl Words {
    fn read(words: &[&str]) -> Self {
        let mut read = Self { times: 1, revision: 1, ..Self::default() };
        let mut rest = words.iter().copied();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().unwrap_or_else(|| panic!("{word} has no value"));
            match word {
                "label" => insert_label(&mut read.labels, value()),
                "engine-label" => insert_label(&mut read.engine_labels, value()),
                "constraint" => {
                    read.placement.constraints.push(Constraint::parse(value()).expect("a constraint"))
                }
                "spread" => {
                    let by = SpreadBy::parse(&format!("spread={}", value())).expect("a preference");
                    read.placement.preferences.push(by);
                }
                "max" => read.placement.max_replicas_per_node = Some(number(value()) as u32),
                "platform" => {
                    let (os, arch) = value().split_once('/').expect("os/arch");
                    read.placement.platforms.push(Platform { os: os.into(), arch: arch.into() });
                }
                "port" => read.ports.push(host_port(value())),
                "revision" => read.revision = number(value()),
                "manager" => read.role = Some(NodeRole::Manager),
                "pause" => read.availability = Some(Availability::Pause),
                "drain" => read.availability = Some(Availability::Drain),
                "down" => read.state = Some(NodeState::Down),
                "unknown" => read.state = Some(NodeState::Unknown),
                amount => read.amount(amount),
            }
        }
        read
    }

    fn amount(&mut self, word: &str) {
        if let Some(times) = word.strip_prefix('x') {
            self.times = number(times) as u32;
        } else if let Some(cpu) = word.strip_suffix("cpu") {
            self.amount.cpu_nanos = (cpu.parse::<f64>().expect("a number of CPUs") * 1e9) as u64;
        } else if let Some(gib) = word.strip_suffix('G') {
            self.amount.memory_bytes =
                (gib.parse::<f64>().expect("a number of GiB") * (1u64 << 30) as f64) as u64;
        } else {
            panic!("unknown word {word:?}");
        }
    }
}

fn insert_label(labels: &mut BTreeMap<String, String>, text: &str) {
    let (key, value) = text.split_once('=').expect("key=value");
    labels.insert(key.to_owned(), value.to_owned());
}

fn host_port(text: &str) -> HostPort {
    let (port, protocol) = text.split_once('/').expect("port/protocol");
    let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
    HostPort { protocol, published: number(port) as u16 }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}
