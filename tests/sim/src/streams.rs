//! Session streams between agents and managers: each direction stays in order. A blocked direction stalls, as TCP does; a
//! process that ends resets its streams.

use std::collections::VecDeque;

use swarm_agent_core as agent;
use swarm_model::{AgentMessage, ManagerMessage, Registration, Timestamp};

/// What goes up.
#[derive(Debug, Clone)]
pub enum Up {
    Register(Registration),
    Message(AgentMessage),
    Closed,
}

/// What goes down.
#[derive(Debug, Clone)]
pub enum Down {
    Message(ManagerMessage),
    Closed(agent::Closed),
}

/// One direction.
#[derive(Debug)]
pub struct Lane<T> {
    /// With the time of arrival.
    pub queue: VecDeque<(Timestamp, T)>,
    busy_until: Timestamp,
    /// The receiver hung up, or is gone.
    pub deaf: bool,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), busy_until: Timestamp::ZERO, deaf: false }
    }
}

impl<T> Lane<T> {
    /// Answers when it arrives.
    pub fn push(&mut self, at: Timestamp, item: T) -> Timestamp {
        let at = at.max(self.busy_until);
        self.busy_until = at;
        self.queue.push_back((at, item));
        at
    }

    pub fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        if self.queue.front()?.0 > now {
            return None;
        }
        self.queue.pop_front().map(|(_, item)| item)
    }
}

/// The manager's number of it is its key in the world's table.
#[derive(Debug)]
pub struct Stream {
    pub host: usize,
    pub host_life: u32,
    /// The agent's number of it.
    pub session: agent::SessionId,
    pub manager: usize,
    pub manager_life: u32,
    pub up: Lane<Up>,
    pub down: Lane<Down>,
}
