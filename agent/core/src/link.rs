//! Which manager to speak to, and when to try again.
//!
//! A manager that does not lead names the leader, who is tried at once. Everything else that ends a session is followed
//! by a pause, with jitter, and by the next manager of the list, which is another one if there is any. The pause doubles
//! with each round of the list, up to a ceiling. Managers that cannot be reached share one pause: however many of them are
//! dead, each round comes to the one that lives.

use std::time::Duration;

use swarm_model::Timestamp;

use crate::{Closed, SessionId};

/// First and longest pause before another attempt; of a round of the list where managers cannot be reached. The ceiling is
/// a few times a manager's election, and well below the 3 s after which a new leader takes a silent node for lost.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Whoever runs the agent ends it when the node was removed; should that not come about, managers are asked no more often.
const REMOVED_PAUSE: Duration = Duration::from_secs(600);
/// Leaders followed without a pause: more in a row means that managers disagree.
const REDIRECT_LIMIT: u32 = 3;

/// How the node is connected, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    pub link: Link,
    /// Why the last session ended; empty if none ever did, or since one is open.
    pub last_error: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    Down,
    Connecting {
        manager: String,
    },
    /// Welcomed.
    Up {
        manager: String,
    },
}

/// The core's end of the session.
#[derive(Debug)]
pub(crate) struct Dialer {
    state: State,
    managers: Vec<String>,
    /// Place in the list of the manager to try next.
    next: usize,
    /// The leader, as a manager named it.
    leader: Option<String>,
    redirects: u32,
    /// Attempts in a row that ended before a welcome.
    failures: u32,
    last_session: u64,
    jitter: SplitMix64,
    last_error: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Down,
    Connecting {
        session: SessionId,
        manager: String,
    },
    /// Registered.
    Open {
        session: SessionId,
        manager: String,
        welcomed: bool,
    },
}

impl Dialer {
    pub fn new(managers: Vec<String>, seed: u64) -> Self {
        let mut jitter = SplitMix64(seed);
        // Nodes that know the same list begin at different places of it.
        let next = jitter.below(managers.len().max(1) as u64) as usize;
        Self {
            state: State::Down,
            managers,
            next,
            leader: None,
            redirects: 0,
            failures: 0,
            last_session: 0,
            jitter,
            last_error: String::new(),
        }
    }

    /// Begins an attempt: its number and the manager. `None` if no manager is known, or an attempt is under way.
    pub fn dial(&mut self) -> Option<(SessionId, String)> {
        if self.state != State::Down {
            return None;
        }
        let manager = match self.leader.take() {
            Some(leader) => leader,
            None => {
                let manager = self.managers.get(self.next % self.managers.len().max(1))?.clone();
                self.next = self.next.wrapping_add(1);
                manager
            }
        };
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.state = State::Connecting { session, manager: manager.clone() };
        Some((session, manager))
    }

    /// The connection is there. `false` if it is not the current attempt's.
    pub fn opened(&mut self, session: SessionId) -> bool {
        match &self.state {
            State::Connecting { session: current, manager } if *current == session => {
                self.state = State::Open { session, manager: manager.clone(), welcomed: false };
                true
            }
            State::Down | State::Connecting { .. } | State::Open { .. } => false,
        }
    }

    /// The manager accepted us and told which managers there are.
    pub fn welcomed(&mut self, managers: &[String]) {
        if let State::Open { welcomed, .. } = &mut self.state {
            *welcomed = true;
        }
        self.failures = 0;
        self.redirects = 0;
        self.last_error.clear();
        if !managers.is_empty() {
            self.set_managers(managers);
        }
    }

    pub fn managers(&self) -> &[String] {
        &self.managers
    }

    pub fn set_managers(&mut self, managers: &[String]) {
        self.managers = managers.to_vec();
    }

    /// Begins at the head of the list, without a pause. `false`: an attempt or a session is under way.
    pub fn begin_anew(&mut self) -> bool {
        self.failures = 0;
        self.next = 0;
        self.state == State::Down
    }

    /// The session ended: when to try again. `None` if it is not the current one.
    pub fn closed(&mut self, now: Timestamp, session: SessionId, reason: Closed) -> Option<Timestamp> {
        if self.current() != Some(session) {
            return None;
        }
        if let State::Connecting { manager, .. } | State::Open { manager, .. } =
            std::mem::replace(&mut self.state, State::Down)
        {
            self.pass_over(&manager);
        }
        match reason {
            Closed::NotLeader { leader: Some(leader) } if self.redirects < REDIRECT_LIMIT => {
                self.redirects += 1;
                self.leader = Some(leader);
                Some(now)
            }
            Closed::NotLeader { .. } => {
                self.redirects = 0;
                Some(self.pause(now, 1, "the managers have no leader now".to_owned()))
            }
            Closed::Removed => {
                self.last_error = "this node was removed from the cluster".to_owned();
                Some(now + REMOVED_PAUSE)
            }
            Closed::Failed(error) => Some(self.pause(now, self.known(), error)),
        }
    }

    /// Whom to try next: not the manager whose session just ended.
    fn pass_over(&mut self, manager: &str) {
        let place = self.next % self.managers.len().max(1);
        if self.managers.get(place).is_some_and(|next| next == manager) {
            self.next = place + 1;
        }
    }

    fn known(&self) -> u32 {
        u32::try_from(self.managers.len().max(1)).unwrap_or(u32::MAX)
    }

    /// `share`: of so many managers the pause is.
    fn pause(&mut self, now: Timestamp, share: u32, error: String) -> Timestamp {
        self.last_error = error;
        let rounds = self.failures / self.known();
        let doubled = FIRST_PAUSE * 2u32.pow(rounds.min(10));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(LONGEST_PAUSE) / share;
        let micros = u64::try_from(longest.as_micros()).expect("seconds");
        // Half of it at least, so that a crowd spreads without anybody hammering.
        now + Duration::from_micros(micros / 2 + self.jitter.below(micros / 2 + 1))
    }

    /// The session that is open, registered or not.
    pub fn current(&self) -> Option<SessionId> {
        match &self.state {
            State::Down => None,
            State::Connecting { session, .. } | State::Open { session, .. } => Some(*session),
        }
    }

    /// The session on which the manager has welcomed us.
    pub fn up(&self) -> Option<SessionId> {
        match &self.state {
            State::Open { session, welcomed: true, .. } => Some(*session),
            State::Down | State::Connecting { .. } | State::Open { .. } => None,
        }
    }

    /// The session on which we have registered.
    pub fn registered(&self) -> Option<SessionId> {
        match &self.state {
            State::Open { session, .. } => Some(*session),
            State::Down | State::Connecting { .. } => None,
        }
    }

    pub fn connection(&self) -> Connection {
        let link = match &self.state {
            State::Down => Link::Down,
            State::Connecting { manager, .. } | State::Open { manager, welcomed: false, .. } => {
                Link::Connecting { manager: manager.clone() }
            }
            State::Open { manager, welcomed: true, .. } => Link::Up { manager: manager.clone() },
        };
        Connection { link, last_error: self.last_error.clone() }
    }
}

/// Steele, Lea and Flood's SplitMix64: enough to spread attempts in time, and nothing else is drawn from it.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0. The bias is without meaning for bounds this small.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer() -> Dialer {
        Dialer::new(vec!["a:1".to_owned(), "b:1".to_owned()], 7)
    }

    fn fail(dialer: &mut Dialer, reason: Closed) -> Duration {
        let (session, _) = dialer.dial().unwrap();
        dialer.closed(Timestamp::ZERO, session, reason).unwrap().since(Timestamp::ZERO)
    }

    #[test]
    fn pauses_grow_to_a_ceiling_and_managers_take_turns() {
        let mut dialer = dialer();
        let mut seen = Vec::new();
        for attempt in 0..12 {
            let (session, manager) = dialer.dial().unwrap();
            seen.push(manager);
            let at = dialer.closed(Timestamp::ZERO, session, Closed::Failed("refused".to_owned())).unwrap();
            let longest = (FIRST_PAUSE * 2u32.pow(attempt / 2)).min(LONGEST_PAUSE) / 2;
            let pause = at.since(Timestamp::ZERO);
            assert!(pause >= longest / 2 && pause <= longest, "{attempt}: {pause:?}");
        }
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
    }

    #[test]
    fn the_named_leader_is_tried_at_once_but_not_for_ever() {
        let mut dialer = dialer();
        let redirect = || Closed::NotLeader { leader: Some("leader:1".to_owned()) };
        for _ in 0..REDIRECT_LIMIT {
            assert_eq!(fail(&mut dialer, redirect()), Duration::ZERO);
        }
        assert!(fail(&mut dialer, redirect()) > Duration::ZERO);
        assert_eq!(fail(&mut dialer, redirect()), Duration::ZERO);
        assert_eq!(dialer.dial().unwrap().1, "leader:1");
    }

    #[test]
    fn a_leader_that_fell_silent_is_not_tried_again_before_the_others() {
        for leader in ["a:1", "b:1"] {
            let mut dialer = dialer();
            fail(&mut dialer, Closed::NotLeader { leader: Some(leader.to_owned()) });
            let (session, _) = dialer.dial().unwrap();
            assert!(dialer.opened(session));
            dialer.welcomed(&[]);
            dialer.closed(Timestamp::ZERO, session, Closed::Failed("silent".to_owned()));
            assert_ne!(dialer.dial().unwrap().1, leader);
        }
    }

    #[test]
    fn a_session_of_the_past_changes_nothing() {
        let mut dialer = dialer();
        let (old, _) = dialer.dial().unwrap();
        dialer.closed(Timestamp::ZERO, old, Closed::NotLeader { leader: None });
        let (new, _) = dialer.dial().unwrap();
        assert!(!dialer.opened(old));
        assert_eq!(dialer.closed(Timestamp::ZERO, old, Closed::NotLeader { leader: None }), None);
        assert!(dialer.opened(new));
    }
}
