//! A slot: one of the places that a service's replicas take, with all attempts to fill it.

use swarm_model::{DesiredState, TaskId, Timestamp, UpdateOrder};

use super::NodeCondition;
use super::attempt::Attempt;
use super::ledger::Ledger;
use super::plan::TaskAction;
use super::target::{Phase, Target};

#[derive(Debug)]
pub(super) struct Slot<'a> {
    /// 1 to n.
    pub number: u32,
    /// Oldest first.
    pub attempts: Vec<Attempt<'a>>,
}

/// What a new attempt starts from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub revision: u64,
    pub restarts: u32,
    pub not_before: Option<Timestamp>,
}

impl Beginning {
    /// A first attempt.
    pub fn of(revision: u64) -> Self {
        Self { revision, restarts: 0, not_before: None }
    }
}

impl<'a> Slot<'a> {
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Attempt<'a>> {
        self.attempts.iter().filter(|attempt| attempt.is_live())
    }

    /// Whether what happens next hangs on a task coming up: it takes the place of another, or is only prepared yet.
    pub fn awaits_start(&self) -> bool {
        let mut live = self.live();
        live.next().is_some_and(|first| first.desired == DesiredState::Ready || live.next().is_some())
    }

    /// Nothing is decided about it until the node of its task was heard of.
    pub fn is_frozen(&self) -> bool {
        self.live().any(|attempt| attempt.condition == NodeCondition::Unknown)
    }

    /// The attempt that fills the slot as it should be filled: of the wanted spec, on a node where it may stay. One
    /// that runs is preferred, then the newest.
    pub fn holder(&self, target: &Target<'_>) -> Option<&Attempt<'a>> {
        self.live()
            .filter(|attempt| target.is_current(attempt.revision) && !attempt.must_leave())
            .max_by_key(|attempt| (attempt.is_running(), attempt.age_order()))
    }

    /// What fills the slot until an update comes to it: of another spec, on a node where it may stay.
    pub fn stand_in(&self, target: &Target<'_>) -> Option<&Attempt<'a>> {
        let other = |attempt: &&Attempt<'_>| !attempt.must_leave() && !target.is_current(attempt.revision);
        self.live().filter(other).max_by_key(|attempt| (attempt.is_running(), attempt.age_order()))
    }

    /// The attempt whose fate decides what the slot needs, where no attempt holds it: the newest live one or the one
    /// that was to replace it; without a live one, the last that ended.
    pub fn decisive(&self, target: &Target<'_>) -> Option<usize> {
        let position = self.attempts.iter().rposition(Attempt::is_live);
        if let Some(base) = position {
            let revision = self.attempts[base].revision;
            let replaces = |attempt: &Attempt<'_>| {
                !attempt.is_superseded()
                    && (attempt.revision == revision || target.is_current(attempt.revision))
            };
            return self.attempts[base..].iter().rposition(replaces).map(|offset| base + offset);
        }
        // A paused update leaves a slot with what it had; otherwise what matters is how the wanted revision fares.
        let prefer_wanted = target.phase() != Phase::UpdatePaused;
        let ended = self.attempts.iter().enumerate().filter(|(_, attempt)| !attempt.is_superseded());
        let last = ended.max_by_key(|(at, attempt)| {
            let wanted = prefer_wanted && attempt.revision == target.revision();
            (wanted, attempt.outcome.as_ref().map(|end| end.at), *at)
        });
        last.map(|(at, _)| at)
    }

    /// Tells the chosen attempts that have not ended to stop. What never had a node is forgotten at once.
    pub fn stop_where(&mut self, ledger: &mut Ledger<'_>, chosen: impl Fn(&Attempt<'a>) -> bool) {
        self.attempts.retain_mut(|attempt| {
            if !attempt.is_live() || !chosen(attempt) {
                return true;
            }
            if attempt.condition == NodeCondition::Unplaced {
                ledger.act(TaskAction::Forget { id: attempt.id });
                return false;
            }
            attempt.raise(DesiredState::Shutdown, ledger);
            true
        });
    }

    /// Adds an attempt beside the one that `keep` names; all other live ones stop. With stop-first it is only prepared
    /// until what stops has ended.
    pub fn replace(
        &mut self,
        ledger: &mut Ledger<'_>,
        keep: Option<TaskId>,
        beginning: Beginning,
        order: UpdateOrder,
    ) {
        self.stop_where(ledger, |attempt| Some(attempt.id) != keep);
        let waits = match order {
            UpdateOrder::StopFirst => self.attempts.iter().any(Attempt::is_stopping),
            UpdateOrder::StartFirst => false,
        };
        let desired =
            if waits || beginning.not_before.is_some() { DesiredState::Ready } else { DesiredState::Running };
        let id = ledger.new_task_id();
        ledger.act(TaskAction::Create {
            id,
            slot: self.number,
            desired,
            not_before: beginning.not_before,
            restarts: beginning.restarts,
            revision: beginning.revision,
        });
        self.attempts.push(Attempt {
            id,
            revision: beginning.revision,
            created_at: ledger.now,
            desired,
            desired_since: ledger.now,
            not_before: beginning.not_before,
            restarts: beginning.restarts,
            node: None,
            condition: NodeCondition::Unplaced,
            observed: None,
            outcome: None,
        });
    }
}
