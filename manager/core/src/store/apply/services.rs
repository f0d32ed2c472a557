//! Actions on services.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{PortSpec, Service, ServiceId, UpdateStatus};

use super::{ApplyError, Changed, Result, Stamp};
use crate::store::action::ServiceUpdate;
use crate::store::indexes::ingress;
use crate::store::object::Key;
use crate::store::service::prune_revisions;
use crate::store::{ServiceRecord, Store};

impl Store {
    pub(super) fn create_service(&mut self, stamp: Stamp, service: Service) -> Result {
        if self.services.contains_key(&service.id) || self.was_service(service.id) {
            return Err(ApplyError::IdTaken("service"));
        }
        if self.indexes.service_called(&service.spec.name).is_some() {
            return Err(ApplyError::NameTaken(service.spec.name.clone()));
        }
        self.check_ports(service.id, &service.ports)?;
        let id = service.id;
        let service = Arc::new(Service {
            version: stamp.index,
            created_at: stamp.at,
            updated_at: stamp.at,
            revisions: [(service.revision, service.spec.clone())].into(),
            ..service
        });
        self.indexes.add_service(&service);
        self.services.insert(id, ServiceRecord { service, removed: false });
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::Service { service: id, before: None })
    }

    fn check_ports(&self, service: ServiceId, ports: &[PortSpec]) -> std::result::Result<(), ApplyError> {
        let mut seen = BTreeSet::new();
        for port in ingress(ports) {
            let taken = self.port_holder(port).is_some_and(|holder| holder != service);
            if taken || !seen.insert(port) {
                return Err(ApplyError::PortTaken(port));
            }
        }
        Ok(())
    }

    pub(super) fn update_service(&mut self, stamp: Stamp, update: ServiceUpdate) -> Result {
        let id = update.service;
        let current = self.service(id).ok_or(ApplyError::Gone("service"))?;
        if current.version != update.base {
            return Err(ApplyError::OutOfSequence { given: update.base, current: current.version });
        }
        self.check_ports(id, &update.ports)?;
        let before = current.clone();
        let mut service = before.clone();
        self.indexes.remove_service(&service);
        let changed = Arc::make_mut(&mut service);
        changed.version = stamp.index;
        changed.updated_at = stamp.at;
        changed.spec = update.spec.clone();
        changed.revision = update.revision;
        changed.revisions.insert(update.revision, update.spec);
        changed.ports = update.ports;
        changed.update = update.update;
        if changed.revisions.len() > Service::MAX_REVISIONS {
            let in_use = self.tasks_of_service(id).map(|task| task.revision).collect();
            prune_revisions(changed, &in_use);
        }
        self.indexes.add_service(&service);
        self.services.insert(id, ServiceRecord { service, removed: false });
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::Service { service: id, before: Some(before) })
    }

    /// Progress is not the operator's: the version stays, so that a running update never makes theirs out of sequence.
    pub(super) fn set_update_status(&mut self, id: ServiceId, revision: u64, update: UpdateStatus) -> Result {
        let record = self.services.get_mut(&id).filter(|record| !record.removed);
        let service = &mut record.ok_or(ApplyError::Gone("service"))?.service;
        if service.revision != revision {
            return Err(ApplyError::OtherRevision);
        }
        let before = service.clone();
        Arc::make_mut(service).update = Some(update);
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::Service { service: id, before: Some(before) })
    }

    pub(super) fn remove_service(&mut self, stamp: Stamp, id: ServiceId) -> Result {
        let record = self.services.get_mut(&id).filter(|record| !record.removed);
        let record = record.ok_or(ApplyError::Gone("service"))?;
        record.removed = true;
        let service = Arc::make_mut(&mut record.service);
        service.version = stamp.index;
        service.updated_at = stamp.at;
        let service = record.service.clone();
        self.indexes.remove_service(&service);
        self.unsaved.insert(Key::Service(id));
        Ok(Changed::ServiceRemoved(service))
    }

    pub(super) fn forget_service(&mut self, stamp: Stamp, id: ServiceId) -> Result {
        if self.services.get(&id).is_none_or(|record| !record.removed) {
            return Err(ApplyError::Gone("removed service"));
        }
        if self.indexes.has_tasks(id) {
            return Err(ApplyError::HasTasks);
        }
        self.services.remove(&id);
        let too_much = self.removed_services.insert(id, stamp.index);
        self.unsaved.extend([Key::Service(id), Key::RemovedService(id)]);
        self.unsaved.extend(too_much.map(Key::RemovedService));
        Ok(Changed::ServiceForgotten(id))
    }
}
