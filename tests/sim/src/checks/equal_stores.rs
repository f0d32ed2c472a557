//! Invariant 1, second half: managers that applied the same index hold equal stores.

use std::collections::BTreeMap;

use swarm_manager_core::ManagerCore;

/// A digest is made at every index that is divisible by this, where a batch happens to end there, and at rest.
const EVERY: u64 = 4;

#[derive(Debug, Default)]
pub struct Memory {
    /// By index: who was there first, and the digest.
    digests: BTreeMap<u64, (usize, u64)>,
    /// Last index looked at, of each manager.
    last: BTreeMap<usize, u64>,
}

impl Memory {
    pub fn look(&mut self, manager: usize, core: &ManagerCore) -> Option<String> {
        let applied = core.replica().applied();
        let moved = self.last.insert(manager, applied) != Some(applied);
        if !moved || !applied.is_multiple_of(EVERY) {
            return None;
        }
        self.compare(manager, core)
    }

    pub fn compare(&mut self, manager: usize, core: &ManagerCore) -> Option<String> {
        let (applied, digest) = core.fingerprint();
        let (other, known) = *self.digests.entry(applied).or_insert((manager, digest));
        (known != digest).then(|| format!("managers {other} and {manager} differ at index {applied}"))
    }
}
