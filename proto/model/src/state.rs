//! The task state machine as a table: numbers only rise, each state has one owner.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a task was observed to be. Greater always wins. The numbers are SwarmKit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum TaskState {
    New = 0,
    Pending = 64,
    Assigned = 192,
    Accepted = 256,
    Preparing = 320,
    Ready = 384,
    Starting = 448,
    Running = 512,
    Complete = 576,
    Shutdown = 640,
    Failed = 704,
    Rejected = 768,
    Orphaned = 832,
}

/// Who may move a task out of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateOwner {
    /// Orchestrator, allocator, scheduler: one plan on the leader.
    Manager,
    Agent,
    /// Nobody: the state is final.
    None,
}

/// What the managers want a task to be. Only rises, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum DesiredState {
    /// Prepare (pull, create), do not start.
    Ready = 384,
    Running = 512,
    /// Stop, keep the record.
    Shutdown = 640,
    /// Stop and forget.
    Remove = 800,
}

impl TaskState {
    /// All states, in order.
    pub const ALL: [Self; 13] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Orphaned,
    ];

    pub fn owner(self) -> StateOwner {
        match self {
            Self::New | Self::Pending => StateOwner::Manager,
            Self::Assigned
            | Self::Accepted
            | Self::Preparing
            | Self::Ready
            | Self::Starting
            | Self::Running => StateOwner::Agent,
            Self::Complete | Self::Shutdown | Self::Failed | Self::Rejected | Self::Orphaned => {
                StateOwner::None
            }
        }
    }

    pub fn is_final(self) -> bool {
        self.owner() == StateOwner::None
    }

    /// The state whose number is `number`.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u32 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }
}

impl DesiredState {
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Ready, Self::Running, Self::Shutdown, Self::Remove]
            .into_iter()
            .find(|state| *state as u32 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_rise_and_final_ones_come_last() {
        assert!(TaskState::ALL.windows(2).all(|pair| pair[0] < pair[1] && (pair[0] as u16) < pair[1] as u16));
        let first_final = TaskState::ALL.iter().position(|state| state.is_final()).expect("some are final");
        assert!(TaskState::ALL[first_final..].iter().all(|state| state.is_final()));
        assert_eq!(TaskState::ALL[first_final], TaskState::Complete);
    }
}
