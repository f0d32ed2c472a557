//! Finds what an operator means: by id, by name, by a unique prefix of an id. Says what else was possible.

use std::fmt::Display;
use std::sync::Arc;

use swarm_model::{Id, Node, NodeId, OperatorAccount, Service, ServiceId, Task, TaskId};

use crate::api::{ApiError, Kind};
use crate::store::Store;

/// Objects named in an error, at most.
const MAX_NAMED: usize = 5;
/// Letters that may differ for a name to be offered as what was meant.
const MAX_DISTANCE: usize = 2;
/// Names looked at for "did you mean"; the cost grows with each.
const MAX_COMPARED: usize = 1_000;
/// Of a query that is shown again.
const MAX_SHOWN: usize = 128;
/// Longer than any id, name or `service.slot.id`.
const MAX_QUERY: usize = 256;

pub(crate) fn node<'a>(store: &'a Store, query: &str) -> Result<&'a Arc<Node>, ApiError> {
    if let Some(node) = query.parse().ok().and_then(|id| store.node(id)) {
        return Ok(node);
    }
    let called: Vec<_> = store.nodes_called(query).take(MAX_NAMED).collect();
    let candidates = if called.is_empty() {
        by_prefix(query, |from| store.nodes_from(NodeId(from)), |node| node.id.0)
    } else {
        called
    };
    one(
        Kind::Node,
        query,
        candidates,
        |node| format!("{} ({})", node.id, node.engine.hostname),
        || similar(query, store.nodes().map(|node| node.engine.hostname.as_str())),
    )
}

pub(crate) fn service<'a>(store: &'a Store, query: &str) -> Result<&'a Arc<Service>, ApiError> {
    if let Some(service) = query.parse().ok().and_then(|id| store.service(id)) {
        return Ok(service);
    }
    if let Some(service) = store.service_called(query) {
        return Ok(service);
    }
    let candidates = by_prefix(query, |from| store.services_from(ServiceId(from)), |service| service.id.0);
    one(
        Kind::Service,
        query,
        candidates,
        |service| format!("{} ({})", service.id, service.spec.name),
        || similar(query, store.service_names()),
    )
}

pub(crate) fn operator<'a>(store: &'a Store, query: &str) -> Result<&'a Arc<OperatorAccount>, ApiError> {
    let operators = store.operators();
    let found = query.parse().ok().and_then(|id| operators.account(id)).or_else(|| operators.called(query));
    found.ok_or_else(|| ApiError::NotFound {
        kind: Kind::Operator,
        query: query.chars().take(MAX_SHOWN).collect(),
        candidates: similar(query, operators.accounts().map(|account| account.name.as_str())),
    })
}

/// Also `service.slot` (the newest task of the slot) and `service.slot.id`.
pub(crate) fn task<'a>(store: &'a Store, query: &str) -> Result<&'a Arc<Task>, ApiError> {
    if let Some(task) = query.parse().ok().and_then(|id| store.task(id)) {
        return Ok(task);
    }
    if let Some(task) = task_called(store, query) {
        return Ok(task);
    }
    let candidates = by_prefix(query, |from| store.tasks_from(TaskId(from)), |task| task.id.0);
    one(Kind::Task, query, candidates, |task| task.id.to_string(), Vec::new)
}

fn task_called<'a>(store: &'a Store, query: &str) -> Option<&'a Arc<Task>> {
    let mut parts = query.splitn(3, '.');
    let service = store.service_called(parts.next()?)?;
    let slot: u32 = parts.next()?.parse().ok()?;
    let of_slot = || store.tasks_of_slot(service.id, slot);
    match parts.next() {
        Some(id) => of_slot().find(|task| !id.is_empty() && task.id.to_string().starts_with(id)),
        None => of_slot().max_by_key(|task| (task.created_at, task.version, task.id)),
    }
}

/// Up to a few objects whose id begins with `query`.
fn by_prefix<'a, T: 'a, I: Iterator<Item = &'a Arc<T>>>(
    query: &str,
    from: impl Fn(Id) -> I,
    id_of: impl Fn(&T) -> Id,
) -> Vec<&'a Arc<T>> {
    let is_prefix = (1..25).contains(&query.len())
        && query.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    // The least id with this prefix; none if it lies above the highest id there can be.
    let least: Option<Id> = is_prefix.then(|| format!("{query:0<25}")).and_then(|text| text.parse().ok());
    let Some(least) = least else { return Vec::new() };
    from(least).take_while(|object| id_of(object).to_string().starts_with(query)).take(MAX_NAMED).collect()
}

fn one<'a, T>(
    kind: Kind,
    query: &str,
    candidates: Vec<&'a Arc<T>>,
    shown: impl Fn(&T) -> String,
    similar: impl FnOnce() -> Vec<String>,
) -> Result<&'a Arc<T>, ApiError> {
    match candidates.as_slice() {
        [only] => Ok(only),
        [] => Err(ApiError::NotFound { kind, query: cut(query), candidates: similar() }),
        several => Err(ApiError::Ambiguous {
            kind,
            query: cut(query),
            matches: several.iter().map(|object| shown(object)).collect(),
        }),
    }
}

fn cut(query: &str) -> String {
    query.chars().take(MAX_SHOWN).collect()
}

/// Names that `query` may be a misspelling of, the closest first.
pub(crate) fn similar<'a>(
    query: &str,
    names: impl Iterator<Item = impl AsRef<str> + Display + 'a>,
) -> Vec<String> {
    if query.len() > MAX_QUERY {
        return Vec::new();
    }
    let mut found: Vec<(usize, String)> = names
        .take(MAX_COMPARED)
        .map(|name| (strsim::damerau_levenshtein(query, name.as_ref()), name.to_string()))
        .filter(|(distance, name)| *distance <= MAX_DISTANCE && *distance < name.len())
        .collect();
    found.sort();
    found.into_iter().take(MAX_NAMED).map(|(_, name)| name).collect()
}
