//! Operators, and those that were removed, as long as a certificate of theirs may be valid: every manager refuses them.
//!
//! A certificate of the cluster's own is believed unless its operator was removed: a manager that has not applied an
//! enrolment yet need not refuse it.

use std::sync::Arc;

use imbl::OrdMap;
use swarm_model::{OperatorAccount, OperatorId, RemovedOperator, Timestamp};

/// A clone is cheap, and stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Operators {
    accounts: OrdMap<OperatorId, Arc<OperatorAccount>>,
    removed: OrdMap<OperatorId, Arc<RemovedOperator>>,
}

impl Operators {
    pub fn account(&self, id: OperatorId) -> Option<&Arc<OperatorAccount>> {
        self.accounts.get(&id)
    }

    /// There are few, so looking at each is no matter.
    pub fn called(&self, name: &str) -> Option<&Arc<OperatorAccount>> {
        self.accounts().find(|account| account.name == name)
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Arc<OperatorAccount>> {
        self.accounts.values()
    }

    pub fn removal(&self, id: OperatorId) -> Option<&Arc<RemovedOperator>> {
        self.removed.get(&id)
    }

    pub fn removed(&self) -> impl Iterator<Item = (&OperatorId, &Arc<RemovedOperator>)> {
        self.removed.iter()
    }

    /// Accounts and removed ones.
    pub(crate) fn count(&self) -> usize {
        self.accounts.len() + self.removed.len()
    }

    /// Whether nothing changed between the two.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let accounts = self.accounts.ptr_eq(&other.accounts);
        let removed = self.removed.ptr_eq(&other.removed);
        (accounts || self.accounts.is_empty() && other.accounts.is_empty())
            && (removed || self.removed.is_empty() && other.removed.is_empty())
    }

    pub(super) fn put(&mut self, account: OperatorAccount) {
        self.accounts.insert(account.id, Arc::new(account));
    }

    pub(super) fn take(&mut self, id: OperatorId) -> Option<Arc<OperatorAccount>> {
        self.accounts.remove(&id)
    }

    pub(super) fn put_removed(&mut self, id: OperatorId, record: RemovedOperator) {
        self.removed.insert(id, Arc::new(record));
    }

    /// Takes out whose certificates have all expired.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<OperatorId> {
        let expired = self.removed.iter().filter(|(_, record)| record.until <= now).map(|(id, _)| *id);
        let gone: Vec<OperatorId> = expired.collect();
        for id in &gone {
            self.removed.remove(id);
        }
        gone
    }
}
