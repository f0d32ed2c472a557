//! What this member proposes as the leader, and in which company it leaves.

use raft::eraftpb::Entry;

use super::Consensus;

/// A proposal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProposeError {
    NotLeader,
    /// Too much is under way.
    Busy,
}

impl Consensus {
    /// Proposes an entry; its number comes back with [`super::Committed::proposal`].
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        let number = self.proposals + 1;
        let context = [self.incarnation.to_be_bytes(), number.to_be_bytes()].concat();
        let raft = &mut self.raw.raft;
        // What raft-rs would look at. Its own `propose` sends each entry alone, and its `batch_append` joins messages that
        // do not follow each other.
        if raft.lead_transferee.is_some() || raft.prs().get(raft.id).is_none() {
            return Err(ProposeError::Busy);
        }
        if !raft.append_entry(&mut [Entry { data, context, ..Entry::default() }]) {
            return Err(ProposeError::Busy);
        }
        self.proposals = number;
        self.unsent = true;
        Ok(number)
    }

    /// Sends the followers what was proposed since the last time.
    pub(super) fn send_proposals(&mut self) {
        if std::mem::take(&mut self.unsent) && self.is_leader() {
            self.raw.raft.bcast_append();
        }
    }

    pub(super) fn own_number(&self, context: &[u8]) -> Option<u64> {
        let (incarnation, number) = context.split_first_chunk::<8>()?;
        let own = u64::from_be_bytes(*incarnation) == self.incarnation;
        own.then(|| number.try_into().map(u64::from_be_bytes).ok())?
    }

    /// Whether a group of proposals is on its way: to the own disk, or to a majority. What is proposed later goes together
    /// with the next one. A group costs each member a write, a sync and two messages, whatever it holds, so under
    /// load few large ones are worth more than the time that the second one waits for the first.
    pub fn is_committing(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.last_index() > log.committed || self.in_flight.iter().any(|ready| ready.needs_disk)
    }

    /// From now on followers are not told what is committed in messages of their own: an append is about to come.
    pub fn hold_commits(&mut self) {
        self.held_commit.get_or_insert(self.raw.raft.raft_log.committed);
        self.raw.skip_bcast_commit(true);
    }

    /// Tells them what they were not told: in an append that is about to leave, or else in a message.
    pub fn announce_commits(&mut self) {
        let Some(told) = self.held_commit.take() else { return };
        self.raw.skip_bcast_commit(false);
        self.unsent |= self.raw.raft.raft_log.committed > told;
        self.send_proposals();
    }
}
