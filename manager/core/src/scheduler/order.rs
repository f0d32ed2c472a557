//! Nodes in the order of their rank, in which the first one with enough room is found in O(log nodes).
//!
//! A B+tree whose inner pages also hold the most CPU and the most memory that is free anywhere below each child, so
//! that a search for room skips whole pages of full nodes. A page that becomes empty is freed; half-empty ones are not
//! merged, which in practice costs little (Johnson and Shasha, "B-trees with inserts and deletes: why free-at-empty is
//! better than merge-at-half", 1993).

use swarm_model::{NodeId, Resources};

use super::nodes::Slot;

/// Entries of a page. Measured: 16 to 64 differ by less than a tenth.
const FANOUT: usize = 32;

/// What makes one node better than another for a task, the smaller the better. A total order: it ends in an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Tasks of the same service on the node.
    pub(super) replicas_here: u32,
    /// All tasks on the node.
    pub(super) tasks_here: u32,
    pub(super) node: NodeId,
    pub(super) slot: Slot,
}

/// A node that could take a task which needs no more than `free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) free: Resources,
}

/// The ordered set.
#[derive(Debug)]
pub(super) struct Order {
    root: Page,
}

#[derive(Debug)]
enum Page {
    Leaf(Vec<Entry>),
    Inner(Vec<Child>),
}

#[derive(Debug)]
struct Child {
    /// No rank below is smaller.
    first: Rank,
    /// The most that is free of each resource anywhere below, not necessarily on one node.
    most: Resources,
    page: Box<Page>,
}

impl Rank {
    pub(super) const MIN: Self =
        Self { replicas_here: 0, tasks_here: 0, node: NodeId::from_u128(0), slot: Slot(0) };

    /// The smallest rank greater than this one.
    pub(super) fn next(self) -> Self {
        Self { slot: Slot(self.slot.0.saturating_add(1)), ..self }
    }
}

impl Default for Order {
    fn default() -> Self {
        Self { root: Page::Leaf(Vec::new()) }
    }
}

impl Order {
    /// Builds the set from entries that are in the order of their ranks.
    pub(super) fn from_sorted(entries: &[Entry]) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.rank < b.rank), "entries come in order");
        // Three quarters full: room for inserts anywhere.
        const FILL: usize = FANOUT * 3 / 4;
        let mut pages: Vec<Child> =
            entries.chunks(FILL).map(|chunk| Child::of(Page::Leaf(chunk.to_vec()))).collect();
        while pages.len() > 1 {
            let mut level = Vec::with_capacity(pages.len() / FILL + 1);
            let mut rest = pages.into_iter().peekable();
            while rest.peek().is_some() {
                level.push(Child::of(Page::Inner(rest.by_ref().take(FILL).collect())));
            }
            pages = level;
        }
        pages.pop().map_or_else(Self::default, |child| Self { root: *child.page })
    }

    /// Adds a node, whose rank must not be there yet.
    pub(super) fn insert(&mut self, entry: Entry) {
        if let Some(right) = self.root.insert(entry) {
            let left = std::mem::replace(&mut self.root, Page::Inner(Vec::with_capacity(FANOUT + 1)));
            self.root = Page::Inner(vec![Child::of(left), right]);
        }
    }

    /// Removes the node of that rank; false if there is none.
    pub(super) fn remove(&mut self, rank: Rank) -> bool {
        let removed = self.root.remove(rank).is_some();
        loop {
            match &mut self.root {
                Page::Inner(children) if children.len() == 1 => {
                    let only = children.pop().expect("it has one child");
                    self.root = *only.page;
                }
                Page::Inner(children) if children.is_empty() => self.root = Page::Leaf(Vec::new()),
                Page::Leaf(_) | Page::Inner(_) => return removed,
            }
        }
    }

    /// The first node at or after `from` that has `need` free.
    pub(super) fn first_fit(&self, from: Rank, need: Resources) -> Option<Rank> {
        self.root.first_fit(from, need)
    }
}

impl Page {
    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(entries) => entries.is_empty(),
            Self::Inner(children) => children.is_empty(),
        }
    }

    fn insert(&mut self, entry: Entry) -> Option<Child> {
        match self {
            Self::Leaf(entries) => {
                let at = entries.partition_point(|other| other.rank < entry.rank);
                debug_assert!(entries.get(at).is_none_or(|other| other.rank != entry.rank), "ranked twice");
                entries.insert(at, entry);
                split(entries, at).map(|right| Child::of(Self::Leaf(right)))
            }
            Self::Inner(children) => {
                let at = child_of(children, entry.rank);
                let child = &mut children[at];
                child.first = child.first.min(entry.rank);
                child.most = most_of(child.most, entry.free);
                let right = child.page.insert(entry)?;
                child.most = child.page.most(child.most);
                children.insert(at + 1, right);
                split(children, at + 1).map(|right| Child::of(Self::Inner(right)))
            }
        }
    }

    /// Removes that rank and returns what it had free.
    fn remove(&mut self, rank: Rank) -> Option<Resources> {
        match self {
            Self::Leaf(entries) => {
                let at = entries.binary_search_by(|entry| entry.rank.cmp(&rank)).ok()?;
                Some(entries.remove(at).free)
            }
            Self::Inner(children) => {
                let at = child_of(children, rank);
                let child = children.get_mut(at)?;
                let free = child.page.remove(rank)?;
                if child.page.is_empty() {
                    children.remove(at);
                } else if free.cpu_nanos == child.most.cpu_nanos
                    || free.memory_bytes == child.most.memory_bytes
                {
                    child.most = child.page.most(child.most);
                }
                Some(free)
            }
        }
    }

    fn first_fit(&self, from: Rank, need: Resources) -> Option<Rank> {
        match self {
            Self::Leaf(entries) => {
                let start = entries.partition_point(|entry| entry.rank < from);
                entries[start..].iter().find(|entry| need.fits_in(entry.free)).map(|entry| entry.rank)
            }
            Self::Inner(children) => children[child_of(children, from)..]
                .iter()
                .filter(|child| need.fits_in(child.most))
                .find_map(|child| child.page.first_fit(from, need)),
        }
    }

    /// The most that is free of each resource; the search ends when it reaches `ceiling`.
    fn most(&self, ceiling: Resources) -> Resources {
        let mut most = Resources::default();
        let mut reached = |free| {
            most = most_of(most, free);
            most == ceiling
        };
        match self {
            Self::Leaf(entries) => entries.iter().any(|entry| reached(entry.free)),
            Self::Inner(children) => children.iter().any(|child| reached(child.most)),
        };
        most
    }
}

impl Child {
    fn of(page: Page) -> Self {
        let first = match &page {
            Page::Leaf(entries) => entries.first().map(|entry| entry.rank),
            Page::Inner(children) => children.first().map(|child| child.first),
        };
        let most = page.most(Resources { cpu_nanos: u64::MAX, memory_bytes: u64::MAX });
        Self { first: first.expect("a page below another is never empty"), most, page: Box::new(page) }
    }
}

/// Index of the child that holds `rank` or would; 0 if all are greater.
fn child_of(children: &[Child], rank: Rank) -> usize {
    children.partition_point(|child| child.first <= rank).saturating_sub(1)
}

/// Splits an overfull page, right after an insert at `at`. Nodes mostly move to the end of an order, so a page that
/// grew at its end stays full.
fn split<T>(page: &mut Vec<T>, at: usize) -> Option<Vec<T>> {
    if page.len() <= FANOUT {
        return None;
    }
    let mut right = Vec::with_capacity(FANOUT + 1);
    right.extend(page.drain(if at == FANOUT { FANOUT } else { FANOUT / 2 }..));
    Some(right)
}

pub(super) fn most_of(a: Resources, b: Resources) -> Resources {
    Resources { cpu_nanos: a.cpu_nanos.max(b.cpu_nanos), memory_bytes: a.memory_bytes.max(b.memory_bytes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry((tasks_here, node, cpu_nanos, memory_bytes): (u32, u32, u64, u64)) -> Entry {
        let rank =
            Rank { replicas_here: 0, tasks_here, node: NodeId::from_u128(node.into()), slot: Slot(node) };
        Entry { rank, free: Resources { cpu_nanos, memory_bytes } }
    }

    fn scan(model: &[Entry], from: Rank, need: Resources) -> Option<Rank> {
        model.iter().find(|e| e.rank >= from && need.fits_in(e.free)).map(|e| e.rank)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn finds_what_a_scan_finds(
            start in prop::collection::btree_map((0..9u32, 0..900u32), (0..6u64, 0..6u64), 0..400),
            steps in prop::collection::vec(
                ((0..9u32, 0..900u32, 0..6u64, 0..6u64), any::<bool>(), (0..9u32, 0..900u32, 0..6u64, 0..6u64)), 0..400),
        ) {
            let mut model: Vec<Entry> =
                start.into_iter().map(|((t, n), (c, m))| entry((t, n, c, m))).collect();
            let mut order = Order::from_sorted(&model);
            for (one, add, probe) in steps {
                let one = entry(one);
                match (model.binary_search_by(|e| e.rank.cmp(&one.rank)), add) {
                    (Ok(at), _) => {
                        model.remove(at);
                        prop_assert!(order.remove(one.rank));
                    }
                    (Err(_), false) => prop_assert!(!order.remove(one.rank)),
                    (Err(at), true) => {
                        model.insert(at, one);
                        order.insert(one);
                    }
                }
                let probe = entry(probe);
                for (from, need) in [(probe.rank, probe.free), (Rank::MIN, probe.free), (probe.rank.next(), one.free)] {
                    prop_assert_eq!(order.first_fit(from, need), scan(&model, from, need));
                }
                prop_assert_eq!(order.root.is_empty(), model.is_empty());
            }
        }
    }
}
