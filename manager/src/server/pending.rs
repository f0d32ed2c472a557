//! What a watcher has not been told yet: each object once, as it is now.

use std::collections::{BTreeMap, HashMap};

use swarm_manager_core::api::Change;
use swarm_model::{NodeId, ServiceId, TaskId};

/// Objects that may wait: some 10 MiB of tasks.
const MAX_OBJECTS: usize = 32_768;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Object {
    Service(ServiceId),
    Task(TaskId),
    Node(NodeId),
    Image(String),
}

/// Objects in the order in which they changed first since they were last told.
#[derive(Debug, Default)]
pub struct Pending {
    turn: u64,
    changes: BTreeMap<u64, (u64, Change)>,
    turns: HashMap<Object, u64>,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.changes.len() > MAX_OBJECTS
    }

    /// `index`: of the log, at which the object is so.
    pub fn put(&mut self, index: u64, change: &Change) {
        let turn = *self.turns.entry(object(change)).or_insert_with(|| {
            self.turn += 1;
            self.turn
        });
        self.changes.insert(turn, (index, change.clone()));
    }

    pub fn take(&mut self) -> Option<(u64, Change)> {
        let (_, (index, change)) = self.changes.pop_first()?;
        self.turns.remove(&object(&change));
        Some((index, change))
    }
}

fn object(change: &Change) -> Object {
    match change {
        Change::Service(view) => Object::Service(view.service.id),
        Change::ServiceRemoved(service) => Object::Service(*service),
        Change::Task(view) => Object::Task(view.task.id),
        Change::TaskRemoved { task, .. } => Object::Task(*task),
        Change::Node(view) => Object::Node(view.node.id),
        Change::NodeRemoved(node) => Object::Node(*node),
        Change::Image(image) => Object::Image(image.name.clone()),
        Change::ImageRemoved(name) => Object::Image(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_waits_once_with_its_newest_change() {
        let mut pending = Pending::default();
        let (first, second) = (NodeId::from_u128(1), NodeId::from_u128(2));
        pending.put(5, &Change::NodeRemoved(first));
        pending.put(6, &Change::NodeRemoved(second));
        pending.put(7, &Change::NodeRemoved(first));
        assert!(matches!(pending.take(), Some((7, Change::NodeRemoved(node))) if node == first));
        assert!(matches!(pending.take(), Some((6, Change::NodeRemoved(node))) if node == second));
        assert!(pending.take().is_none() && pending.turns.is_empty());
        for number in 0..=MAX_OBJECTS as u128 {
            assert!(!pending.is_full());
            pending.put(8, &Change::NodeRemoved(NodeId::from_u128(number)));
        }
        assert!(pending.is_full());
    }
}
