//! Text scenarios: commands at the margin, what they lead to indented below.

use std::fmt::Write as _;

use swarm_model::{DesiredState, NodeId, ServiceMode, TaskId, TaskState, Timestamp, UpdateState};

use super::super::{Remark, ServicePlan, TaskAction};
use super::spec;
use super::world::{NodeIs, START, World, status};

/// Decisions that one command may lead to before the scenario is taken for an endless loop.
const MAX_DECISIONS: usize = 1_000;

/// Runs a scenario's commands and compares all that happens with what the text says.
pub fn check(name: &str, text: &str) {
    let mut stage = Stage::default();
    let mut actual = String::new();
    for line in text.lines() {
        if line.starts_with(' ') {
            continue;
        }
        actual.push_str(line);
        actual.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            for happened in stage.command(line) {
                writeln!(actual, "  {happened}").unwrap();
            }
        }
    }
    assert!(actual == text, "scenario {name} goes another way; it is now:\n=====\n{actual}=====");
}

#[derive(Default)]
struct Stage {
    nodes: u128,
    world: Option<World>,
    /// Agents do at once what they are told.
    obedient: bool,
    remarks: Vec<Remark>,
    lines: Vec<String>,
}

impl Stage {
    fn command(&mut self, line: &str) -> Vec<String> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let rest: Vec<&str> = words.collect();
        match verb {
            "nodes" => self.nodes = rest[0].parse().unwrap(),
            "service" => {
                let mut spec = spec::plain(rest[0]);
                rest[1..].iter().for_each(|word| spec::set(&mut spec, word));
                self.world = Some(World::new(spec, if self.nodes == 0 { 3 } else { self.nodes }));
                self.decide();
            }
            "agents" => {
                self.obedient = rest[0] == "obey";
                self.decide();
            }
            "settle" => {
                let before = std::mem::replace(&mut self.obedient, true);
                self.decide();
                self.obedient = before;
            }
            "advance" => self.advance(spec::duration(rest[0])),
            "show" => self.show(),
            verb => {
                self.change(verb, &rest);
                self.decide();
            }
        }
        std::mem::take(&mut self.lines)
    }

    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("the scenario begins with a service")
    }

    fn change(&mut self, verb: &str, rest: &[&str]) {
        let world = self.world.as_mut().expect("the scenario begins with a service");
        match verb {
            "observe" => {
                let state = TaskState::ALL.into_iter().find(|state| state.name() == rest[1]).unwrap();
                world.report(task(world, rest[0]), status(state, None, ""));
            }
            "exit" => {
                let code: i32 = rest[1].parse().unwrap();
                let state = if code == 0 { TaskState::Complete } else { TaskState::Failed };
                let mut report = status(state, Some(code), "");
                report.oom_killed = rest.get(2) == Some(&"oom");
                world.report(task(world, rest[0]), report);
            }
            "reject" => {
                world.report(task(world, rest[0]), status(TaskState::Rejected, None, &rest[1..].join(" ")));
            }
            "scale" => {
                let mut spec = (*world.service.spec).clone();
                spec.mode = ServiceMode::Replicated { replicas: rest[0].parse().unwrap() };
                world.change_spec(spec);
            }
            "update" => {
                let mut spec = (*world.service.spec).clone();
                rest.iter().for_each(|word| spec::set(&mut spec, word));
                world.change_spec(spec);
            }
            "rollback" => world.roll_back_by_hand(rest[0].parse().unwrap()),
            "node" => {
                let is = match rest[1] {
                    "ready" => NodeIs::Ready,
                    "draining" => NodeIs::Draining,
                    "mismatch" => NodeIs::Mismatch,
                    "down" => NodeIs::Down(world.now),
                    "gone" => NodeIs::Gone,
                    "unknown" => NodeIs::Unknown,
                    other => panic!("a node is not {other}"),
                };
                world.set_node(NodeId::from_u128(rest[0][1..].parse().unwrap()), is);
                world.place();
            }
            "leader" => world.change_leader(),
            "room" => {
                world.room = rest[0] == "yes";
                world.place();
            }
            "broken" => drop(world.broken.insert(rest[0].to_owned(), rest[1].parse().unwrap())),
            "mended" => drop(world.broken.remove(rest[0])),
            "missing" => drop(world.missing.insert(rest[0].to_owned())),
            "remove" => world.removed = true,
            other => panic!("no command is called {other}"),
        }
    }

    /// Decides, and lets obedient agents act, until nothing happens any more.
    fn decide(&mut self) {
        for _ in 0..MAX_DECISIONS {
            let plan = self.world().decide();
            self.tell(&plan);
            let acted = if self.obedient { self.world().agents_obey() } else { Vec::new() };
            for (task, state) in &acted {
                let label = &self.world().labels[task];
                let line = format!("{label} is {state}");
                self.lines.push(line);
            }
            if plan.is_empty() && acted.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest; last:\n{}", self.lines[self.lines.len() - 20..].join("\n"));
    }

    /// Lets time pass, stopping wherever a plan asked for it.
    fn advance(&mut self, time: std::time::Duration) {
        let until = self.world().now + time;
        for _ in 0..MAX_DECISIONS {
            let world = self.world();
            let next = world.next_wakeup.filter(|wakeup| *wakeup <= until);
            let told = self.lines.len();
            let world = self.world();
            world.now = next.unwrap_or(until);
            let stamp = format!("at {}:", moment(world.now));
            self.decide();
            if self.lines.len() > told {
                self.lines.insert(told, stamp);
            }
            if next.is_none() {
                return;
            }
        }
        panic!("wakes up without end");
    }

    fn tell(&mut self, plan: &ServicePlan) {
        let world = self.world.as_ref().expect("it decided");
        self.lines.extend(told(world, plan));
        for remark in plan.remarks.iter().filter(|remark| !self.remarks.contains(remark)) {
            let mut text = remark.to_string();
            for (id, label) in &world.labels {
                text = text.replace(&id.to_string(), label);
            }
            self.lines.push(format!("note: {text}"));
        }
        self.remarks.clone_from(&plan.remarks);
    }

    fn show(&mut self) {
        let world = self.world.as_ref().expect("the scenario begins with a service");
        self.lines.extend(shown(world));
    }
}

/// Every task in a line.
pub fn shown(world: &World) -> Vec<String> {
    let mut tasks: Vec<_> = world.tasks.values().collect();
    tasks.sort_by_key(|task| (task.slot, task.created_at));
    tasks
        .into_iter()
        .map(|task| {
            let state = match (&task.outcome, world.seen.get(&task.id)) {
                (Some(outcome), _) => outcome.state,
                (None, Some(seen)) => seen.status.state,
                (None, None) if task.node.is_none() => TaskState::Pending,
                (None, None) => TaskState::Assigned,
            };
            format!(
                "{} on {}: revision {}, {state}, wanted {}",
                world.labels[&task.id],
                node(task.node),
                task.revision,
                task.desired
            )
        })
        .collect()
}

/// A plan in words, once it is applied.
pub fn told(world: &World, plan: &ServicePlan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(revision) = plan.rollback_to {
        lines.push(format!("the spec of revision {revision} is restored"));
    }
    if let Some(update) = &plan.update {
        let state = match update.state {
            UpdateState::Updating => "updating",
            UpdateState::Paused => "paused",
            UpdateState::Completed => "completed",
            UpdateState::RollbackStarted => "rollback started",
            UpdateState::RollbackPaused => "rollback paused",
            UpdateState::RollbackCompleted => "rollback completed",
        };
        let (from, to) = (update.from_revision, update.to_revision);
        lines.push(format!("update {state} ({from} -> {to}): {}", update.message));
    }
    lines.extend(plan.actions.iter().map(|action| action_in_words(world, action)));
    lines
}

fn action_in_words(world: &World, action: &TaskAction) -> String {
    let label = |id: &TaskId| world.labels[id].clone();
    match action {
        TaskAction::Create { id, desired, not_before, restarts, revision, .. } => {
            let mut text = format!("create {} on {}", label(id), node(world.tasks[id].node));
            if world.service.revisions.len() > 1 {
                write!(text, ", revision {revision}").unwrap();
            }
            if *desired == DesiredState::Ready {
                text.push_str(", prepared only");
            }
            if let Some(time) = not_before {
                write!(text, ", not before {}", moment(*time)).unwrap();
            }
            if *restarts > 0 {
                write!(text, ", restart {restarts}").unwrap();
            }
            text
        }
        TaskAction::SetDesired { id, desired } => match desired {
            DesiredState::Running => format!("start {}", label(id)),
            DesiredState::Shutdown => format!("stop {}", label(id)),
            DesiredState::Remove => format!("remove {}", label(id)),
            DesiredState::Ready => format!("prepare {}", label(id)),
        },
        TaskAction::Finish { id, outcome } => {
            let mut text = format!("{} ended: {}", label(id), outcome.state);
            if !outcome.reason.is_empty() {
                write!(text, ", {}", outcome.reason).unwrap();
            }
            if let Some(since) = outcome.ran_since {
                write!(text, " (ran {})", seconds(outcome.at.since(since))).unwrap();
            }
            text
        }
        TaskAction::Forget { id } => format!("forget {}", label(id)),
    }
}

fn node(node: Option<NodeId>) -> String {
    node.map_or("no node".to_owned(), |node| format!("n{}", node.as_u128()))
}

pub fn moment(time: Timestamp) -> String {
    format!("+{}", seconds(time.since(START)))
}

fn seconds(duration: std::time::Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths.is_multiple_of(10) {
        format!("{}s", tenths / 10)
    } else {
        format!("{}.{}s", tenths / 10, tenths % 10)
    }
}

/// By label; without a letter the newest of its slot.
fn task(world: &World, label: &str) -> TaskId {
    let exact = world.labels.iter().find(|(_, known)| *known == label).map(|(id, _)| *id);
    exact.unwrap_or_else(|| {
        let slot: u32 = label.rsplit('.').next().unwrap().parse().expect("a slot's number");
        let tasks = world.tasks.values().filter(|task| task.slot == slot);
        tasks.max_by_key(|task| task.created_at).expect("the slot has a task").id
    })
}
