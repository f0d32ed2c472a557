//! Orchestration of one service: which tasks are created, started, stopped, finished and forgotten.
//!
//! [`reconcile`] is a function of values: the replicated service and its tasks, what the leader observes of them, and
//! the time. It knows no store, clock or network, and it does not place tasks: the scheduler does, in the same log entry.
//! It is level-triggered: it never asks what happened, only what is. Called again on its own result with the same
//! observations it plans nothing, and a new leader, who sees the same replicated state, goes on where the old one was.
//!
//! In the order of a plan:
//! - `replicas`: which slots there are, which are too many, which are missing;
//! - `finish`: tasks that ended get their outcome;
//! - `update`: whether the update at hand goes on, has failed or is complete, and which slots it replaces next;
//! - `settle`: each slot has one task that may run, or gets one (`restart` decides when);
//! - `eviction`: slots leave nodes that are drained or no longer fit;
//! - `reaper`: old records go.

mod plan;
mod remark;
mod view;

mod eviction;
mod finish;
mod reaper;
mod replicas;
mod restart;
mod settle;
mod update;

mod attempt;
mod ledger;
mod slot;
mod target;

#[cfg(test)]
mod tests;

use swarm_model::{TaskId, Timestamp};

pub use plan::{ServicePlan, TaskAction};
pub use remark::Remark;
pub(crate) use replicas::{is_calm, may_leave_out};
pub(crate) use update::proven_revision;
pub use view::{NodeCondition, Observed, ServiceView, TaskView};

use ledger::Ledger;
use replicas::Slots;
use slot::Slot;
use target::{Phase, Target};

/// Decides for one service. `now` is the leader's clock; `new_task_id` draws ids.
pub fn reconcile(
    view: &ServiceView<'_>,
    now: Timestamp,
    new_task_id: &mut dyn FnMut() -> TaskId,
) -> ServicePlan {
    let mut ledger = Ledger::new(now, new_task_id);
    let Slots { restless: mut slots, mut calm, leaving, leaving_from } = replicas::slots(view);
    for task in leaving {
        ledger.remove(&task);
    }
    if view.removed {
        slots.iter().flat_map(|slot| &slot.attempts).for_each(|task| ledger.remove(task));
        return ledger.into_plan();
    }

    replicas::drop_surplus(&mut slots, view.service.replicas(), &mut ledger);
    for slot in &mut slots {
        finish::finish_ended(slot, view.service, &mut ledger);
    }
    let missing = replicas::missing(&slots, &calm, view.calm, view.service.replicas());

    let mut target = Target::new(view.service, &slots);
    for slot in &mut slots {
        eviction::enforce_deadline(slot, &target, &mut ledger);
    }
    let progress = update::assess(&mut target, &mut slots, missing.count, &mut ledger);
    update::advance(&target, &mut slots, &progress, &mut ledger);
    let leaving = settle::settle_all(&mut slots, &target, &mut ledger);
    eviction::evict(&mut slots, leaving, &target, &mut ledger);
    replicas::fill(&mut slots, missing, &target, &mut ledger);
    for slot in &mut slots {
        settle::start_prepared(slot, &target, &mut ledger);
        reaper::reap(slot, &target, &mut ledger);
    }
    let awaits_start = matches!(target.phase(), Phase::Updating | Phase::RollingBack)
        || slots.iter().any(Slot::awaits_start);
    calm.retain(|slot| !leaving_from.contains(slot));
    ServicePlan { awaits_start, calm, ..ledger.into_plan() }
}
