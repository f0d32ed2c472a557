//! The audit trail: what happened, as far back as there is room. A function of the log, so every manager has the same.
//!
//! Two rings of pages, so that a mass of tasks pushes no change out. A page is what a checkpoint writes: one that is
//! full is written once more at the most, however many events there are.

mod describe;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{Event, EventId, Happening, ObjectKind, TaskRecord, Timestamp};

use super::Store;
use super::object::Key;

pub(super) use describe::describe;

/// Events of a page: at 100 to 500 bytes each, one takes 25 to 125 KiB to write.
const PAGE_EVENTS: usize = 256;
/// 4,096 changes. One has 200 bytes, and at most [`describe::MAX_DIFFERENCE`] and its names more: 1 to 4 MiB.
const CHANGE_PAGES: usize = 16;
/// 16,384 events of tasks. One has 150 bytes, and a failed one its reason: 2.5 MiB, 6 MiB where all fail at length. Over
/// 100,000 tasks these are 25 to 60 bytes per task.
const TASK_PAGES: usize = 64;

/// Which ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trail {
    Changes,
    Tasks,
}

/// Both rings. A clone is cheap.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Audit {
    changes: Ring,
    tasks: Ring,
    /// Of the newest event.
    last: Option<EventId>,
}

/// Events in order, in numbered pages.
#[derive(Debug, Clone, Default, PartialEq)]
struct Ring(BTreeMap<u64, Arc<Page>>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Page {
    /// The event before the first one; `None`: there was none. It may be gone.
    before: Option<EventId>,
    events: Vec<Event>,
}

/// What is asked of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    pub after: After,
    /// Empty: all.
    pub kinds: Vec<ObjectKind>,
    /// At most so many.
    pub limit: usize,
}

impl EventQuery {
    /// As many as there can be.
    pub const MAX: usize = (CHANGE_PAGES + TASK_PAGES) * PAGE_EVENTS;
}

/// Where an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// As far back as there is.
    Everything,
    /// Nothing behind it may be missing.
    Event(EventId),
    Time(Timestamp),
    /// The newest ones, as many as may be.
    Newest,
}

/// Events behind the one asked for are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Behind it, all are there.
    pub oldest: EventId,
}

impl Audit {
    pub fn last(&self) -> Option<EventId> {
        self.last
    }

    pub(super) fn page(&self, trail: Trail, number: u64) -> Option<&Page> {
        self.ring(trail).0.get(&number).map(|page| &**page)
    }

    pub(super) fn pages(&self) -> impl Iterator<Item = (Trail, u64)> {
        let changes = self.changes.0.keys().map(|number| (Trail::Changes, *number));
        changes.chain(self.tasks.0.keys().map(|number| (Trail::Tasks, *number)))
    }

    pub(super) fn load(&mut self, trail: Trail, number: u64, page: Page) {
        self.last = self.last.max(page.events.last().map(|event| event.at));
        self.ring_mut(trail).0.insert(number, Arc::new(page));
    }

    /// Adds an event; the pages that changed.
    fn push(&mut self, event: Event) -> impl Iterator<Item = u64> + use<> {
        let (trail, pages) = match event.kind() {
            ObjectKind::Task => (Trail::Tasks, TASK_PAGES),
            ObjectKind::Cluster
            | ObjectKind::Operator
            | ObjectKind::Node
            | ObjectKind::Service
            | ObjectKind::Image => (Trail::Changes, CHANGE_PAGES),
        };
        self.last = Some(event.at);
        self.ring_mut(trail).push(event, pages)
    }

    /// # Errors
    /// Something of what was asked for is gone.
    pub fn events(&self, query: &EventQuery) -> Result<Vec<Event>, Gone> {
        let wanted = |event: &&Event| query.kinds.is_empty() || query.kinds.contains(&event.kind());
        let of_tasks = query.kinds.is_empty() || query.kinds.contains(&ObjectKind::Task);
        let of_changes = query.kinds.iter().any(|kind| *kind != ObjectKind::Task) || query.kinds.is_empty();
        let asked = [(of_changes, &self.changes), (of_tasks, &self.tasks)];
        let rings = asked.into_iter().filter(|(asked, _)| *asked).map(|(_, ring)| ring);
        let rings: Vec<&Ring> = rings.collect();
        if let After::Event(after) = query.after {
            let gone = rings.iter().filter_map(|ring| ring.gone()).max().filter(|gone| *gone > after);
            if let Some(oldest) = gone {
                return Err(Gone { oldest });
            }
        }
        let mut found: Vec<&Event> = Vec::new();
        for ring in rings {
            match query.after {
                After::Newest => found.extend(ring.newest().filter(wanted).take(query.limit)),
                After::Everything => found.extend(ring.behind(None).filter(wanted).take(query.limit)),
                After::Event(after) => {
                    found.extend(ring.behind(Some(after)).filter(wanted).take(query.limit));
                }
                After::Time(time) => {
                    let later = ring.behind(None).filter(|event| event.time > time);
                    found.extend(later.filter(wanted).take(query.limit));
                }
            }
        }
        found.sort_by_key(|event| event.at);
        let excess = found.len().saturating_sub(query.limit);
        match query.after {
            After::Newest => drop(found.drain(..excess)),
            After::Everything | After::Event(_) | After::Time(_) => found.truncate(query.limit),
        }
        Ok(found.into_iter().cloned().collect())
    }

    fn ring(&self, trail: Trail) -> &Ring {
        match trail {
            Trail::Changes => &self.changes,
            Trail::Tasks => &self.tasks,
        }
    }

    fn ring_mut(&mut self, trail: Trail) -> &mut Ring {
        match trail {
            Trail::Changes => &mut self.changes,
            Trail::Tasks => &mut self.tasks,
        }
    }
}

impl Ring {
    fn push(&mut self, event: Event, pages: usize) -> impl Iterator<Item = u64> + use<> {
        let last = self.0.last_key_value().map(|(number, page)| (*number, page));
        let number = match last {
            Some((number, page)) if page.events.len() < PAGE_EVENTS => number,
            Some((number, page)) => {
                let before = page.events.last().map(|event| event.at);
                self.0.insert(number + 1, Arc::new(Page { before, events: Vec::with_capacity(PAGE_EVENTS) }));
                number + 1
            }
            None => {
                self.0.insert(0, Arc::new(Page { before: None, events: Vec::new() }));
                0
            }
        };
        if let Some(page) = self.0.get_mut(&number) {
            Arc::make_mut(page).events.push(event);
        }
        let gone = if self.0.len() > pages { self.0.pop_first().map(|(number, _)| number) } else { None };
        [number].into_iter().chain(gone)
    }

    /// The newest event that is not kept any more.
    fn gone(&self) -> Option<EventId> {
        self.0.first_key_value().and_then(|(_, page)| page.before)
    }

    /// Pages that end before it are passed over whole.
    fn behind(&self, after: Option<EventId>) -> impl Iterator<Item = &Event> {
        let ends = move |page: &&Arc<Page>| page.events.last().map(|event| event.at) <= after;
        let events = self.0.values().skip_while(ends).flat_map(|page| &page.events);
        events.skip_while(move |event| Some(event.at) <= after)
    }

    fn newest(&self) -> impl Iterator<Item = &Event> {
        self.0.values().rev().flat_map(|page| page.events.iter().rev())
    }
}

impl Store {
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Notes what an action did.
    pub(super) fn note(&mut self, at: EventId, time: Timestamp, what: Happening) {
        let trail = match &what {
            Happening::Change(_) => Trail::Changes,
            Happening::Task(_) => Trail::Tasks,
        };
        let changed = self.audit.push(Event { at, time, what });
        self.unsaved.extend(changed.map(|number| Key::Events(trail, number)));
    }

    /// The name of a task's service, as the event before has it if it is of the same one: thousands in a row are.
    fn shared_name(&self, service: swarm_model::ServiceId) -> Arc<str> {
        let last = self.audit.tasks.0.last_key_value().and_then(|(_, page)| page.events.last());
        match last.map(|event| &event.what) {
            Some(Happening::Task(TaskRecord { service: same, service_name, .. })) if *same == service => {
                Arc::clone(service_name)
            }
            _ => self.service_record(service).map_or("", |record| &record.service.spec.name).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_model::{ChangeRecord, NodeId, ServiceId, TaskId, TaskStep};

    use super::*;

    fn event(index: u64, position: u32, task: bool) -> Event {
        let what = if task {
            Happening::Task(TaskRecord {
                task: TaskId::from_u128(u128::from(index)),
                service: ServiceId::from_u128(1),
                service_name: "web".into(),
                slot: 1,
                node: Some(NodeId::from_u128(2)),
                step: TaskStep::Created,
            })
        } else {
            Happening::Change(Box::new(ChangeRecord {
                by: None,
                kind: ObjectKind::Service,
                verb: "update".to_owned(),
                id: String::new(),
                name: "web".to_owned(),
                difference: String::new(),
            }))
        };
        Event { at: EventId { index, position }, time: Timestamp::from_micros(index), what }
    }

    fn indexes(audit: &Audit, after: After, kinds: &[ObjectKind], limit: usize) -> Result<Vec<u64>, Gone> {
        let query = EventQuery { after, kinds: kinds.to_vec(), limit };
        audit.events(&query).map(|events| events.iter().map(|event| event.at.index).collect())
    }

    #[test]
    fn a_mass_of_tasks_pushes_out_no_change() {
        let mut audit = Audit::default();
        drop(audit.push(event(1, 0, false)));
        let tasks = u32::try_from(TASK_PAGES * PAGE_EVENTS * 2).unwrap();
        (0..tasks).for_each(|position| drop(audit.push(event(2, position, true))));
        drop(audit.push(event(3, 0, false)));
        assert!(audit.tasks.0.len() <= TASK_PAGES);
        assert_eq!(indexes(&audit, After::Event(EventId::START), &[ObjectKind::Service], 9), Ok(vec![1, 3]));
        let gone = indexes(&audit, After::Event(EventId::end_of(1)), &[], 9).unwrap_err();
        assert_eq!(gone.oldest.index, 2);
        assert!(indexes(&audit, After::Event(gone.oldest), &[], 9).is_ok());
    }

    #[test]
    fn an_answer_goes_on_where_the_one_before_ended() {
        let mut audit = Audit::default();
        for index in 1..=1_000 {
            drop(audit.push(event(index, 0, index % 3 == 0)));
        }
        let mut seen = Vec::new();
        let mut after = After::Everything;
        while let Ok(found) = indexes(&audit, after, &[], 7)
            && let Some(last) = found.last()
        {
            after = After::Event(EventId::end_of(*last));
            seen.extend(found);
        }
        assert_eq!(seen, (1..=1_000).collect::<Vec<_>>());
        assert_eq!(indexes(&audit, After::Newest, &[], 2), Ok(vec![999, 1_000]));
        assert_eq!(indexes(&audit, After::Time(Timestamp::from_micros(998)), &[], 9), Ok(vec![999, 1_000]));
    }

    #[test]
    fn pages_that_were_written_and_read_are_the_same_trail() {
        let mut audit = Audit::default();
        for index in 1..=10_000 {
            drop(audit.push(event(index, 0, index % 2 == 0)));
        }
        let mut read = Audit::default();
        for (trail, number) in audit.pages() {
            read.load(trail, number, audit.page(trail, number).unwrap().clone());
        }
        assert!(read == audit && read.last() == Some(EventId { index: 10_000, position: 0 }));
    }
}
