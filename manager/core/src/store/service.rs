//! A service in its table, and the history of its revisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::Service;

/// A service, and whether it was removed. A removed one is invisible to operators and lives on until its tasks are gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    pub service: Arc<Service>,
    pub removed: bool,
}

/// Drops revisions beyond the newest [`Service::MAX_REVISIONS`], unless a task still runs them.
pub(super) fn prune_revisions(service: &mut Service, in_use: &BTreeSet<u64>) {
    let excess = service.revisions.len().saturating_sub(Service::MAX_REVISIONS);
    let old: Vec<u64> = service.revisions.keys().copied().take(excess).collect();
    for revision in
        old.into_iter().filter(|revision| !in_use.contains(revision) && *revision != service.revision)
    {
        service.revisions.remove(&revision);
    }
}

/// After decoding: the current spec and its entry among the revisions are one object again.
pub(super) fn share_spec(service: &mut Service) {
    if let Some(spec) = service.revisions.get(&service.revision)
        && *spec == service.spec
    {
        service.spec = spec.clone();
    }
}
