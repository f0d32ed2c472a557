//! A node's runtime and the agent's disk, in memory. Containers do what their arguments say: fail to be prepared or to
//! start, end after a while, ignore the stop signal.
//!
//! It decides nothing. What would be a bug on a real node it notes, for the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_core::{
    Change, Event, Exit, Found, Mesh, NodeRecord, Operation, PrepareFailure, Recovered, TaskRecord,
};
use swarm_model::{Assignment, TaskId, Timestamp};

use super::dice::Dice;

/// Of one task.
const MAX_FAILED_PULLS: u32 = 3;

/// What a container does, as its arguments say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Serves,
    /// Exits by itself after a while.
    Exits {
        code: i32,
        after: Duration,
    },
    /// The image is there for nobody.
    CannotBePrepared,
    /// Every second try to get the image fails.
    FlakyImage,
    CannotStart,
    /// Ends by a kill only.
    IgnoresStop,
}

impl Behaviour {
    pub fn arguments(self) -> Vec<String> {
        let words = match self {
            Self::Serves => return Vec::new(),
            Self::Exits { code, after } => format!("exit {code} {}", after.as_millis()),
            Self::CannotBePrepared => "no-image".to_owned(),
            Self::FlakyImage => "flaky-image".to_owned(),
            Self::CannotStart => "no-start".to_owned(),
            Self::IgnoresStop => "stubborn".to_owned(),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    pub fn of(arguments: &[String]) -> Self {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words[..] {
            ["exit", code, after] => Self::Exits {
                code: code.parse().unwrap_or(1),
                after: Duration::from_millis(after.parse().unwrap_or(100)),
            },
            ["no-image"] => Self::CannotBePrepared,
            ["flaky-image"] => Self::FlakyImage,
            ["no-start"] => Self::CannotStart,
            ["stubborn"] => Self::IgnoresStop,
            _ => Self::Serves,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Container {
    pub assignment: Arc<Assignment>,
    pub found: Found,
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self.found, Found::Running { .. })
    }
}

/// Something that an operation leads to, after a while.
#[derive(Debug)]
pub enum Later {
    /// The agent that asked is told.
    Tell(Event),
    /// A container ends, whoever looks on.
    Ends(TaskId, Exit),
}

#[derive(Debug)]
pub struct Runtime {
    dice: Dice,
    node: NodeRecord,
    records: BTreeMap<TaskId, TaskRecord>,
    pub containers: BTreeMap<TaskId, Container>,
    /// Every task ever started here. None is started twice.
    started: BTreeSet<TaskId>,
    pub mesh: Arc<Mesh>,
    /// Operations of the kernel's network that fail, of a thousand.
    pub network_failures: u64,
    /// What no agent may do, and did.
    pub wrongs: Vec<String>,
    failed_pulls: BTreeMap<TaskId, u32>,
    pids: u32,
}

impl Runtime {
    pub fn new(dice: Dice) -> Self {
        Self {
            dice,
            node: NodeRecord::default(),
            records: BTreeMap::new(),
            containers: BTreeMap::new(),
            started: BTreeSet::new(),
            mesh: Arc::default(),
            network_failures: 0,
            wrongs: Vec::new(),
            failed_pulls: BTreeMap::new(),
            pids: 100,
        }
    }

    pub fn persist(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Node(node) => self.node = node,
                Change::Task(record) => drop(self.records.insert(record.assignment.task, record)),
                Change::Forget(task) => drop(self.records.remove(&task)),
            }
        }
    }

    pub fn known_managers(&self) -> &[String] {
        &self.node.managers
    }

    pub fn name_managers(&mut self, managers: &[String]) {
        self.node.managers = managers.to_vec();
    }

    pub fn records(&self) -> impl Iterator<Item = &TaskRecord> {
        self.records.values()
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.values().filter(|container| container.is_running())
    }

    pub fn operate(&mut self, now: Timestamp, operation: Operation) -> Vec<(Duration, Later)> {
        let soon = self.dice.micros(50..400);
        match operation {
            Operation::OpenNetwork(_) => {
                let result = self.kernel();
                vec![(soon, Later::Tell(Event::NetworkOpened { result }))]
            }
            Operation::ProgramMesh(mesh) => {
                let result = self.kernel();
                if result.is_ok() {
                    self.mesh = mesh;
                }
                vec![(soon, Later::Tell(Event::MeshProgrammed { result }))]
            }
            Operation::Prepare(assignment) => {
                let after = self.dice.millis(1..40);
                let (task, result) = (assignment.task, self.prepare(&assignment));
                vec![(after, Later::Tell(Event::Prepared { task, result }))]
            }
            Operation::Start(assignment) => self.start(now, &assignment),
            Operation::Stop(assignment) => self.stop(&assignment),
            Operation::Kill(task) => vec![(soon, Later::Ends(task, signalled(137, "SIGKILL")))],
            Operation::Remove(task) => {
                self.containers.remove(&task);
                vec![(soon, Later::Tell(Event::Removed { task, result: Ok(()) }))]
            }
            Operation::CancelPrepare(_) | Operation::SetPorts(_) | Operation::CollectGarbage { .. } => {
                Vec::new()
            }
        }
    }

    fn kernel(&mut self) -> Result<(), String> {
        let chance = self.network_failures;
        if self.dice.per_mille(chance) { Err("the kernel refused".to_owned()) } else { Ok(()) }
    }

    fn prepare(&mut self, assignment: &Assignment) -> Result<(), PrepareFailure> {
        match Behaviour::of(&assignment.spec.container.args) {
            Behaviour::CannotBePrepared => Err(PrepareFailure::Final("no such image".to_owned())),
            Behaviour::FlakyImage if self.pulls_fail(assignment.task) => {
                Err(PrepareFailure::Transient("the registry does not answer".to_owned()))
            }
            Behaviour::Serves
            | Behaviour::Exits { .. }
            | Behaviour::FlakyImage
            | Behaviour::CannotStart
            | Behaviour::IgnoresStop => Ok(()),
        }
    }

    /// Of one task not more often than a cluster that has healed can wait for: the pauses between double.
    fn pulls_fail(&mut self, task: TaskId) -> bool {
        let failed = self.failed_pulls.entry(task).or_default();
        let fails = *failed < MAX_FAILED_PULLS && self.dice.coin();
        *failed += u32::from(fails);
        fails
    }

    fn start(&mut self, now: Timestamp, assignment: &Arc<Assignment>) -> Vec<(Duration, Later)> {
        let task = assignment.task;
        let took = self.dice.millis(1..15);
        let behaviour = Behaviour::of(&assignment.spec.container.args);
        if behaviour == Behaviour::CannotStart {
            // An agent that ended before it was told tries again: nothing ever ran.
            let result = Err("exec: no such file".to_owned());
            return vec![(took, Later::Tell(Event::Started { task, result }))];
        }
        if !self.started.insert(task) {
            self.wrongs.push(format!("task {task} is started a second time"));
        }
        self.pids += 1;
        let pid = self.pids;
        let found = Found::Running { pid, since: now + took };
        self.containers.insert(task, Container { assignment: Arc::clone(assignment), found });
        let mut later = vec![(took, Later::Tell(Event::Started { task, result: Ok(pid) }))];
        if let Behaviour::Exits { code, after } = behaviour {
            later.push((took + after, Later::Ends(task, Exit::Code { code, signal: None, oom: false })));
        }
        later
    }

    fn stop(&mut self, assignment: &Assignment) -> Vec<(Duration, Later)> {
        if Behaviour::of(&assignment.spec.container.args) == Behaviour::IgnoresStop {
            return Vec::new();
        }
        let after = self.dice.millis(1..200);
        vec![(after, Later::Ends(assignment.task, signalled(143, "SIGTERM")))]
    }

    /// A container ends. `true` if it ran until now.
    pub fn end(&mut self, task: TaskId, exit: &Exit) -> bool {
        let container = self.containers.get_mut(&task).filter(|container| container.is_running());
        container.map(|container| container.found = Found::Exited(exit.clone())).is_some()
    }

    /// The machine is made anew.
    pub fn wipe(&mut self) {
        self.node = NodeRecord::default();
        self.records.clear();
        self.containers.clear();
        self.mesh = Arc::default();
    }

    /// What the next process of the agent finds.
    pub fn recover(&self, before_reboot: BTreeSet<TaskId>) -> Recovered {
        let containers = self.containers.iter();
        Recovered {
            node: self.node.clone(),
            tasks: self.records.values().cloned().collect(),
            containers: containers.map(|(task, container)| (*task, container.found.clone())).collect(),
            before_reboot,
        }
    }

    /// The machine goes down: no container survives, what is programmed is gone. Answers whose records are of before.
    pub fn reboot(&mut self) -> BTreeSet<TaskId> {
        self.mesh = Arc::default();
        for container in self.containers.values_mut().filter(|container| container.is_running()) {
            container.found = Found::Exited(Exit::Lost { reason: "nobody saw how it ended".to_owned() });
        }
        self.records.keys().copied().collect()
    }

    /// For mutations: a record and its container are forgotten, though the container runs.
    pub fn forget_in(recovered: &mut Recovered) {
        if let Some(task) = recovered.containers.keys().next().copied() {
            recovered.containers.remove(&task);
            recovered.tasks.retain(|record| record.assignment.task != task);
        }
    }
}

fn signalled(code: i32, signal: &str) -> Exit {
    Exit::Code { code, signal: Some(signal.to_owned()), oom: false }
}
