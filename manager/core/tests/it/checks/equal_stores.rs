//! Invariant 1, second half: managers that applied the same index hold equal stores.

use std::collections::BTreeMap;

use crate::sim::World;

pub fn check(world: &World) {
    let mut seen: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for (index, manager) in world.managers.iter().enumerate() {
        let Some(core) = &manager.core else { continue };
        let (applied, fingerprint) = core.fingerprint();
        if let Some((other, before)) = seen.insert(applied, (index, fingerprint)) {
            assert!(
                before == fingerprint,
                "seed {}: managers {other} and {index} differ at index {applied}\n{}",
                world.seed,
                world.story()
            );
        }
    }
}
