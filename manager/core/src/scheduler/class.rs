//! Classes of requirement: which nodes satisfy a set of constraints and platforms, grouped by the labels that are spread
//! over.
//!
//! A class is built at its first use and then follows the nodes that changed themselves; load is the business of
//! [`super::ladder`], and services that of [`super::service`].

use std::collections::BTreeMap;

use swarm_model::{Constraint, Node, Placement, Platform, SpreadBy};

use super::ladder::Mask;
use super::nodes::{Nodes, Slot};

/// Places of nodes that all classes together may hold. A place takes 4 bytes and its share of a mask, at most 16, so
/// this is a bound of 160 MB, reached by 80 classes over 100,000 nodes.
const MAX_PLACES: usize = 8_000_000;
/// What a class weighs beside its places, in places: a bound for many classes over few nodes.
const BASE_WEIGHT: usize = 256;
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
}

/// One class: the nodes that satisfy it, as of change `synced`.
#[derive(Debug)]
pub(super) struct Class {
    /// Unique; a class that is built anew gets another one.
    pub(super) id: u64,
    key: ClassKey,
    synced: u64,
    /// That of the ladder that the masks are for.
    epoch: u64,
    last_use: u64,
    /// By slot: the leaf of the node; [`NO_GROUP`] if it does not satisfy the class.
    leaves: Vec<GroupId>,
    groups: Vec<Group>,
}

/// Index of a group in its class; [`ROOT`] is the whole class.
pub(super) type GroupId = u32;
pub(super) const ROOT: GroupId = 0;
const NO_GROUP: GroupId = GroupId::MAX;

/// The nodes that share the values of the first labels that are spread over. Leaves share all of them.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// By value of the next label; empty for leaves.
    pub(super) children: BTreeMap<String, GroupId>,
    /// For leaves: their nodes, open or not.
    pub(super) mask: Mask,
}

impl ClassKey {
    pub(super) fn new(placement: &Placement) -> Self {
        Self {
            constraints: sorted(&placement.constraints),
            platforms: sorted(&placement.platforms),
            preferences: placement.preferences.clone(),
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
            self.by_key.insert(key.clone(), Class::build(key.clone(), self.built));
        }
        let class = self.by_key.get_mut(key).expect("it was just inserted");
        class.last_use = self.uses;
        if class.groups.len() > 2 * class.leaves.len() + SPARE_GROUPS {
            self.built += 1;
            *class = Class::build(key.clone(), self.built);
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
    fn build(key: ClassKey, id: u64) -> Self {
        let groups = vec![Group::default()];
        Self { id, key, synced: 0, epoch: 0, last_use: 0, leaves: Vec::new(), groups }
    }

    fn sync(&mut self, nodes: &Nodes) {
        self.leaves.resize(nodes.places(), NO_GROUP);
        let anew = self.epoch != nodes.ladder().epoch();
        for slot in nodes.reshaped().since(self.synced) {
            let seat = nodes.ladder().seat(slot).filter(|_| !anew);
            if let (Some(leaf), Some(seat)) = (self.leaf(slot), seat) {
                self.groups[leaf as usize].mask.remove(seat);
            }
            let node = nodes.at(slot).node.as_deref().filter(|node| self.key.admits(node));
            let leaf = node.map_or(NO_GROUP, |node| self.leaf_of(node));
            self.leaves[slot.index()] = leaf;
            if let (true, Some(seat)) = (leaf != NO_GROUP, seat) {
                self.groups[leaf as usize].mask.insert(seat);
            }
        }
        if anew {
            self.seat_all(nodes);
        }
        self.synced = nodes.reshaped().now();
    }

    fn seat_all(&mut self, nodes: &Nodes) {
        self.groups.iter_mut().for_each(|group| group.mask.clear());
        for (seat, slot) in nodes.ladder().seated() {
            if let Some(leaf) = self.leaf(slot) {
                self.groups[leaf as usize].mask.insert(seat);
            }
        }
        self.epoch = nodes.ladder().epoch();
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
                    self.groups.push(Group::default());
                    child
                }
            };
        }
        at
    }

    /// Whether there are preferences, so that it has groups.
    pub(super) fn spreads(&self) -> bool {
        !self.key.preferences.is_empty()
    }

    pub(super) fn group(&self, group: GroupId) -> &Group {
        &self.groups[group as usize]
    }

    /// The leaf of a node that satisfies the class, open or not.
    pub(super) fn leaf(&self, slot: Slot) -> Option<GroupId> {
        self.leaves.get(slot.index()).copied().filter(|leaf| *leaf != NO_GROUP)
    }
}

fn sorted<T: Clone + Ord>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.dedup();
    values
}
