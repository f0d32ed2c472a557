//! Invariant 7: every placed task satisfies its service's constraints at the time of placement: as the machine really is,
//! and by what the operator had said of it when it was decided, a moment before it was committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_model::{Availability, Node, NodeId, ServiceSpec, Task, Timestamp};

use super::Step;
use crate::specs;

/// From a decision to its entry: a disk may take that long.
const DECIDED_BEFORE: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub struct Memory {
    /// Nodes as they were, and until when.
    earlier: BTreeMap<NodeId, Vec<(Timestamp, Arc<Node>)>>,
}

pub fn check(step: &Step<'_>, memory: &mut Memory) -> Vec<String> {
    memory.note(step);
    let was_placed =
        |task: &Task| step.before.tasks.get(&task.id).is_some_and(|before| before.node.is_some());
    let placed = step.after.tasks.values().filter(|task| task.node.is_some() && !was_placed(task));
    placed.filter_map(|task| misplaced(step, memory, task)).collect()
}

impl Memory {
    fn note(&mut self, step: &Step<'_>) {
        for (id, node) in &step.before.nodes {
            if step.after.nodes.get(id).is_none_or(|after| after.version != node.version) {
                self.earlier.entry(*id).or_default().push((step.now, node.clone()));
            }
        }
        for versions in self.earlier.values_mut() {
            versions.retain(|(until, _)| step.now.since(*until) < DECIDED_BEFORE);
        }
    }
}

fn misplaced(step: &Step<'_>, memory: &Memory, task: &Task) -> Option<String> {
    let id = task.node?;
    let spec = step.after.spec_of(task)?;
    let earlier = memory.earlier.get(&id).into_iter().flatten().map(|(_, node)| node);
    let fits = step.after.nodes.get(&id).into_iter().chain(earlier).any(|node| fits(step, spec, node));
    if !fits {
        return Some(format!(
            "task {} of {} was placed on node {id}, where it does not fit",
            task.id, spec.name
        ));
    }
    let most = spec.task.placement.max_replicas_per_node?;
    let there = step.after.open_tasks().filter(|it| it.service == task.service && it.node == Some(id));
    let there = there.filter(|it| it.is_live()).count();
    (there > most as usize)
        .then(|| format!("{there} tasks of {} on node {id}, {most} are allowed", spec.name))
}

fn fits(step: &Step<'_>, spec: &ServiceSpec, node: &Node) -> bool {
    // Of the engine, what it is counts, not what it says.
    let Some((host, _)) = step.host(node.id) else { return true };
    let real = Node { engine: specs::engine(host), ..node.clone() };
    node.spec.availability == Availability::Active
        && spec.task.placement.constraints.iter().all(|constraint| constraint.matches(&real))
}
