//! Services: creation, update, rollback, removal; published ports; revisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{
    HostPort, Id, PortMode, PortSpec, Service, ServiceId, ServiceMode, ServiceSpec, SpecError, Timestamp,
    UpdateState, UpdateStatus,
};

use super::{
    Admitted, Answer, Desk, MAX_SERVICES, MAX_SPEC_BYTES, MAX_TASKS, Reservations, Reserved, Verdict,
    name_taken,
};
use crate::api::{ApiError, Kind};
use crate::lookup;
use crate::orchestrator;
use crate::store::{Action, ServiceUpdate, Store};

impl Desk<'_> {
    pub(super) fn create_service(
        &mut self,
        spec: Arc<ServiceSpec>,
        request_id: Option<Id>,
    ) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        let id = ServiceId(request_id.unwrap_or_else(|| (self.draw_id)()));
        if let Some(known) = self.store.service_record(id) {
            return if known.service.spec.name == spec.name && !known.removed {
                Ok(Verdict::AlreadyDone(Answer::Service(id)))
            } else {
                Err(ApiError::FailedPrecondition(format!(
                    "request id {id} was used for service {:?}; use a new one",
                    known.service.spec.name
                )))
            };
        }
        if self.store.was_service(id) {
            return Err(ApiError::FailedPrecondition(format!(
                "request id {id} was used for a service that was removed since; use a new one"
            )));
        }
        if let Some(holder) = self.store.service_called(&spec.name) {
            return Err(name_taken(&spec.name, &format!("service {}", holder.id)));
        }
        if self.store.service_count() >= MAX_SERVICES {
            let limit = MAX_SERVICES as u64;
            return Err(ApiError::TooLarge { what: "the number of services", size: limit + 1, limit });
        }
        self.check_size(&spec, 0)?;
        let ports = publish(self.store, self.reservations, &spec.ports, None)?;
        let reserved = Reserved { ports: ingress(&ports), node_index: None };
        let service = Service {
            id,
            version: 0,
            created_at: self.now,
            updated_at: self.now,
            spec,
            revision: 1,
            revisions: std::collections::BTreeMap::new(),
            ports,
            update: None,
        };
        let actions = vec![Action::CreateService(Box::new(service))];
        Ok(Verdict::Propose(Admitted { actions, reserved, answer: Answer::Service(id) }))
    }

    fn check_size(&self, spec: &ServiceSpec, replicas_before: u32) -> Result<(), ApiError> {
        let size = rmp_serde::to_vec_named(spec).map_or(u64::MAX, |bytes| bytes.len() as u64);
        if size > MAX_SPEC_BYTES {
            return Err(ApiError::TooLarge { what: "the service's spec", size, limit: MAX_SPEC_BYTES });
        }
        let ServiceMode::Replicated { replicas } = spec.mode;
        let others: u64 = self.store.services().map(|service| u64::from(service.replicas())).sum();
        let wanted = others - u64::from(replicas_before) + u64::from(replicas);
        if replicas > replicas_before && wanted > MAX_TASKS {
            return Err(ApiError::TooLarge {
                what: "the number of tasks wanted",
                size: wanted,
                limit: MAX_TASKS,
            });
        }
        Ok(())
    }

    pub(super) fn update_service(
        &mut self,
        query: &str,
        version: u64,
        spec: Arc<ServiceSpec>,
    ) -> Result<Verdict, ApiError> {
        let service = lookup::service(self.store, query)?.clone();
        check_version(&service, version)?;
        if spec.name != service.spec.name {
            return Err(ApiError::Invalid(SpecError::Invalid {
                field: "name",
                reason: format!(
                    "a service keeps its name, {:?}; create a new one instead",
                    service.spec.name
                ),
            }));
        }
        self.check_size(&spec, service.replicas())?;
        let ports = publish(self.store, self.reservations, &spec.ports, Some(&service))?;
        let replaces = replaces_tasks(&service, &spec, &ports);
        let revision = service.revision + u64::from(replaces);
        let update = if replaces {
            self.has_tasks(service.id).then(|| UpdateStatus {
                state: UpdateState::Updating,
                started_at: self.now,
                completed_at: None,
                message: "update in progress".to_owned(),
                from_revision: orchestrator::proven_revision(&service),
                to_revision: revision,
            })
        } else {
            service.update.clone().map(|update| resumed(update, self.now))
        };
        Ok(propose_update(
            &service,
            ServiceUpdate { service: service.id, base: version, spec, revision, ports, update },
        ))
    }

    fn has_tasks(&self, service: ServiceId) -> bool {
        self.store.tasks_of_service(service).next().is_some()
    }

    pub(super) fn rollback_service(
        &mut self,
        query: &str,
        version: u64,
        to_revision: Option<u64>,
    ) -> Result<Verdict, ApiError> {
        let service = lookup::service(self.store, query)?.clone();
        check_version(&service, version)?;
        let to = self.rollback_target(&service, to_revision)?;
        let ports = service.revisions.get(&to).map_or(&[][..], |spec| &spec.ports);
        let ports = publish(self.store, self.reservations, ports, Some(&service))?;
        let status = UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: self.now,
            completed_at: None,
            message: format!("rolling back to revision {to}, as asked"),
            from_revision: service.revision,
            to_revision: service.revision + 1,
        };
        let Some(update) = rollback_update(&service, to, ports, status) else {
            return Err(unknown_revision(&service, to));
        };
        Ok(propose_update(&service, update))
    }

    fn rollback_target(&self, service: &Service, asked: Option<u64>) -> Result<u64, ApiError> {
        let known =
            |revision: &u64| *revision != service.revision && service.revisions.contains_key(revision);
        match asked {
            Some(revision) if known(&revision) => Ok(revision),
            Some(revision) => Err(unknown_revision(service, revision)),
            None => (service.update.as_ref().map(|update| update.from_revision).filter(known))
                .or_else(|| {
                    service.revisions.range(..service.revision).next_back().map(|(revision, _)| *revision)
                })
                .ok_or_else(|| {
                    ApiError::FailedPrecondition(format!(
                        "service {:?} has no earlier revision to return to",
                        service.spec.name
                    ))
                }),
        }
    }

    pub(super) fn remove_service(&mut self, query: &str) -> Result<Verdict, ApiError> {
        let service = lookup::service(self.store, query)?;
        Ok(Admitted::one(Action::RemoveService { service: service.id }, Answer::Done))
    }
}

/// Published ports as they are taken now.
struct Ports<'a> {
    store: &'a Store,
    reservations: &'a Reservations,
    /// The service that is updated: what it holds is free for it.
    current: Option<&'a Service>,
}

fn publish(
    store: &Store,
    reservations: &Reservations,
    wanted: &[PortSpec],
    current: Option<&Service>,
) -> Result<Vec<PortSpec>, ApiError> {
    Ports { store, reservations, current }.publish(wanted)
}

impl Ports<'_> {
    /// Fills in every published number. A service that is updated keeps the automatic numbers it has.
    fn publish(&self, wanted: &[PortSpec]) -> Result<Vec<PortSpec>, ApiError> {
        let mut own: BTreeSet<HostPort> = BTreeSet::new();
        for port in wanted {
            if let (PortMode::Ingress, Some(published)) = (port.mode, port.published) {
                let number = HostPort { protocol: port.protocol, published };
                self.check_free(number)?;
                own.insert(number);
            }
        }
        let mut ports = Vec::with_capacity(wanted.len());
        for port in wanted {
            let published = match port.published {
                Some(published) => published,
                None => self.automatic(port, &own)?,
            };
            own.insert(HostPort { protocol: port.protocol, published });
            ports.push(PortSpec { published: Some(published), ..port.clone() });
        }
        Ok(ports)
    }

    fn check_free(&self, port: HostPort) -> Result<(), ApiError> {
        let own = self.current.map(|service| service.id);
        let holder = match self.store.port_holder(port) {
            Some(holder) if Some(holder) == own => return Ok(()),
            Some(holder) => self.store.service(holder).map_or_else(
                || format!("service {holder}"),
                |service| format!("service {:?}", service.spec.name),
            ),
            None if self.reservations.has_port(port) => "a service that is being created".to_owned(),
            None => return Ok(()),
        };
        Err(ApiError::AlreadyExists {
            what: format!("published port {port}"),
            holder,
            advice: "publish another port, or leave the number out to get a free one",
        })
    }

    fn automatic(&self, port: &PortSpec, own: &BTreeSet<HostPort>) -> Result<u16, ApiError> {
        let number = |published| HostPort { protocol: port.protocol, published };
        let before = self.current.into_iter().flat_map(|service| &service.ports).filter(|held| {
            held.mode == port.mode && held.protocol == port.protocol && held.target == port.target
        });
        let kept = before
            .filter_map(|held| held.published)
            .find(|published| PortSpec::AUTOMATIC.contains(published) && !own.contains(&number(*published)));
        let free = |published: &u16| {
            let port = number(*published);
            self.store.port_holder(port).is_none()
                && !self.reservations.has_port(port)
                && !own.contains(&port)
        };
        kept.or_else(|| PortSpec::AUTOMATIC.into_iter().find(free)).ok_or_else(|| {
            ApiError::FailedPrecondition(format!(
                "all automatic {} ports ({} to {}) are published; name a port outside of them",
                port.protocol,
                PortSpec::AUTOMATIC.start(),
                PortSpec::AUTOMATIC.end()
            ))
        })
    }
}

fn propose_update(service: &Service, update: ServiceUpdate) -> Verdict {
    let held: BTreeSet<HostPort> = ingress(&service.ports).into_iter().collect();
    let new = ingress(&update.ports).into_iter().filter(|port| !held.contains(port)).collect();
    Verdict::Propose(Admitted {
        answer: Answer::Service(update.service),
        actions: vec![Action::UpdateService(Box::new(update))],
        reserved: Reserved { ports: new, node_index: None },
    })
}

/// The update that returns a service to revision `to`: everything but the number of replicas is as it was then, and is
/// a revision of its own, so that numbers only rise. `None`: that revision was forgotten.
pub(crate) fn rollback_update(
    service: &Service,
    to: u64,
    ports: Vec<PortSpec>,
    status: UpdateStatus,
) -> Option<ServiceUpdate> {
    let old = service.revisions.get(&to)?;
    let spec = if old.mode == service.spec.mode {
        old.clone()
    } else {
        Arc::new(ServiceSpec { mode: service.spec.mode, ..(**old).clone() })
    };
    Some(ServiceUpdate {
        service: service.id,
        base: service.version,
        spec,
        revision: service.revision + 1,
        ports,
        update: Some(status),
    })
}

/// A rollback that the update's failure action asks for. If another service took a port of that revision meanwhile, the
/// ports stay as they are: getting back what worked matters more.
pub(crate) fn automatic_rollback(
    store: &Store,
    service: &Service,
    to: u64,
    status: UpdateStatus,
) -> Option<ServiceUpdate> {
    let wanted = &service.revisions.get(&to)?.ports;
    let ports = publish(store, &Reservations::default(), wanted, Some(service));
    let kept = ports.is_err();
    let mut update = rollback_update(service, to, ports.unwrap_or_else(|_| service.ports.clone()), status)?;
    if kept {
        Arc::make_mut(&mut update.spec).ports = service.spec.ports.clone();
    }
    Some(update)
}

/// Whether the change reaches into tasks: what they run, or the ports of their node that they hold.
fn replaces_tasks(service: &Service, spec: &ServiceSpec, ports: &[PortSpec]) -> bool {
    let host = |ports: &[PortSpec]| -> BTreeSet<PortSpec> {
        ports.iter().filter(|port| port.mode == PortMode::Host).cloned().collect()
    };
    spec.task != service.spec.task || host(ports) != host(&service.ports)
}

/// An update of a paused service with the same task spec lets it go on. It begins anew, so that the failures that paused
/// it are not counted again.
fn resumed(update: UpdateStatus, now: Timestamp) -> UpdateStatus {
    let state = match update.state {
        UpdateState::Paused => UpdateState::Updating,
        UpdateState::RollbackPaused => UpdateState::RollbackStarted,
        UpdateState::Updating
        | UpdateState::Completed
        | UpdateState::RollbackStarted
        | UpdateState::RollbackCompleted => return update,
    };
    UpdateStatus { state, started_at: now, ..update }
}

fn ingress(ports: &[PortSpec]) -> Vec<HostPort> {
    let ingress = ports.iter().filter(|port| port.mode == PortMode::Ingress);
    ingress
        .filter_map(|port| Some(HostPort { protocol: port.protocol, published: port.published? }))
        .collect()
}

fn check_version(service: &Service, version: u64) -> Result<(), ApiError> {
    if service.version == version {
        Ok(())
    } else {
        Err(ApiError::OutOfSequence { kind: Kind::Service, given: version, current: service.version })
    }
}

fn unknown_revision(service: &Service, revision: u64) -> ApiError {
    let known: Vec<String> =
        service.revisions.keys().filter(|known| **known != service.revision).map(u64::to_string).collect();
    ApiError::FailedPrecondition(format!(
        "service {:?} cannot return to revision {revision}; kept are: {}",
        service.spec.name,
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    ))
}
