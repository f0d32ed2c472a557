//! Classes of requirement: which nodes fit a set of constraints, platforms and host ports, grouped by the labels that
//! are spread over, each group in the order of its nodes' load.
//!
//! A class is built at its first use and then follows the nodes that changed. It knows nothing of services: the nodes
//! that already run a task of one are the business of [`super::service`].

use std::collections::BTreeMap;

use swarm_model::{Constraint, HostPort, Node, NodeId, Placement, Platform, SpreadBy};

use super::nodes::{Nodes, Slot};
use super::order::{Entry, Order, Rank};

/// Places of nodes that all classes together may hold, ordered ones and others. A place takes some 110 bytes, so this
/// is a bound of about 220 MB, reached by 20 classes over 100,000 nodes.
const MAX_PLACES: usize = 2_000_000;
/// What a class weighs beside its places, in places: a bound for many classes over few nodes.
const BASE_WEIGHT: usize = 64;
/// Groups that a class may have beyond two per node before it is built anew; labels that nobody has any more leave
/// empty groups behind.
const SPARE_GROUPS: usize = 1_024;

/// All classes in use, the least recently used ones dropped beyond [`MAX_PLACES`].
#[derive(Debug, Default)]
pub(super) struct Classes {
    by_key: BTreeMap<ClassKey, Class>,
    uses: u64,
    built: u64,
}

/// What makes two requirements the same. The order of constraints does not matter, that of preferences does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassKey {
    constraints: Vec<Constraint>,
    platforms: Vec<Platform>,
    preferences: Vec<SpreadBy>,
    host_ports: Vec<HostPort>,
}

/// One class: the nodes that fit, as of change `synced`.
#[derive(Debug)]
pub(super) struct Class {
    /// Unique; a class that is built anew gets another one.
    pub(super) id: u64,
    key: ClassKey,
    synced: u64,
    last_use: u64,
    /// By slot.
    members: Vec<Member>,
    groups: Vec<Group>,
}

/// Index of a group in its class; [`ROOT`] is the whole class.
pub(super) type GroupId = u32;
pub(super) const ROOT: GroupId = 0;

/// The nodes that share the values of the first labels that are spread over. Leaves share all of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) parent: Option<GroupId>,
    /// By value of the next label; empty for leaves.
    pub(super) children: BTreeMap<String, GroupId>,
    /// For leaves: the nodes that are open, with no replicas counted.
    pub(super) order: Order,
}

#[derive(Debug, Clone, Copy, Default)]
struct Member {
    /// [`super::nodes::Host::shape`] that `leaf` was found for.
    shape: u64,
    /// `None`: the node does not fit.
    leaf: Option<GroupId>,
    /// Where it stands in its leaf's order; `None` if it is not open or holds one of the ports.
    rank: Option<Rank>,
}

impl ClassKey {
    pub(super) fn new(placement: &Placement, host_ports: &[HostPort]) -> Self {
        Self {
            constraints: sorted(&placement.constraints),
            platforms: sorted(&placement.platforms),
            preferences: placement.preferences.clone(),
            host_ports: sorted(host_ports),
        }
    }

    fn admits(&self, node: &Node) -> bool {
        self.constraints.iter().all(|constraint| constraint.matches(node))
            && runs_on(&self.platforms, &node.engine.platform)
    }
}

/// Whether an image that exists for `platforms` runs on a node of platform `actual`. No platforms: any; an empty
/// field of a platform: any.
pub(super) fn runs_on(platforms: &[Platform], actual: &Platform) -> bool {
    let same_os = |os: &str| os.is_empty() || os.eq_ignore_ascii_case(&actual.os);
    let same_arch = |arch: &str| {
        arch.is_empty() || Platform::canonical_arch(arch) == Platform::canonical_arch(&actual.arch)
    };
    platforms.is_empty() || platforms.iter().any(|wanted| same_os(&wanted.os) && same_arch(&wanted.arch))
}

/// The node's value for a label that is spread over; nodes without it share the empty one.
pub(super) fn spread_value<'a>(by: &SpreadBy, node: &'a Node) -> &'a str {
    match by {
        SpreadBy::NodeLabel(key) => node.spec.labels.get(key),
        SpreadBy::EngineLabel(key) => node.engine.labels.get(key),
    }
    .map_or("", String::as_str)
}

impl Classes {
    /// The class of that requirement, brought up to date.
    pub(super) fn current(&mut self, key: &ClassKey, nodes: &Nodes) -> &Class {
        self.uses += 1;
        self.make_room(key, nodes.places() + BASE_WEIGHT);
        if !self.by_key.contains_key(key) {
            self.built += 1;
            self.by_key.insert(key.clone(), Class::build(key.clone(), self.built, nodes));
        }
        let class = self.by_key.get_mut(key).expect("it was just inserted");
        class.last_use = self.uses;
        if class.groups.len() > 2 * class.members.len() + SPARE_GROUPS {
            self.built += 1;
            *class = Class::build(key.clone(), self.built, nodes);
            class.last_use = self.uses;
        }
        class.sync(nodes);
        class
    }

    fn make_room(&mut self, needed: &ClassKey, weight: usize) {
        while !self.by_key.contains_key(needed) && (self.by_key.len() + 1) * weight > MAX_PLACES.max(weight) {
            let oldest = self.by_key.iter().min_by_key(|(_, class)| class.last_use);
            let oldest = oldest.map(|(key, _)| key.clone()).expect("more than one class fits");
            self.by_key.remove(&oldest);
        }
    }
}

impl Class {
    fn build(key: ClassKey, id: u64, nodes: &Nodes) -> Self {
        let root = Group { parent: None, children: BTreeMap::new(), order: Order::default() };
        let mut class = Self {
            id,
            key,
            synced: nodes.changes().now(),
            last_use: 0,
            members: vec![Member::default(); nodes.places()],
            groups: vec![root],
        };
        let mut entries: BTreeMap<GroupId, Vec<Entry>> = BTreeMap::new();
        for (slot, _) in nodes.all() {
            if let Some((leaf, entry)) = class.place(slot, nodes) {
                entries.entry(leaf).or_default().push(entry);
            }
        }
        for (leaf, mut entries) in entries {
            entries.sort_unstable_by_key(|entry| entry.rank);
            class.groups[leaf as usize].order = Order::from_sorted(&entries);
        }
        class
    }

    fn sync(&mut self, nodes: &Nodes) {
        self.members.resize(nodes.places(), Member::default());
        for slot in nodes.changes().since(self.synced) {
            let Member { leaf, rank, .. } = self.members[slot.index()];
            if let (Some(leaf), Some(rank)) = (leaf, rank) {
                self.groups[leaf as usize].order.remove(rank);
            }
            if let Some((leaf, entry)) = self.place(slot, nodes) {
                self.groups[leaf as usize].order.insert(entry);
            }
        }
        self.synced = nodes.changes().now();
    }

    /// Finds where a node belongs now. Its constraints are checked only if the node itself changed, not its load.
    fn place(&mut self, slot: Slot, nodes: &Nodes) -> Option<(GroupId, Entry)> {
        let host = nodes.at(slot);
        let Member { shape, leaf, .. } = self.members[slot.index()];
        let fitting = || host.node.as_deref().filter(|node| self.key.admits(node));
        let leaf = if shape == host.shape { leaf } else { fitting().map(|node| self.leaf_of(node)) };
        let entry = leaf.and(host.offer(&self.key.host_ports)).map(|free| Entry {
            rank: Rank { replicas_here: 0, tasks_here: host.tasks, node: host.id, slot },
            free,
        });
        self.members[slot.index()] = Member { shape: host.shape, leaf, rank: entry.map(|entry| entry.rank) };
        leaf.zip(entry)
    }

    fn leaf_of(&mut self, node: &Node) -> GroupId {
        let mut at = ROOT;
        for by in &self.key.preferences {
            let value = spread_value(by, node);
            at = match self.groups[at as usize].children.get(value) {
                Some(child) => *child,
                None => {
                    let child = GroupId::try_from(self.groups.len()).expect("fewer groups than 2^32");
                    self.groups[at as usize].children.insert(value.to_owned(), child);
                    let parent = Some(at);
                    self.groups.push(Group { parent, children: BTreeMap::new(), order: Order::default() });
                    child
                }
            };
        }
        at
    }

    pub(super) fn host_ports(&self) -> &[HostPort] {
        &self.key.host_ports
    }

    pub(super) fn group(&self, group: GroupId) -> &Group {
        &self.groups[group as usize]
    }

    /// The group and its ancestors without the root, innermost first.
    pub(super) fn path(&self, group: GroupId) -> impl Iterator<Item = (GroupId, GroupId)> {
        let mut at = group;
        std::iter::from_fn(move || {
            let parent = self.group(at).parent?;
            let step = (at, parent);
            at = parent;
            Some(step)
        })
    }

    /// The leaf of a node that fits, open or not.
    pub(super) fn leaf(&self, slot: Slot) -> Option<GroupId> {
        self.members.get(slot.index())?.leaf
    }

    /// Where a node stands in its leaf's order.
    pub(super) fn rank(&self, slot: Slot) -> Option<Rank> {
        self.members.get(slot.index())?.rank
    }
}

fn sorted<T: Clone + Ord>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.dedup();
    values
}

/// Keeps the arithmetic of [`MAX_PLACES`] honest.
const _: () = assert!(size_of::<Member>() <= 64 && size_of::<(NodeId, u32)>() <= 32);
