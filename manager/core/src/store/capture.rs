//! The whole state at one index, frozen: cheap to take, encoded an object at a time by whoever keeps it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use swarm_model::{Cluster, Image, Node, Timestamp};

use super::Store;
use super::indexes::Indexes;
use super::object::{Key, ObjectKey, StoredObject};

/// The state as it was when it was captured. Clones are the same.
#[derive(Clone)]
pub struct Capture(Arc<Captured>);

struct Captured {
    /// Without indexes.
    store: Store,
    term: u64,
}

/// Objects that changed or were removed, as they were at one index.
pub(crate) struct Unsaved {
    pub(super) keys: BTreeSet<Key>,
    /// Without indexes.
    pub(super) store: Store,
}

impl Store {
    pub(crate) fn capture(&self, term: u64) -> Capture {
        Capture(Arc::new(Captured { store: self.frozen(), term }))
    }

    /// A copy that shares all objects, without indexes.
    pub(super) fn frozen(&self) -> Self {
        Self {
            applied: self.applied,
            clock: self.clock,
            cluster: self.cluster.clone(),
            nodes: self.nodes.clone(),
            services: self.services.clone(),
            removed_services: self.removed_services.clone(),
            tasks: self.tasks.clone(),
            images: self.images.clone(),
            removed: self.removed.clone(),
            operators: self.operators.clone(),
            audit: self.audit.clone(),
            // All fields are named: what is forgotten here would be missing in every backup.
            indexes: Indexes::default(),
            unsaved: BTreeSet::new(),
        }
    }
}

impl Unsaved {
    /// What is there, and the keys of what is not there any more.
    pub fn encode(self) -> (Vec<StoredObject>, Vec<ObjectKey>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for key in self.keys {
            match self.store.encode(&key) {
                Some(object) => changed.push(object),
                None => removed.push(key.encode()),
            }
        }
        (changed, removed)
    }
}

impl Capture {
    /// Index of the last log entry that is in it.
    pub fn index(&self) -> u64 {
        self.0.store.applied
    }

    /// Of the leader that it was captured by.
    pub fn term(&self) -> u64 {
        self.0.term
    }

    /// Time of its last log entry.
    pub fn at(&self) -> Timestamp {
        self.0.store.clock
    }

    /// `None`: there is none.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.0.store.cluster.as_ref()
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.0.store.nodes()
    }

    pub fn services(&self) -> usize {
        self.0.store.services().count()
    }

    pub fn tasks(&self) -> usize {
        self.0.store.task_count()
    }

    pub fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.0.store.images()
    }

    /// Every object, encoded.
    pub fn objects(&self) -> impl Iterator<Item = StoredObject> {
        self.0.store.objects()
    }
}

impl fmt::Debug for Unsaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsaved").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("index", &self.index()).finish_non_exhaustive()
    }
}
