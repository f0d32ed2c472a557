//! Deliberate bugs, to prove that the checkers see. What most of them do is in `tampering` and `blindness`; nothing of it
//! is in the product.

use std::collections::BTreeMap;

use swarm_manager_core::api::Response;
use swarm_model::AssignmentsDelta;

use super::blindness::Asked;
use super::dice::Dice;

macro_rules! mutations {
    ($($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation { $($(#[doc = $text])+ $name,)+ }

        impl Mutation {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What is wrong.
            pub fn describe(self) -> &'static str {
                match self { $(Self::$name => concat!($($text),+).trim_ascii(),)+ }
            }
        }
    };
}

mutations! {
    /// the log is called durable and never was
    SkipSync,
    /// a write is answered before it is durable
    AnswerPersistedEarly,
    /// the last durable entry is lost at a crash
    LoseLastEntry,
    /// a vote is forgotten at a crash
    ForgetVote,
    /// a vote is given to whoever asks, in one term again and again
    GrantEveryVote,
    /// a manager whose disk was lost comes back as the member that it was
    ReturnWithEmptyDisk,
    /// what rots on a disk is not noticed
    OverlookRot,
    /// half a record that a crash left is taken for whole
    OverlookTear,
    /// a checkpoint is called durable and never was
    SkipCheckpoint,
    /// a stored object vanishes without a trace
    LoseObject,
    /// a checkpoint lacks an object that changed
    CheckpointLacksObject,
    /// a checkpoint forgets who the members are
    CheckpointForgetsMembers,
    /// more of the log is cut than the checkpoint covers
    TruncateTooMuch,
    /// an entry is altered on its way to the disk
    AlterEntryOnDisk,
    /// an entry is altered on its way to a follower
    AlterEntryOnWire,
    /// an entry is left out of a write
    DropEntryOnDisk,
    /// a follower answers reads at once, from what it has
    FollowerAnswersAtOnce,
    /// a read is answered from memory
    AnswerFromMemory,
    /// an update is tried with the version that the service has by now
    IgnoreVersion,
    /// a removal is acknowledged and never done
    AcknowledgeUndone,
    /// an unknown outcome is told as success
    AcknowledgeUnknown,
    /// an image is acknowledged before it is committed
    AcknowledgeBeforeCommit,
    /// a leader that is deposed keeps its sessions
    KeepSessionsOfDeposed,
    /// orders of a deposed leader are obeyed as those of the newest
    ObeyDeposed,
    /// an assignment does not come, and the next difference does not tell
    DropAssignment,
    /// a stop does not come
    DropStop,
    /// an assignment of long ago comes again
    ReplayAssignment,
    /// an assignment goes to another node too
    AssignTwice,
    /// a task is to run before its time
    RunTooEarly,
    /// a task is stopped that nobody wanted stopped
    StopUnasked,
    /// two tasks are given one address
    SameAddress,
    /// a stop signal is never sent, nor the kill
    IgnoreStops,
    /// a failed task is reported as running
    ReportRunning,
    /// ends of tasks are not reported
    SwallowEnds,
    /// a running task is reported as failed
    ReportFailed,
    /// heartbeats and reports are lost
    LoseHeartbeats,
    /// a registration names none of the tasks
    RegisterNothing,
    /// a node claims four times the memory it has
    ClaimMemory,
    /// a node claims labels that it has not
    ClaimLabels,
    /// a restarted agent forgets a container
    ForgetContainer,
    /// the mesh leaves a change out
    MeshLacksChange,
    /// one host port of a node is given to several tasks
    IgnoreHostPorts,
    /// more memory is reserved on a node than it has
    IgnoreReservations,
    /// tasks are placed against their constraints
    IgnoreConstraints,
    /// more tasks of a service are placed on a node than it allows
    IgnoreMaxReplicas,
    /// an update takes all slots at once
    IgnoreParallelism,
    /// an update starts first where it is to stop first
    IgnoreStopFirst,
    /// an update stops first where it is to start first
    IgnoreStartFirst,
    /// a failed task is started again without delay
    IgnoreDelay,
    /// a failed task is started again and again
    IgnoreAttempts,
}

/// What tampers.
#[derive(Debug)]
pub struct Tampering {
    mutation: Option<Mutation>,
    pub dice: Dice,
    /// Orders of long ago, by host.
    pub kept_orders: BTreeMap<usize, AssignmentsDelta>,
    pub kept_answer: Option<(String, Response)>,
    pub asked: Asked,
}

impl Tampering {
    pub fn new(mutation: Option<Mutation>, dice: Dice) -> Self {
        let (kept_orders, kept_answer, asked) = Default::default();
        Self { mutation, dice, kept_orders, kept_answer, asked }
    }

    pub fn mutation(&self) -> Option<Mutation> {
        self.mutation
    }

    pub fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// This is it, and it is to happen this time.
    pub fn strikes(&mut self, mutation: Mutation) -> bool {
        self.is(mutation) && self.dice.per_mille(300)
    }

    pub fn beyond(&self, mutation: Mutation, by: u64) -> u64 {
        if self.is(mutation) { by } else { 0 }
    }
}
