//! Invariant 6, resources: what tasks reserve on a node never exceeds what the machine really has.

use std::collections::BTreeMap;

use swarm_model::Resources;

use super::Step;
use crate::specs;

pub fn check(step: &Step<'_>) -> Vec<String> {
    let mut reserved: BTreeMap<_, Resources> = BTreeMap::new();
    for task in step.after.open_tasks() {
        if let (Some(node), Some(spec)) = (task.node, step.after.spec_of(task)) {
            let sum = reserved.entry(node).or_default();
            *sum = sum.saturating_add(spec.task.reservations);
        }
    }
    let excess = reserved.into_iter().filter_map(|(node, sum)| {
        let (host, _) = step.host(node)?;
        let has = specs::engine(host).resources;
        (!sum.fits_in(has)).then(|| format!("{sum:?} is reserved on host {host}, which has {has:?}"))
    });
    excess.collect()
}
