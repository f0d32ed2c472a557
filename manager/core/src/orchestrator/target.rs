//! What the slots of a service are to become: its spec, and how far the way there may be gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{
    MountKind, PortMode, RestartPolicy, Service, ServiceSpec, TaskSpec, UpdateOrder, UpdatePolicy,
    UpdateState, UpdateStatus,
};

use super::attempt::Attempt;
use super::slot::Slot;

/// Which way slots change their spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No update is under way: whatever is created is of the current revision.
    Settled,
    Updating,
    /// An update stopped half way.
    UpdatePaused,
    RollingBack,
    RollbackPaused,
}

/// The service as the plan leaves it.
pub(super) struct Target<'a> {
    pub service: Cow<'a, Service>,
    /// For the other revisions that have tasks: whether a task of it is as one of the current revision.
    same: BTreeMap<u64, bool>,
}

impl<'a> Target<'a> {
    pub fn new(service: &'a Service, slots: &[Slot<'_>]) -> Self {
        let mut target = Self { service: Cow::Borrowed(service), same: BTreeMap::new() };
        for attempt in slots.iter().flat_map(|slot| &slot.attempts) {
            target.compare(attempt.revision);
        }
        target
    }

    fn compare(&mut self, revision: u64) {
        if revision != self.service.revision && !self.same.contains_key(&revision) {
            let same = (self.service.revisions.get(&revision))
                .is_some_and(|spec| makes_same_tasks(spec, &self.service.spec));
            self.same.insert(revision, same);
        }
    }

    pub fn revision(&self) -> u64 {
        self.service.revision
    }

    /// Whether a task of that revision need not be replaced.
    pub fn is_current(&self, revision: u64) -> bool {
        revision == self.service.revision || self.same.get(&revision).copied().unwrap_or(false)
    }

    /// The status of the update to the current revision; `None`: it was not begun, or there is none.
    pub fn update(&self) -> Option<&UpdateStatus> {
        self.service.update.as_ref().filter(|update| update.to_revision == self.service.revision)
    }

    pub fn phase(&self) -> Phase {
        match self.update().map(|update| update.state) {
            None | Some(UpdateState::Completed | UpdateState::RollbackCompleted) => Phase::Settled,
            Some(UpdateState::Updating) => Phase::Updating,
            Some(UpdateState::Paused) => Phase::UpdatePaused,
            Some(UpdateState::RollbackStarted) => Phase::RollingBack,
            Some(UpdateState::RollbackPaused) => Phase::RollbackPaused,
        }
    }

    pub fn policy(&self) -> &UpdatePolicy {
        match self.phase() {
            Phase::Settled | Phase::Updating | Phase::UpdatePaused => &self.service.spec.update,
            Phase::RollingBack | Phase::RollbackPaused => &self.service.spec.rollback,
        }
    }

    /// The order asked for; else start-first, unless two tasks of a slot would fight over a volume, a port, or the room
    /// that a limit of replicas per node leaves.
    pub fn order(&self) -> UpdateOrder {
        let spec = &self.service.spec;
        let shares_disk = spec.task.container.mounts.iter().any(|mount| match mount.kind {
            MountKind::Bind { .. } | MountKind::Volume { .. } => true,
            MountKind::Tmpfs { .. } => false,
        });
        let host_port = spec.ports.iter().any(|port| port.mode == PortMode::Host);
        let limited = spec.task.placement.max_replicas_per_node.is_some();
        self.policy().order.unwrap_or(if shares_disk || host_port || limited {
            UpdateOrder::StopFirst
        } else {
            UpdateOrder::StartFirst
        })
    }

    /// The policy for tasks of that revision: its own where an update has yet to reach the slot, else the current one.
    pub fn restart_policy(&self, revision: u64) -> &RestartPolicy {
        let current = &self.service.spec.task.restart;
        if self.keeps_revision(revision) {
            self.service.task_spec(revision).map_or(current, |spec| &spec.restart)
        } else {
            current
        }
    }

    /// The revision of what replaces `ended` in the slot. While an update is under way, only the update moves a slot to
    /// the new revision: a crash elsewhere must not spread what may be broken. A rollback never goes back to what it
    /// leaves.
    pub fn successor_revision(&self, slot: &Slot<'_>, ended: u64) -> u64 {
        let begun = match self.phase() {
            // What the update has begun, it does not go on with; what served beside it is restored.
            Phase::UpdatePaused => false,
            Phase::Settled | Phase::Updating | Phase::RollingBack | Phase::RollbackPaused => {
                slot.attempts.iter().any(|attempt| attempt.revision == self.revision())
            }
        };
        if self.keeps_revision(ended) && !begun { ended } else { self.revision() }
    }

    fn keeps_revision(&self, revision: u64) -> bool {
        match self.phase() {
            Phase::Settled | Phase::RollingBack | Phase::RollbackPaused => false,
            Phase::Updating | Phase::UpdatePaused => {
                !self.is_current(revision) && self.service.revisions.contains_key(&revision)
            }
        }
    }

    /// The first attempt of each slot at the revision that is rolled out tells since when the slot is under way.
    pub fn is_first_of_update(&self, slot: &Slot<'_>, attempt: &Attempt<'_>) -> bool {
        self.phase() != Phase::Settled
            && (slot.attempts.iter().find(|first| first.revision == self.revision()))
                .is_some_and(|first| first.id == attempt.id)
    }

    pub fn set_update(&mut self, update: UpdateStatus) {
        self.service.to_mut().update = Some(update);
    }

    /// Makes the spec of revision `to` the wanted one again, as a revision of its own. `false`: it was forgotten.
    pub fn roll_back(&mut self, to: u64, update: UpdateStatus) -> bool {
        let Some(old) = self.service.revisions.get(&to) else { return false };
        let spec = Arc::new(ServiceSpec { mode: self.service.spec.mode, ..(**old).clone() });
        let left = self.service.revision;
        let service = self.service.to_mut();
        service.revision = update.to_revision;
        service.revisions.insert(update.to_revision, spec.clone());
        service.spec = spec;
        service.update = Some(update);
        let known = std::mem::take(&mut self.same).into_keys();
        known.chain([left]).for_each(|revision| self.compare(revision));
        true
    }
}

/// Whether tasks of the two specs are the same on their node. Where they may run and what follows on their end is the
/// managers' matter: a node that no longer fits shows in a task's [`super::NodeCondition`].
fn makes_same_tasks(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    let TaskSpec { container, limits, reservations, restart: _, placement: _, force_update } = &one.task;
    let host_ports = |spec: &ServiceSpec| {
        let mut ports: Vec<_> =
            spec.ports.iter().filter(|port| port.mode == PortMode::Host).cloned().collect();
        ports.sort();
        ports
    };
    *container == other.task.container
        && *limits == other.task.limits
        && *reservations == other.task.reservations
        && *force_update == other.task.force_update
        && host_ports(one) == host_ports(other)
}
