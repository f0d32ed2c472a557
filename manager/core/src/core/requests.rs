//! Requests at the end of a batch: writes are admitted and proposed, reads wait for their round.

use swarm_model::{Actor, NodeState};

use crate::admission::{self, Admitted, Answer, Desk, Verdict};
use crate::api::{ApiError, OwnState, Request, Response};
use crate::consensus::ProposeError;
use crate::core::reads::Asking;
use crate::core::writes::Proposer;
use crate::core::{Asked, ManagerCore};
use crate::door::{CloseReason, Effect, Event, RequestId};
use crate::store::{Action, Payload};
use crate::views::{self, Sight};

impl ManagerCore {
    pub(super) fn serve_inbox(&mut self, effects: &mut Vec<Effect>) {
        if self.inbox.is_empty() {
            return;
        }
        self.tell_own_state(effects);
        if !self.consensus.is_initialised() && !self.bootstrap_if_asked(effects) {
            return self.refuse_inbox(&admission::no_cluster(), effects);
        }
        if !self.consensus.is_leader() {
            return self.serve_as_follower(effects);
        }
        if self.leader.is_none() || self.consensus.is_handing_over() {
            // Leads, but does not yet know all that was committed before, or not for long any more: a moment.
            return;
        }
        let reads = self.inbox.extract_if(.., |asked| asked.request.is_read());
        let mut asking: Vec<_> = reads.map(|asked| (asked.id, Asking::Read(asked.request))).collect();
        // While a group is on its way, the next one gathers. What commits it ends the wait.
        if !self.gathers_writes() {
            for asked in std::mem::take(&mut self.inbox) {
                let id = asked.id;
                let told = self.serve_write(asked, effects);
                asking.extend(told.map(|result| (id, Asking::Told(Box::new(result)))));
            }
        }
        self.ask(asking);
    }

    /// Before anything that needs a leader.
    fn tell_own_state(&mut self, effects: &mut Vec<Effect>) {
        let is_asked = |asked: &Asked| matches!(asked.request, Request::GetOwnState);
        if !self.inbox.iter().any(is_asked) {
            return;
        }
        let (asked, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox).into_iter().partition(is_asked);
        self.inbox = rest;
        let term = self.consensus.term();
        let applied = self.store.applied();
        let state = OwnState {
            capture: self.store.capture(self.consensus.term_at(applied)),
            uncommitted: self.consensus.last_index().saturating_sub(applied),
            term,
            leader: self.consensus.leader(),
            voters: self.council.membership.voters.clone(),
            reachable: self.council.reachable.clone(),
        };
        let answer = |Asked { id, .. }| Effect::Reply { id, result: Ok(Response::OwnState(state.clone())) };
        effects.extend(asked.into_iter().map(answer));
    }

    fn serve_as_follower(&mut self, effects: &mut Vec<Effect>) {
        let leader = self.consensus.leader();
        if leader.is_some() {
            let (reads, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.inbox).into_iter().partition(|asked| asked.request.is_replicated());
            self.inbox = rest;
            self.ask(reads.into_iter().map(|asked| (asked.id, Asking::Read(asked.request))).collect());
        }
        self.refuse_inbox(&ApiError::NotLeader { leader }, effects);
    }

    fn refuse_inbox(&mut self, error: &ApiError, effects: &mut Vec<Effect>) {
        for Asked { id, .. } in std::mem::take(&mut self.inbox) {
            effects.push(Effect::Reply { id, result: Err(error.clone()) });
        }
    }

    /// Proposes the write. What is returned changes nothing, and is the answer if this manager still leads.
    fn serve_write(&mut self, asked: Asked, effects: &mut Vec<Effect>) -> Option<Result<Response, ApiError>> {
        let Asked { id, by, request } = asked;
        match self.admit(by.as_ref(), request) {
            Ok(Verdict::Propose(admitted)) => {
                if let Err(error) = self.propose_write(id, by, admitted) {
                    effects.push(Effect::Reply { id, result: Err(error) });
                }
                None
            }
            Ok(Verdict::AlreadyDone(answer)) => Some(self.answer(&answer)),
            Err(error) => Some(Err(error)),
        }
    }

    fn admit(&mut self, by: Option<&Actor>, request: Request) -> Result<Verdict, ApiError> {
        let leader = self.leader.as_ref();
        let mut desk = Desk {
            store: &self.store,
            now: self.now,
            by,
            node_state: &|node| leader.map_or(NodeState::Unknown, |leader| leader.node_state(node)),
            council: &self.council,
            reservations: &self.writes.reservations,
            draw_id: &mut || self.ids.draw(),
        };
        desk.admit(request)
    }

    fn propose_write(
        &mut self,
        id: RequestId,
        by: Option<Actor>,
        admitted: Admitted,
    ) -> Result<(), ApiError> {
        let Admitted { actions, reserved, answer } = admitted;
        let proposal = self.propose(by, actions).map_err(|error| match error {
            ProposeError::NotLeader => ApiError::NotLeader { leader: self.consensus.leader() },
            ProposeError::Busy => ApiError::Unavailable(
                "too many writes wait for the managers' disks; nothing was changed, repeat the command"
                    .to_owned(),
            ),
        })?;
        self.writes.add(proposal, Proposer::Request { id, answer, reserved });
        Ok(())
    }

    pub(super) fn propose(&mut self, by: Option<Actor>, actions: Vec<Action>) -> Result<u64, ProposeError> {
        self.consensus.propose(Payload { at: self.now, by, actions }.encode())
    }

    /// The deciders' outcome, as one entry. One is under way at a time; what changes meanwhile makes the next one.
    pub(super) fn propose_plan(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let described = leader.descriptions();
        let actions = leader.decide(&self.store, self.now, &mut self.ids, &mut self.watch);
        if !described.is_empty()
            && let Ok(proposal) = self.propose(None, described)
        {
            self.writes.add(proposal, Proposer::Registration);
            if let Some(leader) = &mut self.leader {
                leader.descriptions_proposed();
            }
        }
        if actions.is_empty() {
            return;
        }
        match self.propose(None, actions) {
            Ok(proposal) => self.writes.add(proposal, Proposer::Plan),
            Err(_) => {
                if let Some(leader) = &mut self.leader {
                    leader.plan_lost(&self.store);
                }
            }
        }
    }

    /// The answer to a write that is applied.
    pub(super) fn answer(&self, answer: &Answer) -> Result<Response, ApiError> {
        let sight = self.sight()?;
        let gone =
            |what: &str| ApiError::FailedPrecondition(format!("the {what} was removed at the same moment"));
        Ok(match answer {
            Answer::Done => Response::Done,
            Answer::Cluster => Response::Cluster(sight.cluster().ok_or_else(admission::no_cluster)?),
            Answer::Secrets => {
                Response::Secrets(self.store.cluster().cloned().ok_or_else(admission::no_cluster)?)
            }
            Answer::Node(id) => Response::Node(sight.node(self.store.node(*id).ok_or_else(|| gone("node"))?)),
            Answer::Service(id) => {
                Response::Service(sight.service(self.store.service(*id).ok_or_else(|| gone("service"))?))
            }
            Answer::Member(id) => {
                Response::Member(self.store.node(*id).cloned().ok_or_else(|| gone("node"))?)
            }
            Answer::Operator(id) => Response::Operator(
                self.store.operators().account(*id).cloned().ok_or_else(|| gone("operator"))?,
            ),
            Answer::Image(name) => {
                Response::Image(self.store.image(name).cloned().ok_or_else(|| gone("image"))?)
            }
        })
    }

    pub(super) fn read(&self, request: Request) -> Result<Response, ApiError> {
        match views::read_replicated(&self.store, &request) {
            Some(answer) => answer,
            None => views::read(&self.sight()?, request, self.watch.sequence()),
        }
    }

    /// From what is applied here, however old that is.
    pub(super) fn peek(&self, read: &Request) -> Result<Response, ApiError> {
        views::read_replicated(&self.store, read)
            .unwrap_or_else(|| unreachable!("only what is replicated is peeked at, not {read:?}"))
    }

    fn sight(&self) -> Result<Sight<'_>, ApiError> {
        match &self.leader {
            Some(leader) => Ok(Sight::of(&self.store, leader, &self.council, &self.config)),
            None => Err(ApiError::NotLeader { leader: self.consensus.leader() }),
        }
    }

    /// After a stop, every question still gets its answer.
    pub(super) fn refuse(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Request { id, .. } => effects.push(Effect::Reply { id, result: Err(stopped()) }),
            Event::SessionOpened { session, .. } => {
                effects.push(Effect::CloseSession { session, reason: CloseReason::Stopped });
            }
            Event::Wakeup
            | Event::Raft { .. }
            | Event::RaftSnapshot { .. }
            | Event::PeerLost { .. }
            | Event::StepDown
            | Event::Persisted { .. }
            | Event::PersistFailed
            | Event::Checkpointed { .. }
            | Event::SessionMessage { .. }
            | Event::SessionClosed { .. } => {}
        }
    }
}

pub(super) fn stopped() -> ApiError {
    ApiError::Unavailable(
        "this manager has stopped, because it cannot write or read its log; its own log says why".to_owned(),
    )
}
