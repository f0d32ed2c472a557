//! One task on this node: how far it is, and the next step towards what is desired.

use std::sync::Arc;

use swarm_model::{Assignment, DesiredState, TaskState, TaskStatus, Timestamp};

use crate::door::TaskRecord;

/// How far the node is with a task. Finer than the reported state: it also says what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    PrepareQueued,
    Preparing,
    /// It failed for a reason that may pass; a timer leads to the next attempt.
    PreparePaused,
    /// The preparation is not wanted any more and has not answered yet.
    Cancelling,
    Ready,
    StartQueued,
    Starting,
    Running,
    /// Told to stop.
    Stopping,
    /// Nothing of it runs, nothing is under way.
    Ended,
}

impl Phase {
    /// Whether a container of the task may be there, or is about to be.
    pub fn may_run(self) -> bool {
        match self {
            Self::StartQueued | Self::Starting | Self::Running | Self::Stopping => true,
            Self::New
            | Self::PrepareQueued
            | Self::Preparing
            | Self::PreparePaused
            | Self::Cancelling
            | Self::Ready
            | Self::Ended => false,
        }
    }
}

/// What to do next about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for an event, or for other orders.
    Rest,
    QueuePrepare,
    CancelPrepare,
    QueueStart,
    Stop,
    /// Stopped before anything of it ran.
    EndUnstarted,
    Remove,
}

/// The table of steps. Nothing but this decides what is done about a task.
///
/// `confirmed`: a manager has told this process everything that is assigned. Before that, orders of an earlier process
/// may have been given to another node meanwhile, so nothing new begins; what runs goes on.
pub(crate) fn next_step(phase: Phase, desired: DesiredState, confirmed: bool) -> Step {
    use DesiredState::{Ready, Remove, Running, Shutdown};
    match (phase, desired) {
        (Phase::New, Ready | Running) if confirmed => Step::QueuePrepare,
        (Phase::Ready, Running) if confirmed => Step::QueueStart,
        (Phase::New | Phase::Ready, Ready | Running) => Step::Rest,
        (
            Phase::PrepareQueued | Phase::Preparing | Phase::PreparePaused | Phase::StartQueued,
            Ready | Running,
        ) => Step::Rest,
        (
            Phase::New | Phase::PrepareQueued | Phase::PreparePaused | Phase::Ready | Phase::StartQueued,
            Shutdown | Remove,
        ) => Step::EndUnstarted,
        (Phase::Preparing, Shutdown | Remove) => Step::CancelPrepare,
        (Phase::Running, Shutdown | Remove) => Step::Stop,
        (Phase::Ended, Remove) => Step::Remove,
        (Phase::Running, Ready | Running) | (Phase::Ended, Ready | Running | Shutdown) => Step::Rest,
        (Phase::Cancelling | Phase::Starting | Phase::Stopping, _) => Step::Rest,
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// As last received; its `desired` only rises.
    pub assignment: Arc<Assignment>,
    pub status: TaskStatus,
    pub phase: Phase,
    /// Preparations that failed for a reason that may pass.
    pub failures: u32,
}

impl Entry {
    pub fn new(assignment: Arc<Assignment>, now: Timestamp) -> Self {
        Self { assignment, status: status(TaskState::Accepted, now), phase: Phase::New, failures: 0 }
    }

    pub fn desired(&self) -> DesiredState {
        self.assignment.desired
    }

    /// Whether the reported state is one that need not be overtaken soon.
    pub fn has_arrived(&self) -> bool {
        let goal = match self.desired() {
            DesiredState::Ready => TaskState::Ready,
            DesiredState::Running => TaskState::Running,
            DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
        };
        self.status.state >= goal || self.status.state.is_final()
    }

    /// Takes newer orders; `false` if nothing is new in them.
    pub fn order(&mut self, mut assignment: Assignment) -> bool {
        assignment.desired = assignment.desired.max(self.desired());
        let changed = *self.assignment != assignment;
        if changed {
            self.assignment = Arc::new(assignment);
        }
        changed
    }

    /// Wants it removed; `false` if that was so already.
    pub fn order_removal(&mut self) -> bool {
        let changed = self.desired() != DesiredState::Remove;
        if changed {
            Arc::make_mut(&mut self.assignment).desired = DesiredState::Remove;
        }
        changed
    }

    /// Raises the reported state; `false` if it is there or beyond.
    pub fn rise(&mut self, to: TaskStatus) -> bool {
        let rises = to.state > self.status.state;
        if rises {
            self.status = to;
        }
        rises
    }

    pub fn record(&self) -> TaskRecord {
        let ended = self.status.state.is_final().then(|| self.status.clone());
        TaskRecord { assignment: Arc::clone(&self.assignment), ended }
    }
}

/// A status that says nothing but its state.
pub(crate) fn status(state: TaskState, at: Timestamp) -> TaskStatus {
    TaskStatus {
        state,
        at,
        message: String::new(),
        error: String::new(),
        exit_code: None,
        oom_killed: false,
        pid: None,
    }
}

pub(crate) fn failed(state: TaskState, at: Timestamp, error: String) -> TaskStatus {
    TaskStatus { error, ..status(state, at) }
}
