//! A hash map that cannot be iterated, so that no decision can depend on the order of its buckets.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

/// Exact lookups only. The hasher is seeded alike in every process: keys are ids of our own making, never chosen by
/// a stranger, and the map's memory layout is the same in every run of the simulator.
#[derive(Debug, Clone)]
pub(super) struct Lookup<K, V>(HashMap<K, V, FixedState>);

impl<K, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Self(HashMap::with_hasher(FixedState::with_seed(0)))
    }
}

impl<K: Eq + Hash, V> Lookup<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    pub(super) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key).or_default()
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn reserve(&mut self, additional: usize) {
        self.0.reserve(additional);
    }
}
