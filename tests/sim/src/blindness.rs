//! Deliberate bugs of deciding: managers that overlook a part of what services ask for. They get the spec without that part,
//! with a label that leads back to the whole one, and the checkers see what was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{Request, Response};
use swarm_model::{PortMode, Service, ServiceSpec, UpdateOrder, UpdatePolicy};

use super::mutation::{Mutation, Tampering};

const LABEL: &str = "asked";

/// Specs as they were asked for, by number.
#[derive(Debug, Default)]
pub struct Asked(Vec<Arc<ServiceSpec>>);

impl Asked {
    fn number(&mut self, spec: &Arc<ServiceSpec>) -> usize {
        let known = self.0.iter().position(|asked| asked == spec);
        known.unwrap_or_else(|| {
            self.0.push(Arc::clone(spec));
            self.0.len() - 1
        })
    }

    fn of(&self, spec: &ServiceSpec) -> Option<&Arc<ServiceSpec>> {
        self.0.get(spec.labels.get(LABEL)?.parse::<usize>().ok()?)
    }
}

impl Tampering {
    /// What a manager gets of a request.
    pub fn blind(&mut self, request: &mut Request) {
        let (Request::CreateService { spec, .. } | Request::UpdateService { spec, .. }) = request else {
            return;
        };
        let mut less = ServiceSpec::clone(spec);
        if !self.mutation().is_some_and(|mutation| overlook(mutation, &mut less)) {
            return;
        }
        let number = self.asked.number(spec);
        less.labels.insert(LABEL.to_owned(), number.to_string());
        *spec = Arc::new(less);
    }

    pub fn unblind(&self, mut response: Response) -> Response {
        if let Response::Service(view) = &mut response {
            self.restore(&mut view.service);
        }
        response
    }

    pub fn restore_all(&self, services: &mut BTreeMap<swarm_model::ServiceId, Arc<Service>>) {
        if !self.asked.0.is_empty() {
            services.values_mut().for_each(|service| self.restore(service));
        }
    }

    fn restore(&self, service: &mut Arc<Service>) {
        if self.asked.0.is_empty() {
            return;
        }
        let service = Arc::make_mut(service);
        // Only what was overlooked: a spec that was rolled back to has the replicas of the one before.
        for spec in service.revisions.values_mut().chain([&mut service.spec]) {
            if let Some(asked) = self.asked.of(spec).cloned() {
                give_back(&asked, Arc::make_mut(spec));
            }
        }
    }
}

fn give_back(asked: &ServiceSpec, spec: &mut ServiceSpec) {
    spec.labels.remove(LABEL);
    spec.ports.clone_from(&asked.ports);
    spec.task.reservations = asked.task.reservations;
    spec.task.placement = asked.task.placement.clone();
    spec.task.restart = asked.task.restart.clone();
    spec.update = asked.update.clone();
    spec.rollback = asked.rollback.clone();
}

/// `false`: the mutation is none of these.
fn overlook(mutation: Mutation, spec: &mut ServiceSpec) -> bool {
    let both = |spec: &mut ServiceSpec, change: &dyn Fn(&mut UpdatePolicy)| {
        change(&mut spec.update);
        change(&mut spec.rollback);
    };
    match mutation {
        Mutation::IgnoreHostPorts => spec.ports.retain(|port| port.mode != PortMode::Host),
        Mutation::IgnoreReservations => spec.task.reservations.memory_bytes = 0,
        Mutation::IgnoreConstraints => spec.task.placement.constraints.clear(),
        Mutation::IgnoreMaxReplicas => spec.task.placement.max_replicas_per_node = None,
        Mutation::IgnoreParallelism => both(spec, &|policy| policy.parallelism = 0),
        Mutation::IgnoreStopFirst => both(spec, &|policy| policy.order = Some(UpdateOrder::StartFirst)),
        Mutation::IgnoreStartFirst => both(spec, &|policy| policy.order = Some(UpdateOrder::StopFirst)),
        Mutation::IgnoreDelay => spec.task.restart.delay = Duration::ZERO,
        Mutation::IgnoreAttempts => spec.task.restart.max_attempts = 0,
        _ => return false,
    }
    true
}
