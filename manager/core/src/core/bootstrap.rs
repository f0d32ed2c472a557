//! The first moment of a cluster: this manager becomes its only member.

use crate::api::Request;
use crate::consensus::Consensus;
use crate::core::ManagerCore;
use crate::door::{Effect, Persist};

impl ManagerCore {
    /// Answers whether there is a cluster to talk to now. The request itself stays in the inbox: it is an ordinary write.
    pub(super) fn bootstrap_if_asked(&mut self, effects: &mut Vec<Effect>) -> bool {
        let asked = self.inbox.iter().any(|asked| matches!(asked.request, Request::CreateCluster(_)));
        if !asked {
            return false;
        }
        let log = Consensus::bootstrap_log(self.config.raft_id);
        let first = Persist {
            ready: 0,
            checkpoint: None,
            entries: log.entries.clone(),
            hard_state: log.hard_state.clone(),
            must_sync: true,
        };
        match Consensus::recover(&self.config, log, self.now) {
            Ok(consensus) => self.consensus = consensus,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the first log entry cannot be made"
                );
                return false;
            }
        }
        effects.push(Effect::Persist(first));
        self.run_rounds(effects);
        self.consensus.campaign_if_alone();
        self.run_rounds(effects);
        true
    }
}
