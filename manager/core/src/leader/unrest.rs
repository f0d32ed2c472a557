//! Which slots of a service the next decision looks at: those that are not calm, and those of which something changed
//! since. Of a large service at rest they are few, so that a decision costs in proportion to what changed.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{ServiceId, Task};

/// A service that is not in here is looked at as a whole.
#[derive(Debug, Default)]
pub(super) struct Unrest {
    services: BTreeMap<ServiceId, KnownSlots>,
}

/// The slots of one service.
#[derive(Debug, Default)]
pub(super) struct KnownSlots {
    pub calm: BTreeSet<u32>,
    pub restless: BTreeSet<u32>,
}

impl KnownSlots {
    /// How many slots there are; some may be gone.
    pub fn count(&self) -> usize {
        self.calm.len() + self.restless.len()
    }
}

impl Unrest {
    pub fn of(&self, service: ServiceId) -> Option<&KnownSlots> {
        self.services.get(&service)
    }

    /// Something changed about the task, its node, or what is known of either.
    pub fn note(&mut self, task: &Task) {
        if let Some(slots) = self.services.get_mut(&task.service) {
            slots.calm.remove(&task.slot);
            slots.restless.insert(task.slot);
        }
    }

    /// The next look is one at the whole service.
    pub fn forget(&mut self, service: ServiceId) {
        self.services.remove(&service);
    }

    pub fn forget_all(&mut self) {
        self.services.clear();
    }

    /// A look is over: it found `slots`, among them `calm`. If it was one at the whole service, nothing was left out.
    pub fn looked(&mut self, service: ServiceId, whole: bool, mut slots: BTreeSet<u32>, calm: Vec<u32>) {
        let known = self.services.entry(service).or_default();
        if whole {
            known.calm.clear();
        }
        for slot in &calm {
            slots.remove(slot);
        }
        known.calm.extend(calm);
        known.restless = slots;
    }
}
