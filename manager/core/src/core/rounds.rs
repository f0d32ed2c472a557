//! Takes what consensus hands out: committed entries to apply, snapshots to install, reads that are confirmed. And
//! notices when leadership begins or ends.

use crate::admission;
use crate::api::ApiError;
use crate::consensus::{Committed, Round};
use crate::core::writes::Proposer;
use crate::core::{Asked, ManagerCore};
use crate::door::{CheckpointState, CloseReason, Effect, Leadership};
use crate::leader::Leader;
use crate::store::{Applied, Payload, Store};

impl ManagerCore {
    pub(super) fn run_rounds(&mut self, effects: &mut Vec<Effect>) {
        while let Some(round) = self.consensus.next_round(effects) {
            self.take_round(round, effects);
            self.offer_snapshot();
            if self.stopped {
                return;
            }
        }
        self.settle_leadership(effects);
    }

    fn take_round(&mut self, round: Round, effects: &mut Vec<Effect>) {
        if let Some(state) = round.install {
            self.install(&state, effects);
        }
        for entry in round.committed {
            self.take_entry(entry, effects);
            if self.stopped {
                return;
            }
        }
        for (read, index) in round.reads {
            self.reads.confirm(read, index);
        }
    }

    fn install(&mut self, state: &CheckpointState, effects: &mut Vec<Effect>) {
        match Store::restore(state.index, &state.objects) {
            Ok(store) => self.store = store,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the leader's snapshot cannot be read"
                );
                return self
                    .stop("a snapshot of the leader cannot be read: this manager is older than it", effects);
            }
        }
        self.tell_removed(effects);
        self.checkpoints.replaced(state.index);
    }

    fn take_entry(&mut self, entry: Committed, effects: &mut Vec<Effect>) {
        self.checkpoints.count(entry.data.len());
        if entry.data.is_empty() {
            return self.store.skip_to(entry.index);
        }
        let payload = match Payload::decode(&entry.data) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    raft.index = entry.index,
                    "a committed log entry cannot be read"
                );
                return self.stop(
                    "a committed log entry cannot be read: this manager is older than its leader",
                    effects,
                );
            }
        };
        let applied = self.store.apply(entry.index, payload);
        self.tell_removed(effects);
        self.note_applied(&applied, effects);
        if let Some(proposer) = entry.proposal.and_then(|proposal| self.writes.take(proposal)) {
            self.settle_proposal(proposer, applied, effects);
        }
    }

    fn note_applied(&mut self, applied: &Applied, effects: &mut Vec<Effect>) {
        let Some(leader) = &mut self.leader else { return };
        for change in &applied.changes {
            leader.note_change(change, &self.store, self.now, &mut self.watch, effects);
        }
    }

    fn settle_proposal(&mut self, proposer: Proposer, applied: Applied, effects: &mut Vec<Effect>) {
        match proposer {
            Proposer::Request { id, answer, reserved } => {
                self.writes.reservations.release(&reserved);
                let result = match applied.errors.into_iter().next() {
                    Some((_, error)) => Err(admission::refusal(error, &answer)),
                    None => self.answer(&answer),
                };
                effects.push(Effect::Reply { id, result });
            }
            Proposer::Plan => {
                if let Some(leader) = &mut self.leader {
                    leader.plan_settled(&applied.errors, &self.store);
                }
            }
            Proposer::Unseat => self.unseated(),
            Proposer::Registration | Proposer::Rotation => {}
        }
    }

    /// Leadership begins when everything committed before it is applied, and ends when raft says so.
    fn settle_leadership(&mut self, effects: &mut Vec<Effect>) {
        let term = self.consensus.term();
        let leads = self.consensus.may_decide();
        if self.leader.as_ref().is_some_and(|leader| !leads || leader.term() != term) {
            self.end_leadership(effects);
        }
        if leads && self.leader.is_none() {
            tracing::info!(raft.term = term, "this manager leads");
            self.leader = Some(Leader::new(term, &self.store, self.config.sweep, self.now));
            self.unseated();
        }
        if !self.consensus.is_leader() {
            self.refuse_lost_writes(effects);
        }
        let reign = (term, self.consensus.leader());
        if self.reign != reign {
            self.reign = reign;
            if !leads {
                self.refuse_lost_reads(effects);
            }
        }
        self.announce(effects);
    }

    fn end_leadership(&mut self, effects: &mut Vec<Effect>) {
        let Some(leader) = self.leader.take() else { return };
        self.consensus.withdraw_snapshot();
        tracing::info!(raft.term = leader.term(), "this manager no longer leads");
        let reason = CloseReason::NotLeader { leader: self.consensus.leader() };
        effects.extend(
            leader.sessions().map(|session| Effect::CloseSession { session, reason: reason.clone() }),
        );
        self.refuse_lost(effects);
    }

    fn refuse_lost(&mut self, effects: &mut Vec<Effect>) {
        self.refuse_lost_writes(effects);
        self.refuse_lost_reads(effects);
    }

    /// What was proposed may or may not be committed by the next leader.
    fn refuse_lost_writes(&mut self, effects: &mut Vec<Effect>) {
        for proposer in self.writes.take_all() {
            if let Proposer::Request { id, .. } = proposer {
                effects.push(Effect::Reply { id, result: Err(ApiError::outcome_unknown()) });
            }
        }
    }

    /// What was to be read can be asked again.
    fn refuse_lost_reads(&mut self, effects: &mut Vec<Effect>) {
        let leader = self.consensus.leader();
        for id in self.reads.take_all() {
            effects.push(Effect::Reply { id, result: Err(ApiError::NotLeader { leader }) });
        }
    }

    pub(super) fn announce(&mut self, effects: &mut Vec<Effect>) {
        let current = match &self.leader {
            Some(leader) => Leadership::Leader { term: leader.term() },
            None => Leadership::Follower {
                leader: self.consensus.leader().filter(|id| *id != self.config.raft_id),
            },
        };
        if self.announced != Some(current) {
            self.announced = Some(current);
            effects.push(Effect::Leadership(current));
        }
    }

    /// Nothing can be promised any more.
    pub(super) fn stop(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        self.stopped = true;
        self.leader = None;
        self.refuse_lost(effects);
        for Asked { id, .. } in std::mem::take(&mut self.inbox) {
            effects.push(Effect::Reply { id, result: Err(super::requests::stopped()) });
        }
        effects.push(Effect::Stop { reason: reason.to_owned() });
    }
}
