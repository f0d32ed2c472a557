//! Which nodes changed since when: a list of all slots, the most recently changed first.
//!
//! Each slot stands in it once, so it needs no trimming, and whoever kept a derived index up to [`Changes::now`]
//! catches up by walking exactly the distinct nodes that changed meanwhile.

use super::nodes::Slot;

const NONE: u32 = u32::MAX;

/// An intrusive doubly linked list over the slots.
#[derive(Debug)]
pub(super) struct Changes {
    links: Vec<Link>,
    newest: u32,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    /// Count of the last change; 0 before the first one.
    at: u64,
    newer: u32,
    older: u32,
}

impl Default for Changes {
    fn default() -> Self {
        Self { links: Vec::new(), newest: NONE, clock: 0 }
    }
}

impl Changes {
    /// Count of all changes so far.
    pub(super) fn now(&self) -> u64 {
        self.clock
    }

    /// Notes that `slot` changed, and returns the count of this change.
    pub(super) fn touch(&mut self, slot: Slot) -> u64 {
        let index = slot.index();
        if index >= self.links.len() {
            self.links.resize(index + 1, Link { at: 0, newer: NONE, older: NONE });
        }
        self.clock += 1;
        if self.newest != slot.0 {
            self.unlink(index);
            self.links[index].newer = NONE;
            self.links[index].older = self.newest;
            if self.newest != NONE {
                self.links[self.newest as usize].newer = slot.0;
            }
            self.newest = slot.0;
        }
        self.links[index].at = self.clock;
        self.clock
    }

    fn unlink(&mut self, index: usize) {
        let Link { newer, older, .. } = self.links[index];
        if newer != NONE {
            self.links[newer as usize].older = older;
        }
        if older != NONE {
            self.links[older as usize].newer = newer;
        }
    }

    /// The slots that changed after count `at`, newest first.
    pub(super) fn since(&self, at: u64) -> impl Iterator<Item = Slot> {
        let mut next = self.newest;
        std::iter::from_fn(move || {
            let link = self.links.get(next as usize).filter(|link| link.at > at)?;
            let slot = Slot(next);
            next = link.older;
            Some(slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_slot_is_seen_once_newest_first() {
        let mut changes = Changes::default();
        for slot in [0, 1, 2, 1, 3, 3, 0] {
            changes.touch(Slot(slot));
        }
        let since = |at| changes.since(at).map(|slot| slot.0).collect::<Vec<_>>();
        assert_eq!(since(0), [0, 3, 1, 2]);
        assert_eq!(since(4), [0, 3]);
        assert_eq!(since(changes.now()), []);
    }
}
