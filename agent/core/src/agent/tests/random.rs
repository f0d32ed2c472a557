//! Random managers, restarts and failures against the fake node, under a seed: what must always hold, and that
//! everything comes to rest as ordered once the faults end.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_model::{
    AgentMessage, AssignmentsDelta, DesiredState, ManagerMessage, TableVersion, TaskId, TaskState,
    TaskStatus, Timestamp, Welcome,
};

use super::script::{CLUSTER, NODE, config};
use crate::door::{Closed, Effect, Event, Exit, SessionId};
use crate::fake::{Delays, FakeNode, assignment};
use crate::{AgentCore, Link};

struct World {
    random: u64,
    now: Timestamp,
    core: AgentCore,
    node: FakeNode,
    session: Option<SessionId>,
    epoch: u64,
    number: u64,
    desired: BTreeMap<TaskId, DesiredState>,
    reported: BTreeMap<TaskId, TaskStatus>,
    next_task: u128,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Timestamp::from_micros(1);
        let millis = Duration::from_millis;
        let delays = Delays { prepare: millis(5), start: millis(3), stop: millis(20) };
        let mut node = FakeNode::new(delays);
        let core = AgentCore::new(config(), node.restart_agent(), now);
        Self {
            random: seed,
            now,
            core,
            node,
            session: None,
            epoch: 1,
            number: 0,
            desired: BTreeMap::new(),
            reported: BTreeMap::new(),
            next_task: 1,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn batch(&mut self, events: Vec<Event>) {
        let mut effects = Vec::new();
        for event in events.into_iter().chain([Event::Wakeup]) {
            self.core.handle(self.now, event, &mut effects);
        }
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(changes) => self.node.persist(changes),
            Effect::Operate(operation) => self.node.operate(self.now, operation),
            Effect::Connect { session, .. } => self.session = Some(session),
            Effect::Register { registration, .. } => self.hear(registration.statuses),
            Effect::Send { message: AgentMessage::Statuses(statuses), .. } => self.hear(statuses),
            Effect::Send { message: AgentMessage::NeedFull, .. } => self.send(None),
            Effect::Send { .. } => {}
            Effect::Disconnect { .. } => self.session = None,
        }
    }

    /// A manager hears statuses: a state never falls, except that a restarted agent may begin anew with what had not run.
    fn hear(&mut self, statuses: Vec<(TaskId, TaskStatus)>) {
        for (task, status) in statuses {
            let before = self.reported.insert(task, status.clone());
            if let Some(before) = before.filter(|before| before.state >= TaskState::Running) {
                assert!(before.state <= status.state, "{task}: {} after {}", status.state, before.state);
            }
        }
    }

    fn send(&mut self, base: Option<TableVersion>) {
        let Some(session) = self.session else { return };
        self.number += 1;
        let upsert = self.desired.iter().map(|(task, desired)| assignment(*task, *desired)).collect();
        let version = TableVersion { epoch: self.epoch, number: self.number };
        let delta = AssignmentsDelta { base, version, upsert, remove: Vec::new() };
        self.batch(vec![Event::SessionMessage { session, message: ManagerMessage::Assignments(delta) }]);
    }

    fn open(&mut self) {
        let Some(session) = self.session else { return };
        let welcome = ManagerMessage::Welcome(Welcome {
            cluster: CLUSTER,
            node: NODE,
            index: 1,
            gateway_pool: "10.192.0.0/10".parse().unwrap(),
            heartbeat_ms: 1_000,
            role: swarm_model::NodeRole::Worker,
            managers: vec!["m:1".to_owned()],
        });
        self.batch(vec![Event::SessionOpened { session }]);
        self.batch(vec![Event::SessionMessage { session, message: welcome }]);
        self.send(None);
    }

    fn close(&mut self) {
        if let Some(session) = self.session.take() {
            let reason = Closed::Failed("cut".to_owned());
            self.batch(vec![Event::SessionClosed { session, reason }]);
        }
    }

    fn order(&mut self) {
        match self.below(3) {
            0 => {
                self.desired.insert(TaskId::from_u128(self.next_task), DesiredState::Running);
                self.next_task += 1;
            }
            1 => {
                if let Some(desired) = self.any_desired() {
                    *desired = DesiredState::Shutdown;
                }
            }
            _ => {
                let gone = self.any_desired().is_some_and(|desired| *desired == DesiredState::Shutdown);
                if gone {
                    self.desired.retain(|_, desired| *desired != DesiredState::Shutdown);
                }
            }
        }
        let base = TableVersion { epoch: self.epoch, number: self.number };
        // Sometimes from the wrong base.
        let base = if self.below(10) == 0 { TableVersion { number: base.number + 7, ..base } } else { base };
        self.send(Some(base));
    }

    fn any_desired(&mut self) -> Option<&mut DesiredState> {
        let index = self.below(self.desired.len().max(1) as u64) as usize;
        self.desired.values_mut().nth(index)
    }

    /// Time passes until the next thing is due, but not beyond `limit`.
    fn advance(&mut self, limit: Duration) {
        let next = self.node.next_event_at().into_iter().chain(self.core.next_wakeup()).min();
        self.now = next.map_or(self.now + limit, |next| next.max(self.now).min(self.now + limit));
        let events = std::iter::from_fn(|| self.node.pop_due(self.now)).collect();
        self.batch(events);
    }

    fn act(&mut self) {
        match self.below(20) {
            0 => self.close(),
            1 => {
                self.close();
                let recovered =
                    if self.below(4) == 0 { self.node.reboot() } else { self.node.restart_agent() };
                self.core = AgentCore::new(config(), recovered, self.now);
                self.batch(Vec::new());
            }
            2 => {
                let victim = self.node.running().next();
                if let Some(task) = victim {
                    self.node.exit(self.now, task, Exit::Code { code: 1, signal: None, oom: false });
                }
            }
            3 => self.epoch += 1,
            4..=8 => self.order(),
            9..=12 if matches!(self.core.connection().link, Link::Connecting { .. }) => self.open(),
            _ => self.advance(Duration::from_millis(10)),
        }
    }

    /// Without faults, everything comes to rest as ordered.
    fn settle(&mut self) {
        self.close();
        for _ in 0..2_000 {
            self.advance(Duration::from_secs(1));
            if matches!(self.core.connection().link, Link::Connecting { .. }) {
                self.open();
            }
        }
        for (task, desired) in &self.desired {
            let state = self.reported[task].state;
            let ok = if *desired == DesiredState::Running {
                state >= TaskState::Running
            } else {
                state.is_final()
            };
            assert!(ok, "{task} is {state}, {desired} was desired");
        }
        let unwanted: Vec<_> =
            self.node.containers().filter(|task| !self.desired.contains_key(task)).collect();
        assert!(unwanted.is_empty(), "left behind: {unwanted:?}");
        let running: Vec<_> = self.node.running().collect();
        let wanted = |task: &TaskId| {
            self.desired.get(task) == Some(&DesiredState::Running)
                && self.reported[task].state == TaskState::Running
        };
        assert!(running.iter().all(wanted), "running without being wanted: {running:?}");
        assert_eq!(self.core.task_count(), self.desired.len());
    }
}

#[test]
fn under_faults_states_rise_nothing_starts_twice_and_all_comes_to_rest() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.batch(Vec::new());
        for _ in 0..400 {
            world.act();
        }
        world.settle();
    }
}
