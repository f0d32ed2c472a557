//! The Raft log and hard state on disk.
//!
//! Nothing is acknowledged before [`LogStore::sync`] returned. The trait exists because the simulator runs the same
//! manager over a log that loses, tears and rots.

pub(crate) mod disk;
mod error;
mod frame;
mod segment;

use bytes::Bytes;
use swarm_manager_core::door::LogEntry;

pub use error::LogError;
pub use segment::SegmentLog;

/// What a log held when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub hard_state: Option<Bytes>,
    /// Ascending and without a gap.
    pub entries: Vec<LogEntry>,
}

/// A log of entries, and the newest hard state.
pub trait LogStore: Send {
    /// Appends atomically: after a crash all of it is there, or nothing. A first index that is not above the last one
    /// replaces the suffix from there.
    ///
    /// # Errors
    /// The disk refused. Nothing may be assumed of what was written, and every later call fails too.
    fn append(&mut self, hard_state: Option<&Bytes>, entries: &[LogEntry]) -> Result<(), LogError>;

    /// Forgets every entry: a snapshot up to `index` took their place. The hard state stays.
    ///
    /// # Errors
    /// As [`LogStore::append`].
    fn reset(&mut self, index: u64) -> Result<(), LogError>;

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// As [`LogStore::append`].
    fn sync(&mut self) -> Result<(), LogError>;

    /// [`LogStore::sync`], and a last word on it: what was durable now can never be taken for something unfinished.
    ///
    /// # Errors
    /// As [`LogStore::append`].
    fn close(&mut self) -> Result<(), LogError>;

    /// Entries up to and including `up_to` may be deleted.
    ///
    /// # Errors
    /// As [`LogStore::append`].
    fn truncate(&mut self, up_to: u64) -> Result<(), LogError>;
}

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;
