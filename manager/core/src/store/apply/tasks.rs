//! Actions on tasks.

use std::net::Ipv4Addr;
use std::sync::Arc;

use swarm_model::{DesiredState, NodeId, Outcome, Task, TaskId};

use super::{ApplyError, Changed, Result, Stamp};
use crate::addresses;
use crate::store::object::Key;
use crate::store::{NewTask, Store};

impl Store {
    pub(super) fn create_task(&mut self, stamp: Stamp, new: NewTask) -> Result {
        let service = self.service(new.service).ok_or(ApplyError::Gone("service"))?;
        if !service.revisions.contains_key(&new.revision) {
            return Err(ApplyError::Gone("revision"));
        }
        if self.tasks.contains_key(&new.id) {
            return Err(ApplyError::IdTaken("task"));
        }
        if let Some(place) = new.place {
            self.take_address(place)?;
        }
        let id = new.id;
        self.put_task(Arc::new(Task {
            id,
            service: new.service,
            slot: new.slot,
            revision: new.revision,
            version: stamp.index,
            created_at: stamp.at,
            desired_since: stamp.at,
            desired: new.desired,
            node: new.place.map(|(node, _)| node),
            address: new.place.map(|(_, address)| address),
            not_before: new.not_before,
            restarts: new.restarts,
            outcome: None,
        }));
        Ok(Changed::TaskCreated(id))
    }

    /// Checks that the address may be given out, and moves the node's cursor behind it.
    fn take_address(&mut self, (node, address): (NodeId, Ipv4Addr)) -> std::result::Result<(), ApplyError> {
        let pool = self.cluster.as_ref().ok_or(ApplyError::NoCluster)?.gateway_pool;
        let node = self.nodes.get_mut(&node).ok_or(ApplyError::Gone("node"))?;
        let offset = addresses::offset_in_block(pool, node.index, address).ok_or(ApplyError::BadAddress)?;
        if self.indexes.address_holder(address).is_some() {
            return Err(ApplyError::BadAddress);
        }
        let node = Arc::make_mut(node);
        node.next_address = addresses::after(offset);
        self.unsaved.insert(Key::Node(node.id));
        Ok(())
    }

    pub(in crate::store) fn put_task(&mut self, task: Arc<Task>) {
        self.indexes.add_task(&task);
        self.unsaved.insert(Key::Task(task.id));
        self.tasks.insert(task.id, task);
    }

    pub(super) fn place_task(&mut self, stamp: Stamp, id: TaskId, place: (NodeId, Ipv4Addr)) -> Result {
        let before = self.tasks.get(&id).ok_or(ApplyError::Gone("task"))?.clone();
        if before.node.is_some() || !before.is_live() {
            return Err(ApplyError::NotPlaceable);
        }
        self.take_address(place)?;
        let (node, address) = place;
        self.put_task(Arc::new(Task {
            node: Some(node),
            address: Some(address),
            version: stamp.index,
            ..(*before).clone()
        }));
        Ok(Changed::TaskUpdated(before))
    }

    pub(super) fn set_desired(&mut self, stamp: Stamp, id: TaskId, desired: DesiredState) -> Result {
        let task = self.tasks.get_mut(&id).ok_or(ApplyError::Gone("task"))?;
        if desired <= task.desired {
            return Err(ApplyError::WouldFall);
        }
        let before = task.clone();
        let changed = Arc::make_mut(task);
        changed.desired = desired;
        changed.desired_since = stamp.at;
        changed.version = stamp.index;
        self.unsaved.insert(Key::Task(id));
        Ok(Changed::TaskUpdated(before))
    }

    pub(super) fn finish_task(&mut self, stamp: Stamp, id: TaskId, outcome: Outcome) -> Result {
        let task = self.tasks.get_mut(&id).ok_or(ApplyError::Gone("task"))?;
        if task.outcome.is_some() || !outcome.state.is_final() {
            return Err(ApplyError::WouldFall);
        }
        let before = task.clone();
        let changed = Arc::make_mut(task);
        changed.outcome = Some(outcome);
        changed.version = stamp.index;
        self.indexes.free_address(&before);
        self.unsaved.insert(Key::Task(id));
        Ok(Changed::TaskUpdated(before))
    }

    pub(super) fn forget_task(&mut self, id: TaskId) -> Result {
        let task = self.tasks.remove(&id).ok_or(ApplyError::Gone("task"))?;
        self.indexes.remove_task(&task);
        self.unsaved.insert(Key::Task(id));
        Ok(Changed::TaskForgotten(task))
    }
}
