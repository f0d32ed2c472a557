//! Where the tasks of a service are, by revision, and what the plans of a revision remember from one to the next.
//!
//! Three memories, each kept up only as far as plans need it, so that one more task of a large service costs no more
//! than of a small one: how full each group is ([`Fills`]), from where to look for nodes without a task ([`Fresh`]), and
//! the nodes with tasks by rank ([`Used`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_model::{HostPort, NodeId, Resources, ServiceId};

use super::class::{Class, GroupId};
use super::ladder::Mark;
use super::nodes::{Footprint, Nodes, Slot, Standing};
use super::order::{Entry, Order, Rank};

/// Changed nodes that are followed one by one whatever the alternative costs.
const FOLLOW_AT_LEAST: usize = 64;

/// The tasks of one service: some revisions, hardly ever more than two.
#[derive(Debug, Default)]
pub(super) struct Revisions(Vec<(u64, Places)>);

impl Revisions {
    pub(super) fn of_mut(&mut self, revision: u64) -> &mut Places {
        self.split(revision).0
    }

    /// A revision's tasks, and those of the others.
    pub(super) fn split(&mut self, revision: u64) -> (&mut Places, Others<'_>) {
        let at = self.0.iter().position(|(known, _)| *known == revision).unwrap_or_else(|| {
            self.0.push((revision, Places::default()));
            self.0.len() - 1
        });
        let (before, rest) = self.0.split_at_mut(at);
        let (own, after) = rest.split_first_mut().expect("it is there, or was added");
        (&mut own.1, Others([before, after]))
    }

    /// Tasks of the service on a node, of whatever revision.
    pub(super) fn replicas_on(&self, slot: Slot) -> u32 {
        self.0.iter().map(|(_, places)| places.replicas_on(slot)).sum()
    }

    /// Drops what is known of a revision without tasks; returns whether nothing is left of the service.
    pub(super) fn forget_if_empty(&mut self, revision: u64) -> bool {
        self.0.retain(|(known, places)| *known != revision || places.tasks > 0);
        self.0.is_empty()
    }
}

/// The tasks of all revisions of a service but one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others<'a>([&'a [(u64, Places)]; 2]);

impl Others<'_> {
    pub(super) fn replicas_on(self, slot: Slot) -> u32 {
        self.0.iter().copied().flatten().map(|(_, places)| places.replicas_on(slot)).sum()
    }
}

/// One revision's tasks by node.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Nodes with at least one task.
    here: BTreeMap<Slot, Here>,
    pub(super) tasks: usize,
    /// That of the last task that came, to be shared by the next ones.
    footprint: Option<Arc<Footprint>>,
    fills: Fills,
    fresh: Fresh,
    used: Used,
}

/// The service's tasks on one node.
#[derive(Debug, Default)]
struct Here {
    replicas: u32,
    /// The leaf whose fill counts them.
    filled: Option<GroupId>,
    /// Where it stands in [`Used`], as of an earlier load.
    ranked: Option<Ranked>,
}

#[derive(Debug, Clone, Copy)]
struct Ranked {
    leaf: GroupId,
    replicas: u32,
    tasks: u32,
}

/// Tasks of the service per leaf of a class that spreads. Follows each task, and the nodes whose labels or standing
/// changed.
#[derive(Debug, Default)]
struct Fills {
    /// 0: none, so nothing is kept.
    class: u64,
    synced: u64,
    by_leaf: BTreeMap<GroupId, u32>,
    /// Nodes that got their first task since, so that their leaf is not known yet.
    unsorted: Vec<Slot>,
}

/// Per leaf, how far up the ladder each node runs a task of the service, lacks what `footprint` needs, or has as many
/// tasks of its other revisions as it may. Follows the nodes on which something was freed.
#[derive(Debug, Default)]
struct Fresh {
    class: u64,
    epoch: u64,
    synced: u64,
    footprint: Option<Arc<Footprint>>,
    max_replicas: u32,
    from: BTreeMap<GroupId, Mark>,
    /// Nodes that were passed over to learn this: following more changes than that would not pay.
    passed_over: usize,
}

/// The nodes that run the service, per leaf, by rank. Follows every change, but only when a plan has come to need it.
#[derive(Debug, Default)]
struct Used {
    class: u64,
    synced: u64,
    /// Nodes on which one of these is taken are not in the orders.
    host_ports: Box<[HostPort]>,
    by_leaf: BTreeMap<GroupId, Order>,
}

impl Places {
    /// What one task takes; shared while it is the same.
    pub(super) fn footprint(
        &mut self,
        (service, revision): (ServiceId, u64),
        reservations: Resources,
        host_ports: &[HostPort],
    ) -> Arc<Footprint> {
        match &self.footprint {
            Some(last) if last.is((service, revision), reservations, host_ports) => Arc::clone(last),
            _ => {
                let host_ports = host_ports.into();
                let new = Arc::new(Footprint { service, revision, reservations, host_ports });
                self.footprint = Some(Arc::clone(&new));
                new
            }
        }
    }

    pub(super) fn replicas_on(&self, slot: Slot) -> u32 {
        self.here.get(&slot).map_or(0, |here| here.replicas)
    }

    /// One more task on a node; returns how many that makes.
    pub(super) fn add(&mut self, slot: Slot) -> u32 {
        self.tasks += 1;
        let here = self.here.entry(slot).or_default();
        here.replicas += 1;
        if let Some(leaf) = here.filled {
            *self.fills.by_leaf.entry(leaf).or_default() += 1;
        } else if here.replicas == 1 && self.fills.class != 0 {
            self.fills.unsorted.push(slot);
        }
        here.replicas
    }

    /// One task less on a node, whose id is `node`.
    pub(super) fn subtract(&mut self, slot: Slot, node: NodeId) {
        let here = self.here.get_mut(&slot).expect("a recorded task was added to its service");
        here.replicas -= 1;
        self.tasks -= 1;
        if let Some(fill) = here.filled.and_then(|leaf| self.fills.by_leaf.get_mut(&leaf)) {
            *fill -= 1;
        }
        if here.replicas == 0 {
            let ranked = here.ranked;
            self.used.leave(slot, node, ranked);
            self.here.remove(&slot);
        }
    }

    /// Gets ready for a plan on `class`, which must be up to date, for tasks that take `footprint`, at most
    /// `max_replicas` on a node.
    pub(super) fn sync(
        &mut self,
        class: &Class,
        nodes: &Nodes,
        footprint: &Arc<Footprint>,
        max_replicas: u32,
    ) {
        self.fresh.sync(class, nodes, footprint, max_replicas);
        if class.spreads() {
            self.sync_fills(class, nodes);
        } else if self.fills.class != 0 {
            self.fills = Fills::default();
            self.here.values_mut().for_each(|here| here.filled = None);
        }
    }

    fn sync_fills(&mut self, class: &Class, nodes: &Nodes) {
        let fills = &mut self.fills;
        let reshaped = nodes.reshaped();
        if fills.class == class.id {
            for slot in reshaped.since(fills.synced).chain(std::mem::take(&mut fills.unsorted)) {
                if let Some(here) = self.here.get_mut(&slot) {
                    fills.sort(slot, here, class, nodes);
                }
            }
        } else {
            *fills = Fills { class: class.id, ..Fills::default() };
            for (slot, here) in &mut self.here {
                here.filled = None;
                fills.sort(*slot, here, class, nodes);
            }
        }
        fills.synced = reshaped.now();
    }

    /// Tasks of the service in a leaf.
    pub(super) fn fill(&self, leaf: GroupId) -> u32 {
        self.fills.by_leaf.get(&leaf).copied().unwrap_or(0)
    }

    /// From where to search the ladder for nodes without a task of the service.
    pub(super) fn fresh_from(&self, leaf: GroupId) -> Mark {
        self.fresh.from.get(&leaf).copied().unwrap_or(Mark::FIRST)
    }

    /// Notes what such searches found out, passing over that many nodes.
    pub(super) fn learn_fresh(&mut self, from: impl Iterator<Item = (GroupId, Mark)>, passed_over: usize) {
        self.fresh.from.extend(from);
        self.fresh.passed_over += passed_over;
    }

    /// Brings the ranks of the nodes that run the service up to date.
    pub(super) fn sync_used(&mut self, class: &Class, nodes: &Nodes, host_ports: &[HostPort]) {
        let changes = nodes.changes();
        let limit = self.here.len() + FOLLOW_AT_LEAST;
        let same = self.used.class == class.id && *self.used.host_ports == *host_ports;
        if same && changes.since(self.used.synced).nth(limit).is_none() {
            for slot in changes.since(self.used.synced) {
                if let Some(here) = self.here.get_mut(&slot) {
                    self.used.rank(slot, here, class, nodes);
                }
            }
        } else {
            self.used = Used { class: class.id, host_ports: host_ports.into(), ..Used::default() };
            self.rank_all(class, nodes);
        }
        self.used.synced = changes.now();
    }

    fn rank_all(&mut self, class: &Class, nodes: &Nodes) {
        let mut entries: BTreeMap<GroupId, Vec<Entry>> = BTreeMap::new();
        for (slot, here) in &mut self.here {
            let entry = here.entry(*slot, class, nodes, &self.used.host_ports);
            here.ranked = entry.map(|(leaf, entry)| Ranked::of(leaf, entry.rank));
            if let Some((leaf, entry)) = entry {
                entries.entry(leaf).or_default().push(entry);
            }
        }
        for (leaf, mut entries) in entries {
            entries.sort_unstable_by_key(|entry| entry.rank);
            self.used.by_leaf.insert(leaf, Order::from_sorted(&entries));
        }
    }

    /// The load of a node changed that is in the ranks as they are now.
    pub(super) fn rank_used(&mut self, slot: Slot, class: &Class, nodes: &Nodes) {
        let here = self.here.get_mut(&slot).expect("only nodes with tasks are ranked");
        self.used.rank(slot, here, class, nodes);
        self.used.synced = nodes.changes().now();
    }

    /// The first open node of a leaf, at or after `from`, that runs the service and has `need` free.
    pub(super) fn first_used_fit(&self, leaf: GroupId, from: Rank, need: Resources) -> Option<Rank> {
        self.used.by_leaf.get(&leaf)?.first_fit(from, need)
    }
}

impl Here {
    /// Where the node belongs now; `None` if it is not of the class or not open.
    fn entry(
        &self,
        slot: Slot,
        class: &Class,
        nodes: &Nodes,
        host_ports: &[HostPort],
    ) -> Option<(GroupId, Entry)> {
        let leaf = class.leaf(slot)?;
        let host = nodes.at(slot);
        let free = host.offer(host_ports)?;
        let rank = Rank { replicas_here: self.replicas, tasks_here: host.tasks, node: host.id, slot };
        Some((leaf, Entry { rank, free }))
    }
}

impl Ranked {
    fn of(leaf: GroupId, rank: Rank) -> Self {
        Self { leaf, replicas: rank.replicas_here, tasks: rank.tasks_here }
    }
}

impl Fills {
    /// Finds out which fill a node's tasks count in.
    fn sort(&mut self, slot: Slot, here: &mut Here, class: &Class, nodes: &Nodes) {
        let leaf = class.leaf(slot).filter(|_| nodes.at(slot).standing != Standing::Leaving);
        if let Some(fill) = here.filled.and_then(|leaf| self.by_leaf.get_mut(&leaf)) {
            *fill -= here.replicas;
        }
        if let Some(leaf) = leaf {
            *self.by_leaf.entry(leaf).or_default() += here.replicas;
        }
        here.filled = leaf;
    }
}

impl Fresh {
    fn sync(&mut self, class: &Class, nodes: &Nodes, footprint: &Arc<Footprint>, max_replicas: u32) {
        let (freed, ladder) = (nodes.freed(), nodes.ladder());
        let limit = self.passed_over + FOLLOW_AT_LEAST;
        let same = (self.class, self.epoch, self.max_replicas) == (class.id, ladder.epoch(), max_replicas)
            && self.footprint.as_ref().is_some_and(|last| last == footprint);
        if same && freed.since(self.synced).nth(limit).is_none() {
            for slot in freed.since(self.synced) {
                let from = class.leaf(slot).and_then(|leaf| self.from.get_mut(&leaf));
                if let (Some(from), Some(mark)) = (from, ladder.mark(slot)) {
                    *from = mark.min(*from);
                }
            }
        } else {
            let footprint = Some(Arc::clone(footprint));
            *self =
                Self { class: class.id, epoch: ladder.epoch(), footprint, max_replicas, ..Self::default() };
        }
        self.synced = freed.now();
    }
}

impl Used {
    fn rank(&mut self, slot: Slot, here: &mut Here, class: &Class, nodes: &Nodes) {
        self.leave(slot, nodes.at(slot).id, here.ranked);
        let entry = here.entry(slot, class, nodes, &self.host_ports);
        here.ranked = entry.map(|(leaf, entry)| Ranked::of(leaf, entry.rank));
        if let Some((leaf, entry)) = entry {
            self.by_leaf.entry(leaf).or_default().insert(entry);
        }
    }

    fn leave(&mut self, slot: Slot, node: NodeId, ranked: Option<Ranked>) {
        let Some(Ranked { leaf, replicas, tasks }) = ranked else { return };
        if let Some(order) = self.by_leaf.get_mut(&leaf) {
            order.remove(Rank { replicas_here: replicas, tasks_here: tasks, node, slot });
        }
    }
}
