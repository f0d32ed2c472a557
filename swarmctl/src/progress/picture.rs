//! What is known of a service and its tasks, and what follows from it. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use swarm_proto::v1;
use v1::update_status::State;

/// Failures in a row after which a slot is called broken.
const BROKEN_AFTER: u32 = 3;
/// How long nothing may move before waiting tasks are called stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// How long before the reason of a standstill is shown.
pub const REASON_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Every slot runs, and nothing else does.
    Running,
    /// The update (or rollback) that is under way has ended.
    Updated,
    /// Nothing is left.
    Removed,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Going,
    Reached,
    RolledBack(String),
    Failed(String),
}

#[derive(Debug)]
pub struct Picture {
    pub service: v1::Service,
    pub synced: bool,
    removed: bool,
    tasks: BTreeMap<String, v1::Task>,
    changed: Instant,
}

impl Picture {
    pub fn new(service: v1::Service) -> Self {
        Self { service, synced: false, removed: false, tasks: BTreeMap::new(), changed: Instant::now() }
    }

    pub fn apply(&mut self, event: v1::WatchEvent, now: Instant) {
        use v1::watch_event::Event;
        match event.event {
            Some(Event::Service(service)) if service.id == self.service.id => {
                if self.service.update != service.update {
                    self.changed = now;
                }
                self.service = service;
            }
            Some(Event::Task(task)) if task.service_id == self.service.id => {
                let state = |task: &v1::Task| {
                    task.status.as_ref().map(|status| (status.state, status.message.clone()))
                };
                if self.tasks.get(&task.id).is_none_or(|old| state(old) != state(&task)) {
                    self.changed = now;
                }
                self.tasks.insert(task.id.clone(), task);
            }
            Some(Event::RemovedTaskId(id)) => {
                if self.tasks.remove(&id).is_some() {
                    self.changed = now;
                }
            }
            Some(Event::RemovedServiceId(id)) => self.removed |= id == self.service.id,
            Some(Event::Synced(_)) => self.synced = true,
            Some(Event::Service(_) | Event::Task(_) | Event::Node(_) | Event::RemovedNodeId(_)) | None => {}
        }
    }

    pub fn replicas(&self) -> u32 {
        self.service
            .spec
            .as_ref()
            .and_then(|spec| spec.mode.as_ref())
            .and_then(|mode| mode.mode.as_ref())
            .map_or(1, |mode| {
                let v1::service_mode::Mode::Replicated(replicated) = mode;
                replicated.replicas
            })
    }

    /// For each slot up to the number of replicas its task of interest: the newest wanted one, else the newest.
    pub fn slots(&self) -> Vec<Option<&v1::Task>> {
        let mut slots = vec![None::<&v1::Task>; self.replicas() as usize];
        for task in self.tasks.values() {
            let rank = |task: &v1::Task| (wanted(task), task.meta.map(|meta| meta.created_at), task.revision);
            if let Some(slot) = (task.slot as usize).checked_sub(1).and_then(|index| slots.get_mut(index))
                && slot.is_none_or(|old| rank(old) < rank(task))
            {
                *slot = Some(task);
            }
        }
        slots
    }

    /// Slots that are as they should be.
    pub fn done(&self) -> usize {
        self.slots().into_iter().flatten().filter(|task| self.is_done(task)).count()
    }

    fn is_done(&self, task: &v1::Task) -> bool {
        let revision =
            self.service.update.as_ref().filter(|update| active(update)).map(|update| update.to_revision);
        let current = revision.is_none_or(|revision| revision == task.revision);
        current && matches!(state(task), v1::TaskState::Running | v1::TaskState::Complete)
    }

    /// Tasks that still run although nothing wants them.
    pub fn leaving(&self) -> usize {
        self.tasks.values().filter(|task| !wanted(task) && !ended(task)).count()
    }

    pub fn verdict(&self, goal: Goal, now: Instant) -> Verdict {
        match goal {
            Goal::Removed if self.removed && self.tasks.is_empty() => Verdict::Reached,
            Goal::Removed => Verdict::Going,
            Goal::Running if self.done() == self.replicas() as usize && self.leaving() == 0 => {
                Verdict::Reached
            }
            Goal::Running => {
                self.broken().or_else(|| self.stuck(now)).map_or(Verdict::Going, Verdict::Failed)
            }
            Goal::Updated => self.update_verdict(now),
        }
    }

    fn update_verdict(&self, now: Instant) -> Verdict {
        let Some(update) = &self.service.update else { return self.verdict(Goal::Running, now) };
        match update.state() {
            State::Unspecified | State::Completed => {
                if self.done() == self.replicas() as usize {
                    Verdict::Reached
                } else {
                    self.verdict(Goal::Running, now)
                }
            }
            State::Updating | State::RollbackStarted => Verdict::Going,
            State::RollbackCompleted => Verdict::RolledBack(update.message.clone()),
            State::Paused | State::RollbackPaused => Verdict::Failed(format!("paused: {}", update.message)),
        }
    }

    /// A slot that failed again and again, or failed for good.
    fn broken(&self) -> Option<String> {
        self.slots().into_iter().flatten().find_map(|task| {
            let slot_failures =
                self.tasks.values().filter(|other| other.slot == task.slot && failed(other)).count();
            let for_good = failed(task);
            let looping = task.restarts >= BROKEN_AFTER
                || u32::try_from(slot_failures).unwrap_or(u32::MAX) >= BROKEN_AFTER;
            (for_good || (looping && !self.is_done(task))).then(|| {
                let newest = self.tasks.values().filter(|other| other.slot == task.slot && failed(other));
                let last = newest.max_by_key(|task| task.meta.map(|meta| meta.created_at)).unwrap_or(task);
                format!(
                    "{}.{} failed {} times, last: {}",
                    task.service_name,
                    task.slot,
                    slot_failures.max(1),
                    reason(last)
                )
            })
        })
    }

    /// Nothing moves, and every slot that is missing waits for a node.
    fn stuck(&self, now: Instant) -> Option<String> {
        let mut missing =
            self.slots().into_iter().filter(|slot| slot.is_none_or(|task| !self.is_done(task))).peekable();
        let waits = missing.peek().is_some()
            && missing.all(|slot| {
                slot.is_some_and(|task| state(task) == v1::TaskState::Pending && !reason(task).is_empty())
            });
        (waits && now.duration_since(self.changed) >= STUCK_AFTER).then(|| self.standstill()).flatten()
    }

    pub fn since_change(&self, now: Instant) -> Duration {
        now.duration_since(self.changed)
    }

    /// Why it does not move on: the first slot that is not done, and what it says.
    pub fn standstill(&self) -> Option<String> {
        let task = self.slots().into_iter().flatten().find(|task| !self.is_done(task))?;
        let of = format!("{}.{}", task.service_name, task.slot);
        Some(match (state(task), reason(task)) {
            (v1::TaskState::Running, _) => {
                format!("{of} waits for its turn: the tasks before it are watched first")
            }
            (state, "") => format!("{of} is {}", name(state)),
            (state, reason) => format!("{of} is {}: {reason}", name(state)),
        })
    }

    /// Host names of the nodes where it runs, each once.
    pub fn nodes(&self) -> Vec<String> {
        let mut nodes: Vec<String> = self
            .slots()
            .into_iter()
            .flatten()
            .map(|task| task.node_hostname.clone())
            .filter(|name| !name.is_empty())
            .collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

fn active(update: &v1::UpdateStatus) -> bool {
    matches!(update.state(), State::Updating | State::RollbackStarted)
}

pub fn state(task: &v1::Task) -> v1::TaskState {
    task.status.as_ref().map_or(v1::TaskState::New, v1::TaskStatus::state)
}

pub fn name(state: v1::TaskState) -> String {
    state.as_str_name().trim_start_matches("TASK_STATE_").to_lowercase()
}

/// The error, else what it is doing.
pub fn reason(task: &v1::Task) -> &str {
    task.status
        .as_ref()
        .map_or("", |status| if status.error.is_empty() { &status.message } else { &status.error })
}

fn wanted(task: &v1::Task) -> bool {
    task.desired <= v1::DesiredState::Running as i32
}

fn ended(task: &v1::Task) -> bool {
    state(task) as i32 >= v1::TaskState::Complete as i32
}

fn failed(task: &v1::Task) -> bool {
    matches!(state(task), v1::TaskState::Failed | v1::TaskState::Rejected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::watch_event::Event;

    struct World(Picture);

    impl World {
        fn new(replicas: u32) -> Self {
            let mode = v1::service_mode::Mode::Replicated(v1::service_mode::Replicated { replicas });
            let spec =
                v1::ServiceSpec { mode: Some(v1::ServiceMode { mode: Some(mode) }), ..Default::default() };
            Self(Picture::new(v1::Service { id: "s".into(), spec: Some(spec), ..Default::default() }))
        }

        fn task(mut self, slot: u32, state: v1::TaskState, error: &str, restarts: u32) -> Self {
            let id = format!("{slot}-{restarts}-{}", state as i32);
            let status = v1::TaskStatus { state: state as i32, error: error.into(), ..Default::default() };
            let task = v1::Task {
                id,
                service_id: "s".into(),
                service_name: "web".into(),
                slot,
                restarts,
                meta: Some(v1::Meta { created_at: restarts.into(), ..Default::default() }),
                desired: v1::DesiredState::Running as i32,
                status: Some(status),
                ..Default::default()
            };
            let event = v1::WatchEvent { index: 1, event: Some(Event::Task(task)) };
            self.0.apply(event, Instant::now());
            self
        }

        fn verdict(&self, later: Duration) -> Verdict {
            self.0.verdict(Goal::Running, Instant::now() + later)
        }
    }

    #[test]
    fn all_running_is_reached_at_once() {
        let world = World::new(2).task(1, v1::TaskState::Running, "", 0);
        assert_eq!(world.verdict(Duration::ZERO), Verdict::Going);
        assert_eq!(world.task(2, v1::TaskState::Running, "", 0).verdict(Duration::ZERO), Verdict::Reached);
    }

    #[test]
    fn tasks_that_fit_nowhere_are_an_error_after_a_while() {
        let world = World::new(1).task(1, v1::TaskState::Pending, "no suitable node", 0);
        assert_eq!(world.verdict(Duration::from_secs(1)), Verdict::Going);
        assert_eq!(
            world.verdict(Duration::from_secs(6)),
            Verdict::Failed("web.1 is pending: no suitable node".into())
        );
    }

    #[test]
    fn a_crash_loop_is_an_error_with_the_cause() {
        let world = World::new(1).task(1, v1::TaskState::Failed, "exit code 1", 2).task(
            1,
            v1::TaskState::Ready,
            "",
            3,
        );
        let Verdict::Failed(reason) = world.verdict(Duration::ZERO) else { panic!("not failed") };
        assert!(reason.ends_with("last: exit code 1"), "{reason}");
    }
}
