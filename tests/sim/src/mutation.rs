//! Deliberate bugs, to prove that the checkers see. They sit between the cores and the world: effects and events are
//! tampered with on their way, and nothing of it is in the product.

use bytes::Bytes;
use swarm_agent_core::Operation;
use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::{Checkpoint, Persist};
use swarm_model::{AgentMessage, DesiredState, ManagerMessage, Registration, TaskState};

use super::dice::Dice;
use super::world::World;

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
    /// a checkpoint is called durable and never was
    SkipCheckpoint,
    /// a stored object vanishes without a trace
    RotObject,
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
    /// orders of a deposed leader come as those of the newest
    RaiseEpoch,
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
    /// a node claims twice the memory it has
    ClaimMemory,
    /// a node claims labels that it has not
    ClaimLabels,
    /// a restarted agent forgets a container
    ForgetContainer,
    /// the mesh leaves a change out
    MeshLacksChange,
}

/// What tampers.
#[derive(Debug)]
pub struct Tampering {
    mutation: Option<Mutation>,
    dice: Dice,
    kept_message: Option<ManagerMessage>,
    kept_answer: Option<(String, Response)>,
}

impl Tampering {
    pub fn new(mutation: Option<Mutation>, dice: Dice) -> Self {
        Self { mutation, dice, kept_message: None, kept_answer: None }
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

impl World {
    pub fn tamper_disk(&mut self, manager: usize) {
        let disk = &mut self.managers[manager].disk;
        if self.tampering.strikes(Mutation::LoseLastEntry) {
            disk.lose_last_entry();
        }
        if self.tampering.is(Mutation::ForgetVote) {
            disk.forget_hard_state();
        }
        if self.tampering.is(Mutation::RotObject) {
            disk.lose_object();
        }
    }

    pub fn tamper_checkpoint(&mut self, mut checkpoint: Checkpoint) -> Checkpoint {
        if self.tampering.is(Mutation::CheckpointLacksObject) {
            checkpoint.changed.pop();
        }
        if self.tampering.is(Mutation::CheckpointForgetsMembers) {
            checkpoint.conf_state = Bytes::new();
        }
        checkpoint
    }

    pub fn tamper_persist(&mut self, mut persist: Persist) -> Persist {
        if self.tampering.strikes(Mutation::AlterEntryOnDisk)
            && let Some(entry) = persist.entries.last_mut()
        {
            entry.data = alter(&entry.data);
        }
        if self.tampering.strikes(Mutation::DropEntryOnDisk) && persist.entries.len() > 1 {
            persist.entries.remove(0);
        }
        persist
    }

    pub fn tamper_raft(&mut self, message: Bytes) -> Option<Bytes> {
        // Heartbeats are short; what is long has entries.
        if message.len() > 400 && self.tampering.strikes(Mutation::AlterEntryOnWire) {
            return Some(alter(&message));
        }
        Some(message)
    }

    pub fn tamper_request(&mut self, mut request: Request) -> Request {
        if self.tampering.is(Mutation::IgnoreVersion)
            && let Request::UpdateService { service, version, .. } = &mut request
            && let Some(stored) = self.truth.services.values().find(|it| it.id.to_string() == *service)
        {
            *version = stored.version;
        }
        request
    }

    /// An answer that is given instead of asking the manager's core.
    pub fn tamper_answer(&mut self, manager: usize, request: &Request) -> Option<Result<Response, ApiError>> {
        if let Request::PutImage(image) = request
            && self.tampering.strikes(Mutation::AcknowledgeBeforeCommit)
            && self.managers[manager].leads.is_some()
        {
            let process = self.managers[manager].core.as_ref()?;
            let version = process.core.replica().applied() + 1;
            let image = swarm_model::Image { version, ..image.clone() };
            return Some(Ok(Response::Image(std::sync::Arc::new(image))));
        }
        if matches!(request, Request::RemoveService { .. }) && self.tampering.is(Mutation::AcknowledgeUndone)
        {
            return Some(Ok(Response::Done));
        }
        if matches!(request, Request::ListImages)
            && self.managers[manager].leads.is_none()
            && self.tampering.is(Mutation::FollowerAnswersAtOnce)
        {
            let process = self.managers[manager].core.as_ref()?;
            return Some(Ok(Response::Images(process.core.replica().images().cloned().collect())));
        }
        None
    }

    pub fn tamper_reply(
        &mut self,
        request: &Request,
        result: Result<Response, ApiError>,
    ) -> Result<Response, ApiError> {
        if self.tampering.is(Mutation::AnswerFromMemory)
            && let (Request::GetService { service }, Ok(response)) = (request, &result)
        {
            match &self.tampering.kept_answer {
                Some((kept, answer)) if kept == service => return Ok(answer.clone()),
                Some(_) if self.tampering.dice.per_mille(900) => {}
                Some(_) | None => self.tampering.kept_answer = Some((service.clone(), response.clone())),
            }
        }
        if self.tampering.is(Mutation::AcknowledgeUnknown)
            && let (Request::RemoveService { .. }, Err(ApiError::Unavailable(_))) = (request, &result)
        {
            return Ok(Response::Done);
        }
        result
    }

    pub fn tamper_down(
        &mut self,
        manager: usize,
        stream: u64,
        mut message: ManagerMessage,
    ) -> Option<ManagerMessage> {
        if let ManagerMessage::Mesh(delta) = &mut message {
            if self.tampering.strikes(Mutation::MeshLacksChange) && delta.base.is_some() {
                delta.ports.pop_first();
            }
            return Some(message);
        }
        let newest = self.leaders.last_key_value().map_or(0, |(term, _)| *term);
        let addresses: Vec<_> = self.truth.tasks.values().filter_map(|task| task.address).collect();
        let tampering = &mut self.tampering;
        let ManagerMessage::Assignments(delta) = &mut message else { return Some(message) };
        if tampering.is(Mutation::RaiseEpoch) && delta.version.epoch < newest {
            delta.version.epoch = newest;
            delta.base = None;
        }
        if tampering.strikes(Mutation::DropAssignment) {
            delta.upsert.pop();
        }
        if tampering.strikes(Mutation::DropStop) {
            delta.upsert.retain(|it| it.desired <= DesiredState::Running);
            delta.remove.clear();
        }
        if tampering.is(Mutation::RunTooEarly) {
            let waiting = delta.upsert.iter_mut().filter(|it| it.desired == DesiredState::Ready);
            waiting.for_each(|it| it.desired = DesiredState::Running);
        }
        if tampering.strikes(Mutation::StopUnasked)
            && let Some(running) = delta.upsert.iter_mut().find(|it| it.desired == DesiredState::Running)
        {
            running.desired = DesiredState::Shutdown;
        }
        if tampering.strikes(Mutation::SameAddress)
            && let (Some(order), Some(address)) = (delta.upsert.first_mut(), addresses.first())
        {
            order.address = *address;
        }
        if tampering.is(Mutation::ReplayAssignment) {
            let kept =
                tampering.kept_message.get_or_insert_with(|| ManagerMessage::Assignments(delta.clone()));
            if let ManagerMessage::Assignments(old) = kept
                && tampering.dice.per_mille(300)
            {
                delta.upsert.extend(old.upsert.iter().cloned());
            }
        }
        if tampering.strikes(Mutation::AssignTwice) {
            let (host, copies) = (self.streams.get(&stream)?.host, delta.upsert.clone());
            self.assign_elsewhere(manager, host, copies);
        }
        Some(message)
    }

    /// Slips orders into the next message that another node of the same leader gets.
    fn assign_elsewhere(&mut self, manager: usize, host: usize, orders: Vec<swarm_model::Assignment>) {
        use super::streams::Down;
        let other = self.streams.values_mut().find(|it| it.manager == manager && it.host != host);
        let Some(other) = other else { return };
        for (_, item) in &mut other.down.queue {
            if let Down::Message(ManagerMessage::Assignments(delta)) = item {
                return delta.upsert.extend(orders);
            }
        }
    }

    pub fn tamper_operation(&mut self, operation: Operation) -> Operation {
        let nothing = Operation::CollectGarbage { images: std::collections::BTreeSet::new() };
        match &operation {
            Operation::Stop(_) | Operation::Kill(_) if self.tampering.is(Mutation::IgnoreStops) => nothing,
            _ => operation,
        }
    }

    pub fn tamper_registration(&mut self, mut registration: Registration) -> Registration {
        if self.tampering.is(Mutation::RegisterNothing) {
            registration.statuses.clear();
        }
        if self.tampering.is(Mutation::ClaimMemory) {
            registration.engine.resources.memory_bytes *= 4;
        }
        if self.tampering.is(Mutation::ClaimLabels) {
            registration.engine.labels.insert("zone".to_owned(), "even".to_owned());
        }
        registration
    }

    pub fn tamper_up(&mut self, mut message: AgentMessage) -> Option<AgentMessage> {
        if self.tampering.is(Mutation::LoseHeartbeats) {
            return None;
        }
        if let AgentMessage::Statuses(statuses) = &mut message {
            let tampering = &mut self.tampering;
            if tampering.is(Mutation::SwallowEnds) {
                statuses.retain(|(_, status)| !status.state.is_final());
            }
            for (_, status) in statuses.iter_mut() {
                if tampering.is(Mutation::ReportRunning) && status.state == TaskState::Failed {
                    status.state = TaskState::Running;
                }
                if status.state == TaskState::Running && tampering.strikes(Mutation::ReportFailed) {
                    status.state = TaskState::Failed;
                }
            }
        }
        Some(message)
    }
}

fn alter(bytes: &Bytes) -> Bytes {
    let mut altered = bytes.to_vec();
    let middle = altered.len() / 2;
    if let Some(byte) = altered.get_mut(middle) {
        *byte = byte.wrapping_add(1);
    }
    Bytes::from(altered)
}
