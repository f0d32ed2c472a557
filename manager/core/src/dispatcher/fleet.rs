//! Which nodes are there: sessions, heartbeats, and when a silent node counts as down.
//!
//! A closed session alone moves nothing: its host lives, and the agent may be restarting, so it has some seconds to come
//! back, as after a change of leader. A session that is open and silent is a worse sign: the host is gone, hangs or is
//! cut off, and counts as down after three heartbeat intervals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_model::{NodeId, NodeState, Timestamp};

use crate::door::SessionId;

/// Heartbeats missed before a node is down.
const MISSED_BEATS: u32 = 3;
/// For an agent without a session to come back, at least; longer where three intervals are.
const ABSENCE: Duration = Duration::from_secs(3);
/// Agents that a new leader can take in per second beside its other work: a handshake, a report and an answer each. It
/// waits so much longer for those that it has not heard of.
const RETURNS_PER_SECOND: u32 = 200;
/// Heartbeats per second that one leader takes in: the interval grows so that the whole fleet stays below. Of 2,000 nodes
/// one that hangs is found within 4 s.
const MAX_BEATS_PER_SECOND: u64 = 1_500;

/// The interval told to agents: `base_ms` while the fleet is small.
pub(crate) fn heartbeat_interval(base_ms: u32, nodes: usize) -> Duration {
    let share = (nodes as u64 * 1_000).div_ceil(MAX_BEATS_PER_SECOND);
    Duration::from_millis(u64::from(base_ms).max(share))
}

/// How long a new leader waits for the nodes to appear.
pub(crate) fn return_time(nodes: usize) -> Duration {
    Duration::from_secs(1) * u32::try_from(nodes).unwrap_or(u32::MAX) / RETURNS_PER_SECOND
}

#[derive(Debug)]
struct Member {
    state: NodeState,
    /// When the state was entered.
    since: Timestamp,
    session: Option<SessionId>,
    /// When something was heard of it, or its session closed.
    last_heard: Timestamp,
    /// The longer one of the two intervals that it was told last: it may not know the last one yet.
    interval: Duration,
    told: Duration,
    /// More time to appear than a node has that was there.
    return_time: Duration,
    /// Where it stands in `deadlines`; it may be due later by then.
    deadline: Option<Timestamp>,
}

impl Member {
    /// When it counts as down if nothing is heard of it.
    fn due(&self) -> Timestamp {
        let silence = self.interval * MISSED_BEATS;
        let absence = silence.max(ABSENCE);
        self.last_heard
            + match (self.session, self.state) {
                (Some(_), _) => silence,
                (None, NodeState::Unknown) => absence + self.return_time,
                (None, NodeState::Ready | NodeState::Down) => absence,
            }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<NodeId, Member>,
    sessions: BTreeMap<SessionId, NodeId>,
    deadlines: BTreeSet<(Timestamp, NodeId)>,
    /// Nodes whose state is still unknown.
    unknown: BTreeSet<NodeId>,
}

/// A node that was found silent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub node: NodeId,
    pub session: Option<SessionId>,
}

impl Fleet {
    /// A member of which nothing is known yet; it has its grace period to appear.
    pub fn add(&mut self, node: NodeId, now: Timestamp, interval: Duration, return_time: Duration) {
        if self.members.contains_key(&node) {
            return;
        }
        let mut member = Member {
            state: NodeState::Unknown,
            since: now,
            session: None,
            last_heard: now,
            interval,
            told: interval,
            return_time,
            deadline: None,
        };
        let deadline = member.due();
        member.deadline = Some(deadline);
        self.members.insert(node, member);
        self.unknown.insert(node);
        self.deadlines.insert((deadline, node));
    }

    /// Answers the session to be closed.
    pub fn remove(&mut self, node: NodeId) -> Option<SessionId> {
        let member = self.members.remove(&node)?;
        self.unknown.remove(&node);
        if let Some(deadline) = member.deadline {
            self.deadlines.remove(&(deadline, node));
        }
        member.session.inspect(|session| {
            self.sessions.remove(session);
        })
    }

    /// A node registered. Answers the session that this one replaces.
    pub fn open(
        &mut self,
        node: NodeId,
        session: SessionId,
        now: Timestamp,
        interval: Duration,
    ) -> Option<SessionId> {
        let member = self.members.get_mut(&node)?;
        let replaced = member.session.replace(session);
        member.interval = interval;
        member.told = interval;
        if let Some(replaced) = replaced {
            self.sessions.remove(&replaced);
        }
        // It stands behind the grace period that it had without a session.
        if let Some(deadline) = member.deadline.take() {
            self.deadlines.remove(&(deadline, node));
        }
        self.sessions.insert(session, node);
        self.hear(node, now);
        replaced
    }

    /// The node is told how often to be heard.
    pub fn tell_interval(&mut self, node: NodeId, interval: Duration) {
        if let Some(member) = self.members.get_mut(&node) {
            member.interval = interval.max(member.told);
            member.told = interval;
        }
    }

    /// The open session of a node.
    pub fn session(&self, node: NodeId) -> Option<SessionId> {
        self.members.get(&node)?.session
    }

    /// Anything a session says proves that its node is there. `None`: no such session.
    pub fn heard(&mut self, session: SessionId, now: Timestamp) -> Option<NodeId> {
        let node = *self.sessions.get(&session)?;
        self.hear(node, now);
        Some(node)
    }

    fn hear(&mut self, node: NodeId, now: Timestamp) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.last_heard = now;
        if member.state != NodeState::Ready {
            member.state = NodeState::Ready;
            member.since = now;
            self.unknown.remove(&node);
        }
        if member.deadline.is_none() {
            let deadline = member.due();
            member.deadline = Some(deadline);
            self.deadlines.insert((deadline, node));
        }
    }

    /// The stream ended. The node stays what it is until its deadline.
    pub fn close(&mut self, session: SessionId) -> Option<NodeId> {
        let node = self.sessions.remove(&session)?;
        if let Some(member) = self.members.get_mut(&node) {
            member.session = None;
        }
        Some(node)
    }

    /// Nodes that are down as of `now`. Deadlines are moved only here, so that a heartbeat costs no ordering.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Lost> {
        let mut lost = Vec::new();
        while let Some(&(deadline, node)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(member) = self.members.get_mut(&node) else { continue };
            let due = member.due();
            if due > now {
                member.deadline = Some(due);
                self.deadlines.insert((due, node));
                continue;
            }
            member.deadline = None;
            member.state = NodeState::Down;
            member.since = now;
            let session = member.session.take();
            if let Some(session) = session {
                self.sessions.remove(&session);
            }
            self.unknown.remove(&node);
            lost.push(Lost { node, session });
        }
        lost
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub fn state(&self, node: NodeId) -> NodeState {
        self.members.get(&node).map_or(NodeState::Down, |member| member.state)
    }

    /// When the node entered its state.
    pub fn since(&self, node: NodeId) -> Timestamp {
        self.members.get(&node).map_or(Timestamp::ZERO, |member| member.since)
    }

    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    pub fn unknown(&self) -> impl Iterator<Item = NodeId> {
        self.unknown.iter().copied()
    }

    /// Whether new tasks may go there: a node that is just reconnecting gets nothing new.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|m| m.state == NodeState::Ready && m.session.is_some())
    }

    /// For operators: why the node is in its state.
    pub fn explain(&self, node: NodeId) -> String {
        let Some(member) = self.members.get(&node) else { return "not a member".to_owned() };
        match (member.state, member.session) {
            (NodeState::Ready, Some(_)) => String::new(),
            (NodeState::Ready, None) => "its agent is not connected at the moment".to_owned(),
            (NodeState::Unknown, _) => "not heard of since the leader took over".to_owned(),
            (NodeState::Down, _) => {
                format!("nothing heard of it for {} s", member.since.since(member.last_heard).as_secs())
            }
        }
    }
}
