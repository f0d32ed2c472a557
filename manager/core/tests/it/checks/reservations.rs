//! Invariant 6, resources: what tasks reserve on a node never exceeds what it has.

use std::collections::BTreeMap;

use swarm_model::Resources;

use super::Mirror;

pub fn check(mirror: &Mirror) -> Vec<String> {
    let mut reserved: BTreeMap<_, Resources> = BTreeMap::new();
    for view in mirror.tasks.values().filter(|view| view.task.outcome.is_none()) {
        if let (Some(node), Some(spec)) = (view.task.node, &view.spec) {
            let sum = reserved.entry(node).or_default();
            *sum = sum.saturating_add(spec.task.reservations);
        }
    }
    reserved
        .into_iter()
        .filter_map(|(id, sum)| {
            let node = &mirror.nodes.get(&id)?.node;
            let excess = !sum.fits_in(node.engine.resources);
            excess.then(|| {
                format!("{sum:?} is reserved on {} ({:?})", node.engine.hostname, node.engine.resources)
            })
        })
        .collect()
}
