//! A node that exists only in memory, for tests, the simulator and the fleet benchmark: it does every operation after a
//! given time and stops at once what would be a bug on a real one.
//!
//! It decides nothing, and it fails only where it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{TaskId, Timestamp};

use crate::{Change, Event, Exit, Found, NodeRecord, Operation, Recovered, TaskRecord};

/// How long operations take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delays {
    pub prepare: Duration,
    pub start: Duration,
    /// From the stop signal to the container's end.
    pub stop: Duration,
}

/// What the node holds, and what is under way on it.
#[derive(Debug, Default)]
pub struct FakeNode {
    delays: Delays,
    /// Tasks whose container ends only by a kill.
    pub stubborn: BTreeSet<TaskId>,
    node: NodeRecord,
    records: BTreeMap<TaskId, TaskRecord>,
    containers: BTreeMap<TaskId, Found>,
    /// Every task ever started here. None is started twice.
    started: BTreeSet<TaskId>,
    coming: BTreeMap<(Timestamp, u64), Event>,
    sequence: u64,
}

impl FakeNode {
    pub fn new(delays: Delays) -> Self {
        Self { delays, ..Self::default() }
    }

    pub fn persist(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Node(node) => self.node = node,
                Change::Task(record) => {
                    self.records.insert(record.assignment.task, record);
                }
                Change::Forget(task) => {
                    self.records.remove(&task);
                }
            }
        }
    }

    /// Begins an operation; its answer is among the events that come due.
    pub fn operate(&mut self, now: Timestamp, operation: Operation) {
        let Delays { prepare, start, stop } = self.delays;
        match operation {
            Operation::OpenNetwork(_) => self.schedule(now, Event::NetworkOpened { result: Ok(()) }),
            Operation::ProgramMesh(_) => self.schedule(now, Event::MeshProgrammed { result: Ok(()) }),
            Operation::Prepare(assignment) => {
                self.schedule(now + prepare, Event::Prepared { task: assignment.task, result: Ok(()) });
            }
            Operation::Start(assignment) => {
                let task = assignment.task;
                assert!(self.started.insert(task), "task {task} is started a second time");
                let pid = u32::try_from(self.started.len()).expect("few tasks");
                self.containers.insert(task, Found::Running { pid, since: now + start });
                self.schedule(now + start, Event::Started { task, result: Ok(pid) });
            }
            Operation::Stop(assignment) if !self.stubborn.contains(&assignment.task) => {
                self.exit(now + stop, assignment.task, code(143, "SIGTERM"));
            }
            Operation::Kill(task) => self.exit(now, task, code(137, "SIGKILL")),
            Operation::Remove(task) => {
                self.containers.remove(&task);
                self.schedule(now, Event::Removed { task, result: Ok(()) });
            }
            Operation::Stop(_)
            | Operation::CancelPrepare(_)
            | Operation::SetPorts(_)
            | Operation::CollectGarbage { .. } => {}
        }
    }

    /// Has a running container end, by itself or by a signal.
    pub fn exit(&mut self, at: Timestamp, task: TaskId, exit: Exit) {
        if let Some(found @ Found::Running { .. }) = self.containers.get_mut(&task) {
            *found = Found::Exited(exit.clone());
            self.schedule(at, Event::Exited { task, exit });
        }
    }

    fn schedule(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.coming.insert((at, self.sequence), event);
    }

    pub fn next_event_at(&self) -> Option<Timestamp> {
        self.coming.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next event whose time has come.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Event> {
        if self.next_event_at()? > now {
            return None;
        }
        self.pop_next().map(|(_, event)| event)
    }

    /// Takes the next event with its time, for whoever waits for it by a clock of their own.
    pub fn pop_next(&mut self) -> Option<(Timestamp, Event)> {
        self.coming.pop_first().map(|((at, _), event)| (at, event))
    }

    /// Tasks whose container runs.
    pub fn running(&self) -> impl Iterator<Item = TaskId> {
        let running = self.containers.iter().filter(|(_, found)| matches!(found, Found::Running { .. }));
        running.map(|(task, _)| *task)
    }

    /// Tasks of which a container, running or not, is on the node.
    pub fn containers(&self) -> impl Iterator<Item = TaskId> {
        self.containers.keys().copied()
    }

    /// The agent's process ends: what was under way is lost, containers and disk stay. What the next one finds.
    pub fn restart_agent(&mut self) -> Recovered {
        self.coming.clear();
        Recovered {
            node: self.node.clone(),
            tasks: self.records.values().cloned().collect(),
            containers: self.containers.clone(),
            before_reboot: BTreeSet::new(),
        }
    }

    /// The machine goes down: no container survives.
    pub fn reboot(&mut self) -> Recovered {
        for found in self.containers.values_mut() {
            if matches!(found, Found::Running { .. }) {
                *found = Found::Exited(Exit::Lost { reason: "nobody saw how it ended".to_owned() });
            }
        }
        let before_reboot = self.records.keys().copied().collect();
        Recovered { before_reboot, ..self.restart_agent() }
    }
}

fn code(code: i32, signal: &str) -> Exit {
    Exit::Code { code, signal: Some(signal.to_owned()), oom: false }
}

/// An assignment for tests: a task of service `web` without limits, ports or anything special.
pub fn assignment(task: TaskId, desired: swarm_model::DesiredState) -> swarm_model::Assignment {
    use swarm_model::{ImageRef, Placement, PullSource, ServiceId, TaskSpec};
    let image = ImageRef { name: "shop/web:1".to_owned(), digest: None, source: PullSource::Cluster };
    let container = swarm_model::ContainerSpec {
        image,
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
    };
    let spec = TaskSpec {
        container,
        limits: swarm_model::Limits::default(),
        reservations: swarm_model::Resources::default(),
        restart: swarm_model::RestartPolicy::default(),
        placement: Placement::default(),
        force_update: 0,
    };
    swarm_model::Assignment {
        task,
        service: ServiceId::from_u128(1),
        service_name: "web".to_owned(),
        service_labels: BTreeMap::new(),
        slot: 1,
        desired,
        // One of its own, as long as tests name tasks by small numbers.
        address: std::net::Ipv4Addr::from_bits(0x0ac0_0000 + (task.as_u128() & 0xffff) as u32),
        spec: Arc::new(spec),
        ports: Vec::new(),
    }
}
