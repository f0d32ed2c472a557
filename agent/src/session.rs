//! The stream to a manager: one at a time, opened and closed as the core says.

use std::pin::pin;

use swarm_agent_core::{Closed, Event, SessionId};
use swarm_model::{AgentMessage, ManagerMessage, Registration, Timestamp};
use swarm_proto::v1 as wire;
use swarm_proto::v1::sessions_client::SessionsClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use crate::executor::Answers;
use crate::logs::LogStreams;
use crate::managers::Managers;

/// Messages to the manager that wait for the network. A manager that is slower than this is given up: the next session
/// opens with a full report, so nothing is lost.
const OUTBOUND_LIMIT: usize = 1_024;
/// Largest message from a manager: everything that a node of 1,000 tasks is assigned, with its mesh.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;
/// Trailer in which a manager that does not lead names the leader.
const LEADER_TRAILER: &str = "swarm-leader";
/// Trailer in which a manager tells a node that was removed when that was.
const REMOVED_TRAILER: &str = "swarm-removed";

/// The current session, if there is one. Dropping it hangs up.
pub(crate) struct Sessions {
    managers: Managers,
    answers: Answers,
    logs: LogStreams,
    current: Option<Current>,
}

struct Current {
    session: SessionId,
    outbound: mpsc::Sender<wire::AgentMessage>,
    _task: AbortOnDropHandle<()>,
}

impl Sessions {
    pub fn new(managers: Managers, answers: Answers, logs: LogStreams) -> Self {
        Self { managers, answers, logs, current: None }
    }

    pub fn connect(&mut self, session: SessionId, manager: String) {
        let (outbound, messages) = mpsc::channel(OUTBOUND_LIMIT);
        let (managers, answers, logs) = (self.managers.clone(), self.answers.clone(), self.logs.clone());
        let certified = outbound.clone();
        let task = tokio::spawn(async move {
            let run = run(session, &manager, (certified, messages), &managers, &answers, &logs);
            let reason = run.await;
            logs.cancel_all();
            answers.post(Event::SessionClosed { session, reason });
        });
        self.current = Some(Current { session, outbound, _task: AbortOnDropHandle::new(task) });
    }

    pub fn register(&mut self, session: SessionId, registration: &Registration) {
        self.send(session, registration.into());
    }

    pub fn send(&mut self, session: SessionId, message: wire::AgentMessage) {
        let Some(current) = self.current.as_ref().filter(|current| current.session == session) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = current.outbound.try_send(message) {
            self.disconnect(session);
            let reason = Closed::Failed("the manager does not take this node's messages".to_owned());
            self.answers.post(Event::SessionClosed { session, reason });
        }
    }

    pub fn disconnect(&mut self, session: SessionId) {
        if self.current.as_ref().is_some_and(|current| current.session == session) {
            self.current = None;
            self.logs.cancel_all();
        }
    }
}

/// Runs a session to its end.
async fn run(
    session: SessionId,
    manager: &str,
    (outbound, messages): (mpsc::Sender<wire::AgentMessage>, mpsc::Receiver<wire::AgentMessage>),
    managers: &Managers,
    answers: &Answers,
    logs: &LogStreams,
) -> Closed {
    let channel = match managers.dial(manager).await {
        Ok(channel) => channel,
        Err(error) => return Closed::Failed(error.to_string()),
    };
    answers.post(Event::SessionOpened { session });
    let mut client = SessionsClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
    // The registration is in `messages` by now or soon; the manager answers once it has it.
    let inbound = match client.open(ReceiverStream::new(messages)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return reason(manager, &status, managers),
    };
    let ended = tokio::select! {
        ended = receive(session, inbound, manager, managers, answers, logs) => ended,
        () = certify(managers, &outbound) => Ok(()),
    };
    match ended {
        Ok(()) => Closed::Failed(format!("manager {manager} ended the session")),
        Err(SessionError::Status(status)) => reason(manager, &status, managers),
        Err(SessionError::Message(error)) => {
            Closed::Failed(format!("manager {manager} sent a message that is not valid: {error}"))
        }
    }
}

enum SessionError {
    Status(Status),
    Message(String),
}

/// Says which root issued the node's certificate, and says it again when that changes.
async fn certify(managers: &Managers, outbound: &mpsc::Sender<wire::AgentMessage>) {
    let mut certified = managers.certified();
    loop {
        let root_digest = certified.borrow_and_update().clone();
        if !root_digest.is_empty()
            && outbound.send((&AgentMessage::Certified(root_digest)).into()).await.is_err()
        {
            return;
        }
        if certified.changed().await.is_err() {
            return;
        }
    }
}

async fn receive(
    session: SessionId,
    inbound: Streaming<wire::ManagerMessage>,
    manager: &str,
    managers: &Managers,
    answers: &Answers,
    logs: &LogStreams,
) -> Result<(), SessionError> {
    let mut inbound = pin!(inbound);
    let mut welcomed = false;
    while let Some(message) = inbound.next().await {
        let message = message.map_err(SessionError::Status)?;
        let message =
            ManagerMessage::try_from(message).map_err(|error| SessionError::Message(error.to_string()))?;
        match message {
            ManagerMessage::SubscribeLogs(subscription) => logs.begin(subscription, manager.to_owned()),
            ManagerMessage::CancelLogs(id) => logs.cancel(id),
            ManagerMessage::Welcome(welcome) => {
                managers.set_current(manager.to_owned());
                managers.set_addresses(welcome.managers.clone());
                managers.set_role(welcome.role);
                welcomed = true;
                answers
                    .send(Event::SessionMessage { session, message: ManagerMessage::Welcome(welcome) })
                    .await;
            }
            ManagerMessage::Trust(roots) => managers.set_roots(roots),
            ManagerMessage::Managers(addresses) => {
                if welcomed {
                    managers.set_addresses(addresses.clone());
                } else {
                    managers.add_addresses(&addresses);
                }
                let message = ManagerMessage::Managers(addresses);
                answers.send(Event::SessionMessage { session, message }).await;
            }
            message @ (ManagerMessage::Assignments(_)
            | ManagerMessage::Mesh(_)
            | ManagerMessage::Heartbeat { .. }) => {
                answers.send(Event::SessionMessage { session, message }).await;
            }
        }
    }
    Ok(())
}

fn reason(manager: &str, status: &Status, managers: &Managers) -> Closed {
    if let Some(at) = removed_at(status) {
        managers.set_removed(at);
        return Closed::Removed;
    }
    match status.code() {
        Code::FailedPrecondition => {
            let leader = status.metadata().get(LEADER_TRAILER).and_then(|leader| leader.to_str().ok());
            Closed::NotLeader { leader: leader.filter(|leader| !leader.is_empty()).map(str::to_owned) }
        }
        _ => Closed::Failed(format!("manager {manager}: {}", status.message())),
    }
}

/// A manager that proved to be one of this cluster says that the node was removed, and when.
fn removed_at(status: &Status) -> Option<Timestamp> {
    let at = status.metadata().get(REMOVED_TRAILER).filter(|_| status.code() == Code::PermissionDenied)?;
    at.to_str().ok()?.parse().ok().map(Timestamp::from_micros)
}
