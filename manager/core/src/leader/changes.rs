//! Committed changes: brings what the leader holds in line with the store, and marks what must be decided or sent.

use std::sync::Arc;

use swarm_model::{DesiredState, Node, NodeId, PortMode, Service, ServiceId, Task, TaskId, Timestamp};

use super::Leader;
use super::timers::Timer;
use crate::dispatcher::return_time;
use crate::door::{CloseReason, Effect};
use crate::orchestrator::NodeCondition;
use crate::store::{Changed, Store};
use crate::watch::Watch;

impl Leader {
    pub fn note_change(
        &mut self,
        change: &Changed,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
        effects: &mut Vec<Effect>,
    ) {
        match change {
            Changed::Cluster => self.cluster_changed(store, effects),
            Changed::Operator(_) => {}
            Changed::Node(id) => self.node_changed(*id, store, now, watch, effects),
            Changed::NodeRemoved(node) => self.node_removed(node, store, watch, effects),
            Changed::Service { service, before } => {
                self.service_changed(*service, before.as_deref(), store, watch);
            }
            Changed::ServiceRemoved(service) => {
                self.mesh.remove_service(service.id);
                self.unrest.forget(service.id);
                self.dirty.insert(service.id);
                watch.service_removed(service);
            }
            Changed::ServiceForgotten(service) => {
                self.assignments.forget_service(*service);
                self.planner.forget_service(*service);
                self.timers.set(Timer::Service(*service), None);
                self.dirty.remove(service);
                self.unrest.forget(*service);
            }
            Changed::TaskCreated(id) => self.task_created(*id, store, watch),
            Changed::TaskUpdated(before) => self.task_changed(before, store, now, watch),
            Changed::TaskForgotten(task) => self.task_forgotten(task, store, watch),
            Changed::Image(name) => watch.image(name),
            Changed::ImageRemoved(name) => watch.image_removed(name),
        }
    }

    fn node_changed(
        &mut self,
        id: NodeId,
        store: &Store,
        now: Timestamp,
        watch: &mut Watch,
        effects: &mut Vec<Effect>,
    ) {
        let Some(node) = store.node(id) else { return };
        if self.told_roles.get(&id).is_some_and(|told| *told != node.acting_role())
            && let Some(session) = self.fleet.session(id)
        {
            effects.push(Effect::CloseSession { session, reason: CloseReason::RoleChanged(id) });
            self.close_session(session, store, watch);
        }
        self.follow_manager(node, effects);
        self.fleet.add(id, now, self.interval(store), return_time(store.nodes().len()));
        self.mesh.set_node(node.index, node.engine.data_address);
        self.planner.upsert_node(node, &self.fleet);
        for task in store.tasks_on_node(id).filter(|task| task.outcome.is_none()) {
            self.disturb(task);
        }
        watch.node(id);
    }

    fn node_removed(
        &mut self,
        node: &Arc<Node>,
        store: &Store,
        watch: &mut Watch,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(session) = self.fleet.remove(node.id) {
            let removed = store.removed_nodes().get(node.id);
            let at = removed.map_or(Timestamp::ZERO, |removed| removed.at);
            effects
                .push(Effect::CloseSession { session, reason: CloseReason::Removed { node: node.id, at } });
        }
        self.forget_manager(node.id, effects);
        self.assignments.close(node.id);
        self.mesh.disconnect(node.id);
        self.mesh.remove_node(node.index);
        self.planner.remove_node(node.id);
        self.descriptions.remove(&node.id);
        self.told_roles.remove(&node.id);
        self.certified_by.remove(&node.id);
        self.rotation_moved = true;
        for task in store.tasks_on_node(node.id) {
            self.refresh_serving(task.id, store, watch);
            self.disturb(task);
        }
        watch.node_removed(node.id);
    }

    fn service_changed(&mut self, id: ServiceId, before: Option<&Service>, store: &Store, watch: &mut Watch) {
        let Some(service) = store.service(id) else { return };
        if before.is_none_or(|before| before.ports != service.ports) {
            let serving = store.tasks_of_service(id).filter(|task| self.serving.contains(task.id));
            let addresses: Vec<_> = serving.filter_map(|task| task.address).collect();
            self.mesh.set_service(id, &service.ports, &addresses);
        }
        if before.is_some_and(|b| b.ports != service.ports || b.spec.labels != service.spec.labels) {
            for task in store.tasks_of_service(id) {
                self.mark_assignment(task.id, store);
            }
        }
        self.unrest.forget(id);
        self.dirty.insert(id);
        watch.service(id);
    }

    fn task_created(&mut self, id: TaskId, store: &Store, watch: &mut Watch) {
        let Some(task) = store.task(id) else { return };
        self.planner.add_task(task, store);
        self.unrest.note(task);
        self.mark_assignment(id, store);
        if task.node.is_none() {
            // Nothing will be heard of it: only a second look sets the deadline of an update that waits for it.
            self.dirty.insert(task.service);
        }
        self.check_place(task, store);
        watch.task(id);
    }

    fn task_changed(&mut self, before: &Arc<Task>, store: &Store, now: Timestamp, watch: &mut Watch) {
        let Some(task) = store.task(before.id) else { return };
        self.unrest.note(task);
        let served = self.serving.contains(task.id);
        self.refresh_serving(task.id, store, watch);
        let stops = before.desired <= DesiredState::Running && task.desired > DesiredState::Running;
        if served && stops && publishes(task, store) {
            self.gates.hold(task.id, self.mesh.version_of_changes(), now);
        }
        if task.outcome.is_some() {
            self.observations.forget(task.id);
            self.gates.release(task.id);
            self.planner.end_task(task);
            self.dirty.insert(task.service);
        } else {
            self.planner.update_task(before, task, store);
            if before.node != task.node {
                self.check_place(task, store);
            }
        }
        self.mark_assignment(task.id, store);
        watch.task(task.id);
    }

    /// Its node may have been drained, relabelled or lost while the plan that placed it there was on its way.
    fn check_place(&mut self, task: &Task, store: &Store) {
        let Some(record) = store.service_record(task.service) else { return };
        match self.node_condition(task, &record.service, store) {
            NodeCondition::Usable | NodeCondition::Unplaced => {}
            NodeCondition::Unknown
            | NodeCondition::Draining
            | NodeCondition::Down { .. }
            | NodeCondition::Gone
            | NodeCondition::Mismatch => self.disturb(task),
        }
    }

    fn task_forgotten(&mut self, task: &Arc<Task>, store: &Store, watch: &mut Watch) {
        self.unrest.note(task);
        self.refresh_serving(task.id, store, watch);
        self.observations.forget(task.id);
        self.gates.release(task.id);
        self.planner.end_task(task);
        if let Some(node) = task.node {
            self.assignments.mark(node, task.id);
        }
        let last = store.tasks_of_service(task.service).next().is_none();
        if last && store.service_record(task.service).is_some_and(|record| record.removed) {
            self.dirty.insert(task.service);
        }
        watch.task_removed(task);
    }
}

/// Whether new connections may reach the task through the mesh.
fn publishes(task: &Task, store: &Store) -> bool {
    store
        .service_record(task.service)
        .is_some_and(|record| record.service.ports.iter().any(|port| port.mode == PortMode::Ingress))
}
