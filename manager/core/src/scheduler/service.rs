//! Where the tasks of one service are, and its view of one class: the nodes that run it already, by rank.
//!
//! A view is what a plan starts from. It follows the nodes that changed since the last plan, so that one more task of
//! a large service costs no more than of a small one.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{HostPort, Resources, ServiceId};

use super::class::{Class, GroupId};
use super::nodes::{Footprint, Host, Nodes, Slot, Standing};
use super::order::{Entry, Order, Rank};

/// Changed nodes that a view follows one by one, per node that it holds; beyond it is cheaper to look at those anew.
const FOLLOW_PER_NODE: usize = 4;
/// As before, for the smallest views.
const FOLLOW_AT_LEAST: usize = 64;

/// One service's tasks by node.
#[derive(Debug, Default)]
pub(super) struct Places {
    here: BTreeMap<Slot, Here>,
    pub(super) tasks: usize,
    /// That of the last task that came, to be shared by the next ones.
    footprint: Option<Arc<Footprint>>,
    view: View,
}

/// The service's tasks on one node.
#[derive(Debug, Default)]
struct Here {
    replicas: u32,
    /// As the view holds it; `None`: not there.
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    leaf: GroupId,
    /// Replicas that count in the fills of its groups.
    counted: u32,
    /// Where it stands in its leaf's order; `None` if the node is not open.
    rank: Option<Rank>,
}

/// The nodes with tasks of the service that are of one class, as of change `synced`.
#[derive(Debug, Default)]
struct View {
    /// 0: of no class yet.
    class: u64,
    synced: u64,
    /// What the `fresh_from` of the leaves were found for.
    need: Resources,
    leaves: BTreeMap<GroupId, Leaf>,
    /// Tasks of the service per group, where there are any.
    fills: BTreeMap<GroupId, u32>,
}

#[derive(Debug)]
struct Leaf {
    /// Each node of the class's order before this rank runs a task of the service or is short of `need`.
    fresh_from: Rank,
    order: Order,
}

impl Default for Leaf {
    fn default() -> Self {
        Self { fresh_from: Rank::MIN, order: Order::default() }
    }
}

impl Places {
    /// What one task of the service takes; shared while it is the same.
    pub(super) fn footprint(
        &mut self,
        service: ServiceId,
        reservations: Resources,
        host_ports: &[HostPort],
    ) -> Arc<Footprint> {
        match &self.footprint {
            Some(last) if last.is(service, reservations, host_ports) => Arc::clone(last),
            _ => {
                let new = Arc::new(Footprint { service, reservations, host_ports: host_ports.into() });
                self.footprint = Some(Arc::clone(&new));
                new
            }
        }
    }

    pub(super) fn add(&mut self, slot: Slot) {
        self.tasks += 1;
        self.here.entry(slot).or_default().replicas += 1;
    }

    pub(super) fn subtract(&mut self, slot: Slot) {
        let here = self.here.get_mut(&slot).expect("a recorded task was added to its service");
        here.replicas -= 1;
        self.tasks -= 1;
        if here.replicas == 0 && here.seen.is_none() {
            self.here.remove(&slot);
        }
    }

    pub(super) fn replicas_on(&self, slot: Slot) -> u32 {
        self.here.get(&slot).map_or(0, |here| here.replicas)
    }

    /// Makes the view one of `class`, which must be up to date itself, for tasks that reserve `need`.
    pub(super) fn sync(&mut self, class: &Class, nodes: &Nodes, need: Resources) {
        let limit = FOLLOW_PER_NODE * self.here.len() + FOLLOW_AT_LEAST;
        let followed = self.view.class == class.id && {
            let changed: Vec<Slot> = nodes.changes().since(self.view.synced).take(limit + 1).collect();
            changed.len() <= limit && {
                changed.into_iter().for_each(|slot| self.follow(slot, class, nodes));
                true
            }
        };
        if !followed {
            self.rebuild(class, nodes);
        }
        if self.view.need != need {
            self.view.need = need;
            self.view.leaves.values_mut().for_each(|leaf| leaf.fresh_from = Rank::MIN);
        }
        self.view.synced = nodes.changes().now();
    }

    fn rebuild(&mut self, class: &Class, nodes: &Nodes) {
        self.view = View { class: class.id, ..View::default() };
        self.here.retain(|_, here| here.replicas > 0);
        for (slot, here) in &mut self.here {
            here.seen = self.view.enter(*slot, here.replicas, class, nodes);
        }
    }

    /// One node changed.
    fn follow(&mut self, slot: Slot, class: &Class, nodes: &Nodes) {
        if let (Some(leaf), Some(rank)) = (class.leaf(slot), class.rank(slot)) {
            let leaf = self.view.leaves.entry(leaf).or_default();
            leaf.fresh_from = leaf.fresh_from.min(rank);
        }
        let Some(here) = self.here.get_mut(&slot) else { return };
        if let Some(seen) = here.seen.take() {
            self.view.leave(seen, class);
        }
        if here.replicas == 0 {
            self.here.remove(&slot);
        } else {
            here.seen = self.view.enter(slot, here.replicas, class, nodes);
        }
    }

    /// Records one more task on a node of the view's class, the node's load being raised already.
    pub(super) fn place(&mut self, slot: Slot, class: &Class, nodes: &Nodes) {
        self.tasks += 1;
        let here = self.here.entry(slot).or_default();
        here.replicas += 1;
        if let Some(seen) = here.seen.take() {
            self.view.leave(seen, class);
        }
        here.seen = self.view.enter(slot, here.replicas, class, nodes);
    }

    /// The nodes changed by nothing but [`Self::place`] since the last sync.
    pub(super) fn is_synced(&mut self, nodes: &Nodes) {
        self.view.synced = nodes.changes().now();
    }

    /// Tasks of the service in a group of the view's class.
    pub(super) fn fill(&self, group: GroupId) -> u32 {
        self.view.fills.get(&group).copied().unwrap_or(0)
    }

    /// From where to search the class's order for nodes without a task of the service.
    pub(super) fn fresh_from(&self, leaf: GroupId) -> Rank {
        self.view.leaves.get(&leaf).map_or(Rank::MIN, |leaf| leaf.fresh_from)
    }

    /// Notes what such a search found out.
    pub(super) fn set_fresh_from(&mut self, leaf: GroupId, from: Rank) {
        self.view.leaves.entry(leaf).or_default().fresh_from = from;
    }

    /// The first open node of a leaf, at or after `from`, that runs the service and has `need` free.
    pub(super) fn first_used_fit(&self, leaf: GroupId, from: Rank, need: Resources) -> Option<Rank> {
        self.view.leaves.get(&leaf)?.order.first_fit(from, need)
    }
}

impl View {
    fn enter(&mut self, slot: Slot, replicas: u32, class: &Class, nodes: &Nodes) -> Option<Seen> {
        let leaf = class.leaf(slot)?;
        let host = nodes.at(slot);
        let rank = host.offer(class.host_ports()).map(|free| {
            let rank = rank_of(host, slot, replicas);
            self.leaves.entry(leaf).or_default().order.insert(Entry { rank, free });
            rank
        });
        let counted = if host.standing == Standing::Leaving { 0 } else { replicas };
        if counted > 0 {
            for (group, _) in class.path(leaf) {
                *self.fills.entry(group).or_default() += counted;
            }
        }
        Some(Seen { leaf, counted, rank })
    }

    fn leave(&mut self, seen: Seen, class: &Class) {
        if let (Some(rank), Some(leaf)) = (seen.rank, self.leaves.get_mut(&seen.leaf)) {
            leaf.order.remove(rank);
        }
        if seen.counted > 0 {
            for (group, _) in class.path(seen.leaf) {
                if let Some(fill) = self.fills.get_mut(&group) {
                    *fill -= seen.counted;
                }
            }
        }
    }
}

fn rank_of(host: &Host, slot: Slot, replicas: u32) -> Rank {
    Rank { replicas_here: replicas, tasks_here: host.tasks, node: host.id, slot }
}
