//! A manager core whose disk is a vector that is always durable at once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use swarm_manager_core::ManagerCore;
use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::{Config, Effect, Event, LogEntry, Persist, Recovered, RequestId};
use swarm_model::{NodeId, Timestamp};

/// Between two batches: short, so that nothing times out while millions of them run.
const BATCH_TIME: Duration = Duration::from_nanos(1_000);

pub struct World {
    core: ManagerCore,
    effects: Vec<Effect>,
    now: Timestamp,
    log: Log,
    next_request: u64,
    replies: BTreeMap<RequestId, Result<Response, ApiError>>,
}

/// Everything that the core wrote.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub entries: Vec<LogEntry>,
    pub hard_state: Option<Bytes>,
}

fn config() -> Config {
    Config::new(NodeId::from_u128(1), 1, [7; 32])
}

impl World {
    /// A core that starts with this log. It has applied everything when this returns.
    ///
    /// # Errors
    /// The core refuses the log.
    pub fn start(log: Log) -> anyhow::Result<Self> {
        let mut effects = Vec::new();
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let recovered =
            Recovered { checkpoint: None, hard_state: log.hard_state.clone(), entries: log.entries.clone() };
        let core = ManagerCore::new(config(), recovered, now, &mut effects).context("start the core")?;
        let mut world = Self { core, effects, now, log, next_request: 0, replies: BTreeMap::new() };
        world.settle();
        Ok(world)
    }

    pub fn into_log(self) -> Log {
        self.log
    }

    /// Hands an event in, and runs until the core has nothing more to do.
    pub fn event(&mut self, event: Event) {
        self.core.handle(self.now, event, &mut self.effects);
        self.settle();
    }

    /// # Errors
    /// The core's refusal.
    pub fn ask(&mut self, request: Request) -> anyhow::Result<Response> {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.event(Event::Request { id, by: None, request });
        match self.replies.remove(&id) {
            Some(reply) => Ok(reply?),
            None => bail!("a request was not answered"),
        }
    }

    fn settle(&mut self) {
        loop {
            self.now = self.now + BATCH_TIME;
            self.core.handle(self.now, Event::Wakeup, &mut self.effects);
            let mut done = Vec::new();
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Persist(persist) => done.push(self.log.persist(persist)),
                    Effect::Checkpoint(checkpoint) => {
                        done.push(Event::Checkpointed { index: checkpoint.index });
                    }
                    Effect::Reply { id, result } => drop(self.replies.insert(id, result)),
                    Effect::SendRaft { .. }
                    | Effect::SendSnapshot { .. }
                    | Effect::Session { .. }
                    | Effect::CloseSession { .. }
                    | Effect::TruncateLog { .. }
                    | Effect::Publish(_)
                    | Effect::Leadership(_)
                    | Effect::Members(_)
                    | Effect::Removed(_)
                    | Effect::Autolock(_)
                    | Effect::Operators(_)
                    | Effect::Happened(_)
                    | Effect::Stop { .. } => {}
                }
            }
            if done.is_empty() {
                return;
            }
            for event in done {
                self.core.handle(self.now, event, &mut self.effects);
            }
        }
    }
}

impl Log {
    fn persist(&mut self, persist: Persist) -> Event {
        if let Some(first) = persist.entries.first() {
            self.entries.truncate(self.entries.partition_point(|entry| entry.index < first.index));
        }
        self.entries.extend(persist.entries);
        self.hard_state = persist.hard_state.or_else(|| self.hard_state.take());
        Event::Persisted { ready: persist.ready }
    }

    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.data.len() as u64).sum()
    }
}
