//! What each agent is to run, sent as versioned differences. Holds no copy of it: a difference is the set of tasks that
//! changed since the last message, looked up in the store when it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_model::{
    Assignment, AssignmentsDelta, DesiredState, ManagerMessage, NodeId, PortMode, PortSpec, Service,
    ServiceId, TableVersion, Task, TaskId, TaskSpec,
};

use super::Gates;
use crate::door::{Effect, SessionId};
use crate::store::Store;

#[derive(Debug)]
struct Table {
    session: SessionId,
    /// Number of the last message; `None`: the agent needs everything.
    sent: Option<u64>,
    changed: BTreeSet<TaskId>,
}

#[derive(Debug)]
pub(crate) struct Assignments {
    epoch: u64,
    /// Number of the newest message to any agent.
    number: u64,
    tables: BTreeMap<NodeId, Table>,
    /// Agents with something to send.
    due: BTreeSet<NodeId>,
    /// Task specs as agents get them, shared by all tasks of a revision.
    specs: BTreeMap<(ServiceId, u64), Arc<TaskSpec>>,
}

impl Assignments {
    pub fn new(epoch: u64) -> Self {
        Self { epoch, number: 0, tables: BTreeMap::new(), due: BTreeSet::new(), specs: BTreeMap::new() }
    }

    pub fn open(&mut self, node: NodeId, session: SessionId) {
        self.tables.insert(node, Table { session, sent: None, changed: BTreeSet::new() });
        self.due.insert(node);
    }

    pub fn close(&mut self, node: NodeId) {
        self.tables.remove(&node);
        self.due.remove(&node);
    }

    pub fn send_all_again(&mut self, node: NodeId) {
        if let Some(table) = self.tables.get_mut(&node) {
            table.sent = None;
            self.due.insert(node);
        }
    }

    /// The task is new on the node, or what its agent must know of it changed.
    pub fn mark(&mut self, node: NodeId, task: TaskId) {
        if let Some(table) = self.tables.get_mut(&node) {
            table.changed.insert(task);
            self.due.insert(node);
        }
    }

    /// No task of the service is left.
    pub fn forget_service(&mut self, service: ServiceId) {
        let revisions: Vec<_> =
            self.specs.range((service, 0)..=(service, u64::MAX)).map(|(key, _)| *key).collect();
        for key in revisions {
            self.specs.remove(&key);
        }
    }

    pub fn flush(&mut self, store: &Store, gates: &Gates, effects: &mut Vec<Effect>) {
        for node in std::mem::take(&mut self.due) {
            let Some(table) = self.tables.get_mut(&node) else { continue };
            self.number += 1;
            let version = |number| TableVersion { epoch: self.epoch, number };
            let changed = std::mem::take(&mut table.changed);
            let base = table.sent.replace(self.number);
            let mut delta = AssignmentsDelta {
                base: base.map(version),
                version: version(self.number),
                upsert: Vec::new(),
                remove: Vec::new(),
            };
            let session = table.session;
            if base.is_some() {
                for task in changed {
                    match self.assignment(store, gates, node, task) {
                        Some(assignment) => delta.upsert.push(assignment),
                        None => delta.remove.push(task),
                    }
                }
            } else {
                for task in store.tasks_on_node(node) {
                    match self.assignment(store, gates, node, task.id) {
                        Some(assignment) => delta.upsert.push(assignment),
                        // Not to be named would be enough to remove it. Named, it is answered even if it never came.
                        None if task.outcome.is_none() => delta.remove.push(task.id),
                        None => {}
                    }
                }
            }
            effects.push(Effect::Session { session, message: ManagerMessage::Assignments(delta) });
        }
    }

    /// `None`: the agent is to stop and forget it.
    fn assignment(&mut self, store: &Store, gates: &Gates, node: NodeId, task: TaskId) -> Option<Assignment> {
        let task = store.task(task).filter(|task| task.node == Some(node))?;
        let desired = sent_desired(task, gates)?;
        let service = &store.service_record(task.service)?.service;
        let spec = match self.specs.get(&(service.id, task.revision)) {
            Some(spec) => spec.clone(),
            None => {
                let spec = Arc::new(service.task_spec(task.revision)?.clone());
                self.specs.insert((service.id, task.revision), spec.clone());
                spec
            }
        };
        Some(Assignment {
            task: task.id,
            service: service.id,
            service_name: service.spec.name.clone(),
            service_labels: service.spec.labels.clone(),
            slot: task.slot,
            desired,
            address: task.address?,
            spec,
            ports: ports(service, task.revision),
        })
    }
}

/// Published on the mesh as the service has it now, on the node as the task's revision has it.
fn ports(service: &Service, revision: u64) -> Vec<PortSpec> {
    let own = service.revisions.get(&revision).map_or(&[][..], |spec| &spec.ports);
    let ingress = service.ports.iter().filter(|port| port.mode == PortMode::Ingress);
    ingress.chain(own.iter().filter(|port| port.mode == PortMode::Host)).cloned().collect()
}

/// What the agent is told to make of a task; `None`: to remove it. One that ended stays with its agent, for its logs,
/// until it is forgotten here.
fn sent_desired(task: &Task, gates: &Gates) -> Option<DesiredState> {
    if gates.is_held(task.id) {
        return Some(DesiredState::Running);
    }
    match (task.desired, &task.outcome) {
        (DesiredState::Remove, _) => None,
        (DesiredState::Shutdown, _) | (_, Some(_)) => Some(DesiredState::Shutdown),
        (desired @ (DesiredState::Ready | DesiredState::Running), None) => Some(desired),
    }
}
