//! The invariants of the design, one file each, checked after every change of the replicated state and at every operation
//! of an agent. They look at what managers applied and at what hosts really do, never at what anybody says, but for what
//! the leader could know of a task's state.
//!
//! Left out, because there is nothing yet that could break them: completed job slots (invariant 9) and secrets (11).

mod acts;
mod addresses;
mod difference;
mod equal_stores;
mod outcomes;
mod placement;
mod ports;
mod reservations;
mod restarts;
mod seen;
mod slots;
mod states;
mod truth;
mod updates;

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{DesiredState, NodeId, TaskId, Timestamp};

use super::host::Host;
use super::world::World;

pub use seen::Seen;
pub use truth::Truth;

/// What was replicated before, and what is now.
pub struct Step<'a> {
    pub before: &'a Truth,
    pub after: &'a Truth,
    pub hosts: &'a [Host],
    pub now: Timestamp,
}

/// What the checkers remember.
#[derive(Debug, Default)]
pub struct Checks {
    pub seen: Seen,
    equal: equal_stores::Memory,
    placement: placement::Memory,
    slots: slots::Memory,
    updates: updates::Memory,
    /// Where every task was ever placed, and the most that was desired of it.
    placed: BTreeMap<TaskId, (NodeId, DesiredState)>,
    /// Nodes that were removed.
    pub removed: BTreeSet<NodeId>,
}

impl Step<'_> {
    pub fn host(&self, node: NodeId) -> Option<(usize, &Host)> {
        self.hosts.iter().enumerate().find(|(_, host)| host.node == node)
    }
}

impl World {
    /// After each batch of a manager.
    pub fn look_at(&mut self, manager: usize) {
        let Some(process) = &self.managers[manager].core else { return };
        let core = &process.core;
        let applied = core.replica().applied();
        let differs = self.checks.equal.look(manager, core);
        if let Some(text) = differs {
            return self.violate("equal stores", text);
        }
        if applied <= self.truth.applied {
            return;
        }
        let mut after = Truth::of(core.replica());
        after.each_service_table(|services| self.tampering.restore_all(services));
        let before = std::mem::replace(&mut self.truth, after);
        let gone = before.nodes.keys().filter(|node| !self.truth.nodes.contains_key(node));
        self.checks.removed.extend(gone);
        self.tell(&difference::describe(&before, &self.truth));
        self.check_step(&before);
    }

    fn check_step(&mut self, before: &Truth) {
        let Self { truth, checks, hosts, now, operator, .. } = self;
        let step = Step { before, after: truth, hosts, now: *now };
        for task in truth.tasks.values() {
            if let Some(node) = task.node {
                checks.placed.insert(task.id, (node, task.desired));
            }
        }
        let violations = [
            ("acknowledged writes", operator.history.check(truth)),
            ("states rise", states::check(&step)),
            ("slots", slots::check(&step, &mut checks.slots)),
            ("addresses", addresses::check(&step)),
            ("ports", ports::check(&step)),
            ("reservations", reservations::check(&step)),
            ("placement", placement::check(&step, &mut checks.placement)),
            ("restarts", restarts::check(&step)),
            ("updates", updates::check(&step, &checks.seen, &mut checks.updates)),
            ("outcomes", outcomes::check(&step)),
        ];
        for (check, found) in violations {
            if let Some(text) = found.into_iter().next() {
                return self.violate(check, text);
            }
        }
    }
}

impl Checks {
    /// At rest: compares whatever the index.
    pub fn compare(&mut self, manager: usize, core: &swarm_manager_core::ManagerCore) -> Option<String> {
        self.equal.compare(manager, core)
    }
}
