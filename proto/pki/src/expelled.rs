//! Nodes and operators whose certificates are valid and are refused all the same: they were removed from the cluster.
//!
//! Their open connections end at once. New ones are let in as callers without a certificate are, few and for a short
//! time, so that a call can be refused with a reason; who refuses it is the service behind the door.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};

use swarm_model::Id;

/// Who is refused, by id. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Expelled(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    members: HashSet<Id>,
    open: HashMap<Id, Vec<Weak<Cut>>>,
}

/// The end of one connection, as it is told to it.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    done: AtomicBool,
    connection: Mutex<Option<Waker>>,
}

impl Expelled {
    /// Replaces what was told before. Connections of those that are new among them end now.
    pub fn set(&self, members: impl IntoIterator<Item = Id>) {
        let mut table = self.table();
        table.members = members.into_iter().collect();
        let Table { members, open } = &mut *table;
        open.retain(|member, connections| {
            let stays = !members.contains(member);
            if !stays {
                connections.iter().filter_map(Weak::upgrade).for_each(|cut| cut.end());
            }
            stays
        });
    }

    pub fn contains(&self, member: Id) -> bool {
        self.table().members.contains(&member)
    }

    /// For a new connection of a member; `None`: it is expelled.
    pub(crate) fn enter(&self, member: Id) -> Option<Arc<Cut>> {
        let mut table = self.table();
        if table.members.contains(&member) {
            return None;
        }
        let connections = table.open.entry(member).or_default();
        connections.retain(|cut| cut.strong_count() > 0);
        let cut = Arc::new(Cut::default());
        connections.push(Arc::downgrade(&cut));
        Some(cut)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cut {
    fn end(&self) {
        self.done.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker().take() {
            waker.wake();
        }
    }

    /// Whether the connection is to end; if not, its task is woken when it is.
    pub fn is_done(&self, context: &Context<'_>) -> bool {
        {
            let mut waker = self.waker();
            if waker.as_ref().is_none_or(|known| !known.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
        }
        // After the waker is there: an end that comes between is seen or wakes.
        self.done.load(Ordering::SeqCst)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
