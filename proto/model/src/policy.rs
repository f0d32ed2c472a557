//! Restart and update policies (defaults: SwarmKit's, but for the lines marked "ours" in docs/semantics).

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    Any,
    OnFailure,
    None,
}

/// When and how often a slot whose task ended gets a new task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// Base of the exponential back-off (factor 2, ceiling 5 min, reset after 10 min of health).
    pub delay: Duration,
    /// Restarts allowed within `window`; 0 is no limit.
    pub max_attempts: u64,
    /// Zero counts all attempts since the spec changed.
    pub window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateOrder {
    StopFirst,
    StartFirst,
}

/// How a rolling update (or a rollback) proceeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePolicy {
    /// Slots replaced at the same time; 0 is all at once.
    pub parallelism: u64,
    /// Pause between one slot's success and the next one's start.
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// How long a new task is watched after it runs.
    pub monitor: Duration,
    /// Failed share (0.0 to 1.0) of the slots that is tolerated, in millionths, so that specs compare exactly.
    pub max_failure_ratio_millionths: u32,
    /// `None`: start-first unless the service has a volume or a host port, then stop-first.
    pub order: Option<UpdateOrder>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Rollback,
            monitor: Duration::from_secs(5),
            max_failure_ratio_millionths: 0,
            order: None,
        }
    }
}
