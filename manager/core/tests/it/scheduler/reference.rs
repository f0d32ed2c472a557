//! A scheduler that keeps nothing and scans everything: the rules of `swarm_manager_core::scheduler`, as plainly as
//! they can be written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::scheduler::PlacementRequest;
use swarm_model::{
    Availability, HostPort, Node, NodeId, NodeState, Placement, Platform, Resources, ServiceId, SpreadBy,
    TaskId, Timestamp,
};

#[derive(Default)]
pub struct Reference {
    pub nodes: BTreeMap<NodeId, (Arc<Node>, NodeState)>,
    pub tasks: BTreeMap<TaskId, Held>,
    pub failures: Vec<(ServiceId, u64, NodeId, Timestamp)>,
}

#[derive(Clone)]
pub struct Held {
    pub service: ServiceId,
    pub revision: u64,
    pub node: NodeId,
    pub reservations: Resources,
    pub host_ports: Vec<HostPort>,
}

impl Held {
    /// Whether it counts for spreading.
    fn is_alike(&self, request: &PlacementRequest<'_>) -> bool {
        (self.service, self.revision) == (request.service, request.revision)
    }
}

type Score = (u32, u32, NodeId);

impl Reference {
    pub fn plan(&mut self, now: Timestamp, request: &PlacementRequest<'_>) -> Vec<(TaskId, NodeId)> {
        let mut placed = Vec::new();
        for task in request.tasks {
            if let Some(held) = self.tasks.get(task) {
                placed.push((*task, held.node));
                continue;
            }
            let Some(node) = self.best(now, request) else { break };
            let PlacementRequest { service, revision, reservations, .. } = *request;
            let host_ports = request.host_ports.to_vec();
            self.tasks.insert(*task, Held { service, revision, node, reservations, host_ports });
            placed.push((*task, node));
        }
        placed
    }

    pub fn best(&self, now: Timestamp, request: &PlacementRequest<'_>) -> Option<NodeId> {
        let fitting: Vec<&Node> =
            self.nodes.values().map(|(node, _)| &**node).filter(|node| self.fits(node, request)).collect();
        let (failing, sound): (Vec<&Node>, Vec<&Node>) =
            fitting.into_iter().partition(|node| self.is_failing(now, request, node.id));
        let choice = if sound.is_empty() { failing } else { sound };
        self.choose(request, &choice, &mut Vec::new()).map(|(_, _, node)| node)
    }

    fn choose(
        &self,
        request: &PlacementRequest<'_>,
        nodes: &[&Node],
        path: &mut Vec<String>,
    ) -> Option<Score> {
        let Some(by) = request.placement.preferences.get(path.len()) else {
            return nodes.iter().map(|node| self.score(request, node)).min();
        };
        let mut groups: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            groups.entry(value(by, node)).or_default().push(node);
        }
        let mut best: Option<(u32, Score)> = None;
        for (value, members) in groups {
            path.push(value);
            if let Some(score) = self.choose(request, &members, path) {
                let runner = (self.fill(request, path), score);
                best = Some(best.map_or(runner, |best| best.min(runner)));
            }
            path.pop();
        }
        best.map(|(_, score)| score)
    }

    /// Tasks of the revision on nodes that match the placement, whose labels begin with `path`, and which keep them.
    fn fill(&self, request: &PlacementRequest<'_>, path: &[String]) -> u32 {
        let counts = |node: NodeId| {
            self.nodes.get(&node).is_some_and(|(node, state)| {
                let labels = request.placement.preferences.iter().map(|by| value(by, node));
                *state != NodeState::Down
                    && node.spec.availability != Availability::Drain
                    && matches(request.placement, node)
                    && labels.zip(path).all(|(value, wanted)| value == *wanted)
            })
        };
        let tasks = self.tasks.values();
        tasks.filter(|held| held.is_alike(request) && counts(held.node)).count() as u32
    }

    fn score(&self, request: &PlacementRequest<'_>, node: &Node) -> Score {
        let replicas = self.on(node.id).filter(|held| held.is_alike(request)).count();
        (replicas as u32, self.on(node.id).count() as u32, node.id)
    }

    fn on(&self, node: NodeId) -> impl Iterator<Item = &Held> {
        self.tasks.values().filter(move |held| held.node == node)
    }

    pub fn fits(&self, node: &Node, request: &PlacementRequest<'_>) -> bool {
        let (_, state) = self.nodes[&node.id];
        let reserved =
            self.on(node.id).fold(Resources::default(), |sum, held| sum.saturating_add(held.reservations));
        let taken = |port: &HostPort| self.on(node.id).any(|held| held.host_ports.contains(port));
        let replicas = self.on(node.id).filter(|held| held.service == request.service).count();
        state == NodeState::Ready
            && node.spec.availability == Availability::Active
            && request.reservations.fits_in(node.engine.resources.saturating_sub(reserved))
            && matches(request.placement, node)
            && !request.host_ports.iter().any(taken)
            && request.placement.max_replicas_per_node.is_none_or(|limit| replicas < limit as usize)
    }

    fn is_failing(&self, now: Timestamp, request: &PlacementRequest<'_>, node: NodeId) -> bool {
        let recent = self.failures.iter().filter(|(service, revision, on, at)| {
            (*service, *revision, *on) == (request.service, request.revision, node)
                && now.since(*at) < Duration::from_secs(300)
        });
        recent.count() >= 5
    }
}

pub fn matches(placement: &Placement, node: &Node) -> bool {
    let platform = |p: &Platform| {
        p.os == node.engine.platform.os
            && Platform::canonical_arch(&p.arch) == Platform::canonical_arch(&node.engine.platform.arch)
    };
    placement.constraints.iter().all(|constraint| constraint.matches(node))
        && (placement.platforms.is_empty() || placement.platforms.iter().any(platform))
}

fn value(by: &SpreadBy, node: &Node) -> String {
    match by {
        SpreadBy::NodeLabel(key) => node.spec.labels.get(key),
        SpreadBy::EngineLabel(key) => node.engine.labels.get(key),
    }
    .cloned()
    .unwrap_or_default()
}
