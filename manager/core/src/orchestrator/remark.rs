//! Why a plan does not do what one might expect. The texts are for operators.

use std::fmt;

use swarm_model::TaskId;

/// Something that was not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// The restart policy's attempts are used up; `restarts` were made.
    RestartsExhausted { slot: u32, restarts: u64 },
    /// Its task ended, and the restart condition wants no other.
    Ended { slot: u32 },
    /// In a crash loop: the next attempt waits for its time.
    RestartDelayed { slot: u32, restarts: u32 },
    /// Its node refused the last task: the next attempt waits for its time.
    RetryDelayed { slot: u32 },
    /// The replacement is prepared, and starts when this task has ended (stop-first).
    WaitsForStop { slot: u32, task: TaskId },
    /// The node of one of its tasks was not heard of since this leader took over.
    NodeUnknown { slot: u32 },
    /// Slots to remove are chosen when all nodes were heard of.
    ScaleDownWaits { surplus: u32 },
    /// Leave their nodes when slots before them have.
    EvictionQueued { slots: u32 },
    /// The update goes on with these when those before them are done.
    UpdateWaits { slots: u32, in_progress: u32 },
    /// The update is paused; these slots still have what was before.
    UpdatePaused { slots: u32 },
    /// The rest is created with the next plan.
    CreationContinues { slots: u32 },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestartsExhausted { slot, restarts } => {
                write!(f, "slot {slot}: restart attempts exhausted after {restarts}")
            }
            Self::Ended { slot } => write!(f, "slot {slot}: ended, and its restart condition wants no other"),
            Self::RestartDelayed { slot, restarts } => {
                write!(f, "slot {slot}: restart {restarts} in a row waits for its delay")
            }
            Self::RetryDelayed { slot } => {
                write!(f, "slot {slot}: was refused by its node, the next try waits")
            }
            Self::WaitsForStop { slot, task } => write!(f, "slot {slot}: waits until {task} has stopped"),
            Self::NodeUnknown { slot } => write!(f, "slot {slot}: its node was not heard of yet"),
            Self::ScaleDownWaits { surplus } => {
                write!(f, "{} too many: waits until all nodes were heard of", count(*surplus))
            }
            Self::EvictionQueued { slots } => {
                write!(f, "{} to leave a node when those before have", count(*slots))
            }
            Self::UpdateWaits { slots, in_progress } => {
                write!(f, "update: {} to go, {in_progress} in progress", count(*slots))
            }
            Self::UpdatePaused { slots } => write!(f, "update paused: {} not replaced", count(*slots)),
            Self::CreationContinues { slots } => write!(f, "{} to create with the next plan", count(*slots)),
        }
    }
}

fn count(slots: u32) -> String {
    if slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") }
}
