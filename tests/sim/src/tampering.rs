//! What deliberate bugs do, but for those of [`super::blindness`]: effects and events are tampered with on their way between the
//! cores and the world.

use std::time::Duration;

use bytes::Bytes;
use prost011::Message as _;
use raft::eraftpb::{Message, MessageType};
use swarm_agent_core::Operation;
use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::{Checkpoint, Persist};
use swarm_model::{AgentMessage, AssignmentsDelta, DesiredState, ManagerMessage, Registration, TaskState};

use super::disk::Disk;
use super::mutation::{Mutation, Tampering};
use super::world::{Happening, World};

/// How much later than it says a disk is done that lies.
const LIE: Duration = Duration::from_millis(500);

impl World {
    pub fn tamper_disk(&mut self, manager: usize) {
        let disk = &mut self.managers[manager].disk;
        if self.tampering.strikes(Mutation::LoseLastEntry) {
            disk.lose_last_entry();
        }
        if self.tampering.is(Mutation::ForgetVote) {
            disk.forget_hard_state();
        }
        if self.tampering.is(Mutation::LoseObject) {
            disk.lose_object();
        }
        if self.tampering.is(Mutation::OverlookRot) {
            disk.overlook_rot();
        }
        if self.tampering.is(Mutation::OverlookTear) {
            disk.overlook_tear();
        }
    }

    /// `true`: the manager comes back without its disk, and there is no more to it.
    pub fn tamper_loss(&mut self, manager: usize) -> bool {
        let is_it = self.tampering.is(Mutation::ReturnWithEmptyDisk);
        if is_it {
            self.crash_manager(manager);
            self.managers[manager].disk = Disk::default();
            self.schedule(Duration::from_millis(5), Happening::StartManager { manager });
        }
        is_it
    }

    /// How much longer it takes than the manager is told.
    pub fn tamper_sync(&self) -> Duration {
        if self.tampering.is(Mutation::AnswerPersistedEarly) { LIE } else { Duration::ZERO }
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
        if self.tampering.is(Mutation::GrantEveryVote) {
            return Some(grant(&message).unwrap_or(message));
        }
        // Heartbeats are short; what is long has entries.
        if message.len() > 400 && self.tampering.strikes(Mutation::AlterEntryOnWire) {
            return Some(alter(&message));
        }
        Some(message)
    }

    pub fn tamper_request(&mut self, mut request: Request) -> Request {
        self.tampering.blind(&mut request);
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
        let unknown = matches!(result, Err(ApiError::Unavailable(_)));
        if unknown
            && matches!(request, Request::RemoveService { .. })
            && self.tampering.is(Mutation::AcknowledgeUnknown)
        {
            return Ok(Response::Done);
        }
        result.map(|response| self.tampering.unblind(response))
    }

    pub fn tamper_down(
        &mut self,
        manager: usize,
        stream: u64,
        mut message: ManagerMessage,
    ) -> ManagerMessage {
        match &mut message {
            ManagerMessage::Mesh(delta)
                if delta.base.is_some() && self.tampering.strikes(Mutation::MeshLacksChange) =>
            {
                delta.ports.pop_first();
            }
            ManagerMessage::Assignments(delta) => self.tamper_orders(manager, stream, delta),
            _ => {}
        }
        message
    }

    fn tamper_orders(&mut self, manager: usize, stream: u64, delta: &mut AssignmentsDelta) {
        let Some(host) = self.streams.get(&stream).map(|stream| stream.host) else { return };
        let tampering = &mut self.tampering;
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
        tampering.bring_back_old(host, delta);
        if self.tampering.strikes(Mutation::SameAddress) {
            let taken = self.hosts[host].runtime.running().map(|it| it.assignment.address).next();
            if let (Some(order), Some(address)) = (delta.upsert.first_mut(), taken) {
                order.address = address;
            }
        }
        if self.tampering.strikes(Mutation::AssignTwice) {
            self.assign_elsewhere(manager, host, delta.upsert.clone());
        }
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

impl Tampering {
    /// Orders that an agent had long ago, of this leader or of an earlier one.
    fn bring_back_old(&mut self, host: usize, delta: &mut AssignmentsDelta) {
        if !self.is(Mutation::ReplayAssignment) && !self.is(Mutation::ObeyDeposed) {
            return;
        }
        let Some(old) = self.kept_orders.get(&host) else {
            if !delta.upsert.is_empty() {
                self.kept_orders.insert(host, delta.clone());
            }
            return;
        };
        let old = old.upsert.clone();
        if self.strikes(Mutation::ReplayAssignment) {
            delta.upsert.extend(old);
        } else if self.is(Mutation::ObeyDeposed) && delta.base.is_none() {
            delta.upsert = old;
            self.kept_orders.remove(&host);
        }
    }
}

/// A refused vote becomes a given one.
fn grant(message: &Bytes) -> Option<Bytes> {
    let mut message = Message::decode(&message[..]).ok()?;
    let votes = [MessageType::MsgRequestVoteResponse, MessageType::MsgRequestPreVoteResponse];
    let refused = votes.iter().any(|vote| message.msg_type == *vote as i32) && message.reject;
    message.reject = false;
    refused.then(|| Bytes::from(message.encode_to_vec()))
}

fn alter(bytes: &Bytes) -> Bytes {
    let mut altered = bytes.to_vec();
    let middle = altered.len() / 2;
    if let Some(byte) = altered.get_mut(middle) {
        *byte = byte.wrapping_add(1);
    }
    Bytes::from(altered)
}
