//! Going on from what an earlier process of this agent left.

use std::sync::Arc;

use swarm_model::{Assignment, DesiredState, TaskId, TaskState, TaskStatus, Timestamp};

use super::AgentCore;
use crate::door::{Exit, Found, Recovered, TaskRecord};
use crate::outcome::status_of;
use crate::task::{Entry, Phase, failed, status};

impl AgentCore {
    pub(super) fn recover(&mut self, mut recovered: Recovered, now: Timestamp) {
        for record in recovered.tasks {
            let task = record.assignment.task;
            let found = recovered.containers.remove(&task);
            let rebooted = recovered.before_reboot.contains(&task);
            let entry = recovered_entry(&record, found, rebooted, now);
            if entry.record() != record {
                self.unsaved.insert(task);
            }
            self.marked.insert(task);
            self.tasks.insert(task, entry);
        }
        self.strays = recovered.containers;
    }

    /// Takes in a container that has no record, but is assigned.
    pub(super) fn take_in(&mut self, now: Timestamp, assignment: Assignment, found: Found) {
        let task = assignment.task;
        tracing::info!(task.id = %task, "took over a container whose record was lost");
        let record = TaskRecord { assignment: Arc::new(assignment), ended: None };
        let entry = recovered_entry(&record, Some(found), false, now);
        self.tasks.insert(task, entry);
        self.changed(task);
    }

    /// The end of a stray container is noted until a manager says whether it is wanted.
    pub(super) fn stray_exited(&mut self, task: TaskId, exit: Exit) {
        if let Some(found) = self.strays.get_mut(&task) {
            *found = Found::Exited(exit);
        }
    }
}

fn recovered_entry(record: &TaskRecord, found: Option<Found>, rebooted: bool, now: Timestamp) -> Entry {
    let assignment = Arc::clone(&record.assignment);
    if let Some(ended) = &record.ended {
        // A container that still runs is one whose end was about to be written down: it is stopped.
        let phase = if matches!(found, Some(Found::Running { .. })) { Phase::Running } else { Phase::Ended };
        return Entry { assignment, status: ended.clone(), phase, failures: 0 };
    }
    let asked = assignment.desired >= DesiredState::Shutdown;
    let ended = |status: TaskStatus| Entry {
        assignment: Arc::clone(&assignment),
        status,
        phase: Phase::Ended,
        failures: 0,
    };
    match found {
        Some(Found::Running { pid, since }) => {
            let status = TaskStatus { pid: Some(pid), ..status(TaskState::Running, since) };
            Entry { assignment, status, phase: Phase::Running, failures: 0 }
        }
        Some(Found::Exited(Exit::Lost { .. })) | None
            if rebooted && assignment.desired >= DesiredState::Running =>
        {
            ended(failed(TaskState::Failed, now, "the node was rebooted".to_owned()))
        }
        Some(Found::Exited(exit)) => ended(status_of(&exit, asked, &assignment.spec.limits, now)),
        None => Entry::new(assignment, now),
    }
}
