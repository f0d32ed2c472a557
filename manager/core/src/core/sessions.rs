//! Sessions of agents: only the leader has any.

use swarm_model::{AgentMessage, ManagerMessage, NodeId, Registration};

use crate::core::ManagerCore;
use crate::door::{CloseReason, Effect, SessionId};
use crate::members;

impl ManagerCore {
    pub(super) fn session_opened(
        &mut self,
        session: SessionId,
        node: NodeId,
        registration: Registration,
        effects: &mut Vec<Effect>,
    ) {
        let reason = match &mut self.leader {
            None => {
                // The node may know only managers of the past, and there may be no leader for a while.
                let message =
                    ManagerMessage::Managers(members::addresses(&self.store).into_values().collect());
                effects.push(Effect::Session { session, message });
                CloseReason::NotLeader { leader: self.consensus.leader() }
            }
            Some(_) if self.store.node(node).is_none() => match self.store.removed_nodes().get(node) {
                Some(removed) => CloseReason::Removed { node, at: removed.at },
                None => CloseReason::UnknownNode(node),
            },
            Some(leader) => {
                return leader.open_session(
                    session,
                    node,
                    registration,
                    &self.store,
                    self.now,
                    &mut self.watch,
                    effects,
                );
            }
        };
        effects.push(Effect::CloseSession { session, reason });
    }

    pub(super) fn session_message(
        &mut self,
        session: SessionId,
        message: AgentMessage,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(leader) = &mut self.leader {
            leader.hear(session, message, &self.store, self.now, &mut self.watch, effects);
        }
    }

    pub(super) fn session_closed(&mut self, session: SessionId) {
        if let Some(leader) = &mut self.leader {
            leader.close_session(session, &self.store, &mut self.watch);
        }
    }
}
