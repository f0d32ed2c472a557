//! What a log entry changed, in words: for the story of a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Truth;

/// Names of what is not the same any more, with what tells most about it.
pub fn describe(before: &Truth, after: &Truth) -> String {
    let mut words = vec![format!("index {}:", after.applied)];
    words.extend(changed(&before.nodes, &after.nodes).map(|node| {
        let (role, availability) = (node.spec.role, node.spec.availability);
        format!("node {} version {} {role:?} {availability:?}", node.engine.hostname, node.version)
    }));
    words.extend(changed(&before.services, &after.services).map(|service| {
        let update = service.update.as_ref().map(|update| update.state);
        let (name, version) = (&service.spec.name, service.version);
        format!("service {name} version {version} revision {} update {update:?}", service.revision)
    }));
    words.extend(changed(&before.tasks, &after.tasks).map(|task| {
        let outcome = task.outcome.as_ref().map(|outcome| outcome.state);
        let name = after.services.get(&task.service).map_or("?", |service| &service.spec.name);
        format!("task {name}.{} {} {:?} {outcome:?}", task.slot, task.id, task.desired)
    }));
    words.extend(gone(&before.tasks, &after.tasks).map(|id| format!("task {id} forgotten")));
    words.extend(gone(&before.services, &after.services).map(|id| format!("service {id} removed")));
    words.extend(gone(&before.nodes, &after.nodes).map(|id| format!("node {id} removed")));
    words.join(" ")
}

fn changed<'a, K: Ord, T: PartialEq>(
    before: &'a BTreeMap<K, Arc<T>>,
    after: &'a BTreeMap<K, Arc<T>>,
) -> impl Iterator<Item = &'a Arc<T>> {
    let same = |(id, now): &(&K, &Arc<T>)| {
        before.get(*id).is_some_and(|then| Arc::ptr_eq(then, now) || then == *now)
    };
    after.iter().filter(move |pair| !same(pair)).map(|(_, now)| now)
}

fn gone<'a, K: Ord, T>(before: &'a BTreeMap<K, T>, after: &'a BTreeMap<K, T>) -> impl Iterator<Item = &'a K> {
    before.keys().filter(|id| !after.contains_key(id))
}
