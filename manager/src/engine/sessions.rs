//! The agents' open sessions: where a message to one of them goes. An agent that does not keep up is cut, never
//! buffered for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use swarm_manager_core::api::ApiError;
use swarm_manager_core::door::{CloseReason, Event, SessionId};
use swarm_model::{AgentMessage, ManagerMessage, NodeId};
use tokio::sync::mpsc;

use super::Engine;

/// Messages that may wait for one agent. Differences are coalesced by the core, so this is minutes of them.
const MAX_QUEUED: usize = 256;

type Outgoing = mpsc::Sender<Result<ManagerMessage, CloseReason>>;

#[derive(Clone, Default)]
pub struct Sessions(Arc<Table>);

#[derive(Default)]
struct Table {
    next: AtomicU64,
    open: Mutex<HashMap<SessionId, (NodeId, Outgoing)>>,
}

/// One agent's session with the core. Dropping it closes it.
#[derive(Debug)]
pub struct AgentSession {
    id: SessionId,
    engine: Engine,
    /// What goes to the agent. An error is the last item; an end without one means that the agent was too slow.
    pub messages: mpsc::Receiver<Result<ManagerMessage, CloseReason>>,
}

impl AgentSession {
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Hands in what the agent sent.
    ///
    /// # Errors
    /// Unavailable where the engine has stopped.
    pub async fn send(&self, message: AgentMessage) -> Result<(), ApiError> {
        self.engine.event(Event::SessionMessage { session: self.id, message }).await
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.engine.0.sessions.forget(self.id);
        self.engine.event_now(Event::SessionClosed { session: self.id });
    }
}

impl Sessions {
    pub fn open(&self, node: NodeId, engine: Engine) -> AgentSession {
        let id = SessionId(self.0.next.fetch_add(1, Ordering::Relaxed) + 1);
        let (outgoing, messages) = mpsc::channel(MAX_QUEUED);
        self.table().insert(id, (node, outgoing));
        AgentSession { id, engine, messages }
    }

    pub fn message(&self, session: SessionId, message: ManagerMessage) {
        let mut table = self.table();
        if let Some((_, outgoing)) = table.get(&session)
            && outgoing.try_send(Ok(message)).is_err()
        {
            table.remove(&session);
        }
    }

    pub fn message_node(&self, node: NodeId, message: ManagerMessage) -> bool {
        // A superseded session may linger for a moment; the newest has the highest number.
        let session = self.table().iter().filter(|(_, (other, _))| *other == node).map(|(id, _)| *id).max();
        let Some(session) = session else { return false };
        self.message(session, message);
        self.table().contains_key(&session)
    }

    pub fn close(&self, session: SessionId, reason: CloseReason) {
        if let Some((_, outgoing)) = self.table().remove(&session) {
            let _ = outgoing.try_send(Err(reason));
        }
    }

    pub fn forget(&self, session: SessionId) {
        self.table().remove(&session);
    }

    pub fn clear(&self) {
        self.table().clear();
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, (NodeId, Outgoing)>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
