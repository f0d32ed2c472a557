//! Why nodes do not fit, by looking at each of them. Decides nothing: [`super::class`] and [`super::contest`] do.

use std::collections::BTreeMap;

use swarm_model::{Availability, Constraint, NodeId, NodeState, Placement, Resources};

use super::PlacementRequest;
use super::class::runs_on;
use super::fix::{Fix, name_of};
use super::nodes::{Host, Nodes, Slot};
use super::refusal::{Cause, Closest, Exclusion, NearMiss, Refusal};
use super::service::Revisions;

/// Fixes offered, so that the operator can choose but need not read long.
const MAX_FIXES: usize = 3;

/// How far a node is from fitting: number of things lacking, those that no setting changes counting more; then the
/// part of the need that is not free, in millionths; then its id. The least is the nearest.
type Distance = (usize, u64, NodeId);

/// What single lacks have in common that one fix stands for, in the order in which to offer the fixes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Short,
    Constraint(Constraint),
    MaxReplicas,
    Other,
}

/// What the nodes said that do not fit.
#[derive(Default)]
struct Survey {
    nodes: usize,
    excluded: BTreeMap<Cause, (usize, Option<(Distance, Slot)>)>,
    nearest: Option<(Distance, Slot, Vec<Cause>)>,
    /// The nearest node for each kind of single lack that can be fixed.
    fixes: BTreeMap<Kind, (Distance, Fix)>,
}

/// Why `unplaced` tasks of the request have no node.
pub(super) fn explain(
    nodes: &Nodes,
    revisions: &Revisions,
    request: &PlacementRequest<'_>,
    unplaced: usize,
) -> Refusal {
    let mut survey = Survey::default();
    for (slot, host) in nodes.all().filter(|(_, host)| host.node.is_some()) {
        let lacks = lacks_of(host, revisions.replicas_on(slot), request);
        survey.note(slot, host, request.reservations, lacks);
    }
    survey.into_refusal(nodes, request.reservations, unplaced)
}

/// Why a task may not stay on a node.
pub(super) fn misfit(host: &Host, placement: &Placement) -> Option<Cause> {
    let Some(node) = host.node.as_deref() else { return Some(Cause::Removed) };
    if node.spec.availability == Availability::Drain {
        return Some(Cause::Draining);
    }
    let broken = placement.constraints.iter().find(|constraint| !constraint.matches(node));
    let platform = || {
        (!runs_on(&placement.platforms, &node.engine.platform))
            .then(|| Cause::Platform(placement.platforms.clone()))
    };
    broken.cloned().map(Cause::Constraint).or_else(platform)
}

/// All that keeps a node from fitting, in the order of the filters.
fn lacks_of(host: &Host, replicas: u32, request: &PlacementRequest<'_>) -> Vec<Cause> {
    let Some(node) = host.node.as_deref() else { return vec![Cause::Removed] };
    let PlacementRequest { placement, reservations, host_ports, .. } = request;
    let mut lacks = Vec::new();
    match host.state {
        NodeState::Down => lacks.push(Cause::Down),
        NodeState::Unknown => lacks.push(Cause::Unknown),
        NodeState::Ready => {}
    }
    match node.spec.availability {
        Availability::Drain => lacks.push(Cause::Draining),
        Availability::Pause => lacks.push(Cause::Paused),
        Availability::Active => {}
    }
    let free = host.free();
    let of_cpu = reservations.cpu_nanos > free.cpu_nanos;
    let of_memory = reservations.memory_bytes > free.memory_bytes;
    if of_cpu || of_memory {
        lacks.push(Cause::Short { of_cpu, of_memory });
    }
    let broken = placement.constraints.iter().filter(|constraint| !constraint.matches(node));
    lacks.extend(broken.cloned().map(Cause::Constraint));
    if !runs_on(&placement.platforms, &node.engine.platform) {
        lacks.push(Cause::Platform(placement.platforms.clone()));
    }
    lacks.extend(host_ports.iter().copied().filter(|port| host.holds(*port)).map(Cause::HostPort));
    lacks.extend(placement.max_replicas_per_node.filter(|limit| replicas >= *limit).map(Cause::MaxReplicas));
    lacks
}

impl Survey {
    fn note(&mut self, slot: Slot, host: &Host, need: Resources, lacks: Vec<Cause>) {
        self.nodes += 1;
        let Some(first) = lacks.first() else { return };
        let fix = Fix::of(host, need, &lacks);
        let weight = if fix.is_some() { 1 } else { 8 };
        let distance = (lacks.len() * weight, shortage(need, host.free()), host.id);
        let (count, closest) = self.excluded.entry(first.clone()).or_default();
        *count += 1;
        if closest.is_none_or(|(best, _)| distance < best) {
            *closest = Some((distance, slot));
        }
        if let (Some(fix), 1) = (fix, lacks.len()) {
            let kind = match first {
                Cause::Short { .. } => Kind::Short,
                Cause::Constraint(constraint) => Kind::Constraint(constraint.clone()),
                Cause::MaxReplicas(_) => Kind::MaxReplicas,
                Cause::Removed
                | Cause::Down
                | Cause::Unknown
                | Cause::Draining
                | Cause::Paused
                | Cause::Platform(_)
                | Cause::HostPort(_) => Kind::Other,
            };
            let best = self.fixes.entry(kind).or_insert_with(|| (distance, fix.clone()));
            if distance < best.0 {
                *best = (distance, fix);
            }
        }
        if self.nearest.as_ref().is_none_or(|(best, _, _)| distance < *best) {
            self.nearest = Some((distance, slot, lacks));
        }
    }

    fn into_refusal(self, nodes: &Nodes, need: Resources, unplaced: usize) -> Refusal {
        let closest = |cause: &Cause, slot: Slot| {
            let host = nodes.at(slot);
            matches!(cause, Cause::Short { .. }).then(|| Closest {
                node: host.id,
                name: name_of(host),
                need,
                free: host.free(),
            })
        };
        let mut excluded: Vec<Exclusion> = self
            .excluded
            .into_iter()
            .map(|(cause, (nodes, nearest))| Exclusion {
                nodes,
                closest: nearest.and_then(|(_, slot)| closest(&cause, slot)),
                cause,
            })
            .collect();
        // Stable: filters that exclude equally many stay in their order.
        excluded.sort_by_key(|exclusion| std::cmp::Reverse(exclusion.nodes));
        let mut fixes: Vec<Fix> = self.fixes.into_values().map(|(_, fix)| fix).take(MAX_FIXES).collect();
        let nearest = self.nearest.map(|(_, slot, lacks)| {
            let host = nodes.at(slot);
            if fixes.is_empty() {
                fixes.extend(Fix::of(host, need, &lacks));
            }
            NearMiss { node: host.id, name: name_of(host), lacks }
        });
        Refusal { unplaced, nodes: self.nodes, excluded, nearest, fixes }
    }
}

/// The part of the need that is not free, in millionths, of the resource where it is larger.
fn shortage(need: Resources, free: Resources) -> u64 {
    let part = |need: u64, free: u64| {
        let lacking = u128::from(need.saturating_sub(free)) * 1_000_000;
        u64::try_from(lacking.checked_div(u128::from(need)).unwrap_or(0)).unwrap_or(u64::MAX)
    };
    part(need.cpu_nanos, free.cpu_nanos).max(part(need.memory_bytes, free.memory_bytes))
}
