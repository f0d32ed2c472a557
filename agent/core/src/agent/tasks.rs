//! What is done about tasks: orders, steps, and the answers of operations.

use std::sync::Arc;
use std::time::Duration;

use swarm_model::{Assignment, TaskId, TaskState, TaskStatus, Timestamp};

use super::AgentCore;
use crate::door::{Exit, Operation, PrepareFailure, TaskRecord};
use crate::outcome::status_of;
use crate::task::{Entry, Phase, Step, failed, next_step, status};
use crate::timer::Timer;

/// Attempts to prepare after the first one, and the pause before the first of them; each later one doubles. In all
/// some 15 s: a manager's or registry's restart, not an outage.
const PREPARE_RETRIES: u32 = 5;
const FIRST_PREPARE_PAUSE: Duration = Duration::from_millis(500);
/// After a SIGKILL that ended nothing, until the next one.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// First and longest pause after a removal that left something.
const FIRST_REMOVAL_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_REMOVAL_PAUSE: Duration = Duration::from_secs(60);

/// A task that is being removed. Nothing of it runs, and it takes no orders.
#[derive(Debug)]
pub(super) struct Removal {
    /// What was known of it, for disk and for a full report; strays have none.
    pub record: Option<TaskRecord>,
    failures: u32,
}

impl Removal {
    pub fn status(&self) -> Option<&TaskStatus> {
        self.record.as_ref()?.ended.as_ref()
    }
}

impl AgentCore {
    /// Marks a task whose facts changed: its record, its next step and its report.
    pub(super) fn changed(&mut self, task: TaskId) {
        self.unsaved.insert(task);
        self.marked.insert(task);
        self.tell(task);
    }

    fn tell(&mut self, task: TaskId) {
        if let Some(entry) = self.tasks.get(&task) {
            self.outbox.put(task, entry.status.clone(), entry.has_arrived());
        }
    }

    /// Raises a task's state and reports it. Only an end is worth a write to disk: everything before it is found again.
    fn rise(&mut self, task: TaskId, to: TaskStatus) {
        let is_end = to.state.is_final();
        if let Some(entry) = self.tasks.get_mut(&task)
            && entry.rise(to)
        {
            if is_end {
                self.unsaved.insert(task);
            }
            self.tell(task);
        }
    }

    /// Orders for one task, new or known.
    pub(super) fn order(&mut self, now: Timestamp, assignment: Assignment) {
        let task = assignment.task;
        if self.removals.contains_key(&task) {
            return;
        }
        let Some(entry) = self.tasks.get_mut(&task) else {
            self.tasks.insert(task, Entry::new(Arc::new(assignment), now));
            return self.changed(task);
        };
        let ports_changed = entry.assignment.ports != assignment.ports;
        if entry.order(assignment) {
            if ports_changed && entry.phase == Phase::Running {
                self.operations.push(Operation::SetPorts(Arc::clone(&entry.assignment)));
            }
            self.unsaved.insert(task);
            self.marked.insert(task);
        }
    }

    pub(super) fn order_removal(&mut self, now: Timestamp, task: TaskId) {
        let Some(entry) = self.tasks.get_mut(&task) else {
            // It never came here, and the manager waits to hear that nothing of it runs.
            if !self.removals.contains_key(&task) {
                self.outbox.put(task, status(TaskState::Shutdown, now), true);
            }
            return;
        };
        if entry.order_removal() {
            self.unsaved.insert(task);
            self.marked.insert(task);
        }
    }

    pub(super) fn remove_stray(&mut self, task: TaskId) {
        tracing::info!(task.id = %task, "removing a container that is not assigned to this node");
        self.removals.insert(task, Removal { record: None, failures: 0 });
        self.remove.enter(task);
    }

    /// Takes the next step of every marked task.
    pub(super) fn take_steps(&mut self, now: Timestamp) {
        while let Some(task) = self.marked.pop_first() {
            self.take_step(now, task);
        }
    }

    fn take_step(&mut self, now: Timestamp, task: TaskId) {
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        // A record that says "ended" over a container that runs is a stop that was cut short.
        let step = if entry.phase == Phase::Running && entry.status.state.is_final() {
            Step::Stop
        } else {
            next_step(entry.phase, entry.desired(), self.confirmed)
        };
        match step {
            Step::Rest => {}
            Step::QueuePrepare => {
                entry.phase = Phase::PrepareQueued;
                self.prepare.enter(task);
            }
            Step::CancelPrepare => {
                entry.phase = Phase::Cancelling;
                self.operations.push(Operation::CancelPrepare(task));
                self.rise(task, status(TaskState::Shutdown, now));
            }
            Step::QueueStart => match self.holder(task) {
                Some(holder) => self.block(task, holder),
                None => self.queue_start(task),
            },
            Step::Stop => self.stop(now, task),
            Step::EndUnstarted => {
                entry.phase = Phase::Ended;
                self.marked.insert(task);
                self.marked.append(&mut self.blocked);
                self.rise(task, status(TaskState::Shutdown, now));
            }
            Step::Remove => {
                let record = self.tasks.remove(&task).map(|entry| entry.record());
                self.removals.insert(task, Removal { record, failures: 0 });
                self.remove.enter(task);
            }
        }
    }

    fn queue_start(&mut self, task: TaskId) {
        if let Some(entry) = self.tasks.get_mut(&task) {
            entry.phase = Phase::StartQueued;
            self.start.enter(task);
        }
    }

    /// A task that still has what this one is to have. The managers give nothing twice, but a node that was away and
    /// comes back is told to stop the old and to start the new at once.
    fn holder(&self, task: TaskId) -> Option<TaskId> {
        let wanted = &self.tasks.get(&task)?.assignment;
        let holds = |entry: &Entry| entry.phase.may_run() && entry.assignment.excludes(wanted);
        self.tasks.iter().find(|(other, entry)| **other != task && holds(entry)).map(|(other, _)| *other)
    }

    fn block(&mut self, task: TaskId, holder: TaskId) {
        self.blocked.insert(task);
        if let Some(entry) = self.tasks.get_mut(&task) {
            entry.status.message =
                format!("waits for task {holder} of this node to give up its port or address");
        }
        self.tell(task);
    }

    fn stop(&mut self, now: Timestamp, task: TaskId) {
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        entry.phase = Phase::Stopping;
        let grace = entry.assignment.spec.container.stop_grace_period;
        if grace.is_zero() {
            return self.grace_is_over(now, task);
        }
        self.operations.push(Operation::Stop(Arc::clone(&entry.assignment)));
        self.timers.set(Timer::Kill(task), now + grace);
    }

    pub(super) fn grace_is_over(&mut self, now: Timestamp, task: TaskId) {
        if self.tasks.get(&task).is_some_and(|entry| entry.phase == Phase::Stopping) {
            self.operations.push(Operation::Kill(task));
            self.timers.set(Timer::Kill(task), now + KILL_AGAIN);
        }
    }

    /// Lets those who wait in line begin where a place is free.
    pub(super) fn fill_lanes(&mut self, now: Timestamp) {
        while let Some(task) = self.prepare.next() {
            if let Some(assignment) = self.begin(task, Phase::PrepareQueued, Phase::Preparing) {
                self.prepare.begin();
                self.operations.push(Operation::Prepare(assignment));
                self.rise(task, status(TaskState::Preparing, now));
            }
        }
        while let Some(task) = self.start.next() {
            if let Some(assignment) = self.begin(task, Phase::StartQueued, Phase::Starting) {
                self.start.begin();
                self.operations.push(Operation::Start(assignment));
                self.rise(task, status(TaskState::Starting, now));
            }
        }
        while let Some(task) = self.remove.next() {
            self.remove.begin();
            self.operations.push(Operation::Remove(task));
        }
    }

    /// Moves a task that waited in line to its operation; `None` if it does not wait any more.
    fn begin(&mut self, task: TaskId, from: Phase, to: Phase) -> Option<Arc<Assignment>> {
        let entry = self.tasks.get_mut(&task).filter(|entry| entry.phase == from)?;
        entry.phase = to;
        Some(Arc::clone(&entry.assignment))
    }

    pub(super) fn prepared(&mut self, now: Timestamp, task: TaskId, result: Result<(), PrepareFailure>) {
        self.prepare.end();
        self.marked.insert(task);
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        match (entry.phase, result) {
            (Phase::Preparing, Ok(())) => {
                entry.phase = Phase::Ready;
                self.rise(task, status(TaskState::Ready, now));
            }
            (Phase::Preparing, Err(PrepareFailure::Transient(error))) if entry.failures < PREPARE_RETRIES => {
                entry.phase = Phase::PreparePaused;
                self.timers.set(Timer::Prepare(task), now + FIRST_PREPARE_PAUSE * 2u32.pow(entry.failures));
                entry.failures += 1;
                entry.status.message = format!("trying again: {error}");
                self.tell(task);
            }
            (Phase::Preparing, Err(PrepareFailure::Transient(error) | PrepareFailure::Final(error))) => {
                entry.phase = Phase::Ended;
                self.rise(task, failed(TaskState::Rejected, now, error));
            }
            // It was cancelled; the end has been reported.
            (_, _) => entry.phase = Phase::Ended,
        }
    }

    pub(super) fn prepare_again(&mut self, task: TaskId) {
        if let Some(entry) = self.tasks.get_mut(&task).filter(|entry| entry.phase == Phase::PreparePaused) {
            entry.phase = Phase::PrepareQueued;
            self.prepare.enter(task);
        }
    }

    pub(super) fn started(&mut self, now: Timestamp, task: TaskId, result: Result<u32, String>) {
        self.start.end();
        self.marked.insert(task);
        let Some(entry) = self.tasks.get_mut(&task).filter(|entry| entry.phase == Phase::Starting) else {
            return;
        };
        match result {
            Ok(pid) => {
                entry.phase = Phase::Running;
                self.rise(task, TaskStatus { pid: Some(pid), ..status(TaskState::Running, now) });
            }
            Err(error) => {
                entry.phase = Phase::Ended;
                self.marked.append(&mut self.blocked);
                self.rise(task, failed(TaskState::Failed, now, error));
            }
        }
    }

    pub(super) fn exited(&mut self, now: Timestamp, task: TaskId, exit: Exit) {
        let Some(entry) = self.tasks.get_mut(&task) else { return self.stray_exited(task, exit) };
        let asked = entry.phase == Phase::Stopping;
        entry.phase = Phase::Ended;
        let end = status_of(&exit, asked, &entry.assignment.spec.limits, now);
        self.timers.clear(Timer::Kill(task));
        self.marked.insert(task);
        self.marked.append(&mut self.blocked);
        self.rise(task, end);
    }

    pub(super) fn removed(&mut self, now: Timestamp, task: TaskId, result: Result<(), String>) {
        self.remove.end();
        match (result, self.removals.get_mut(&task)) {
            (Ok(()), _) | (_, None) => {
                self.removals.remove(&task);
                self.forgotten.insert(task);
            }
            (Err(error), Some(removal)) => {
                tracing::warn!(task.id = %task, error, "a task is not wholly removed; trying again");
                let pause = FIRST_REMOVAL_PAUSE * 2u32.pow(removal.failures.min(10));
                removal.failures = removal.failures.saturating_add(1);
                self.timers.set(Timer::Remove(task), now + pause.min(LONGEST_REMOVAL_PAUSE));
            }
        }
    }

    pub(super) fn progress(&mut self, task: TaskId, message: String) {
        if let Some(entry) = self.tasks.get_mut(&task)
            && entry.phase == Phase::Preparing
        {
            entry.status.message = message;
            self.tell(task);
        }
    }
}
