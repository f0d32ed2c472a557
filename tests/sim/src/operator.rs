//! A random operator, and the clients' half of the API: requests find the leader, get their answers or never hear of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::{Event, Publication, RequestId};
use swarm_model::{Availability, Id, Image, NodeRole, NodeSpec, Platform, ServiceSpec, Timestamp};

use super::dice::Dice;
use super::history::History;
use super::specs;
use super::world::{Happening, World};

/// Managers that a request is passed on to before it counts as refused.
const HOPS: u32 = 4;

#[derive(Debug)]
pub struct Operator {
    dice: Dice,
    pub history: History,
    pending: BTreeMap<RequestId, Pending>,
    /// Answers that a caller waits for.
    answers: BTreeMap<RequestId, Result<Response, ApiError>>,
    next_request: u64,
    made: u32,
    /// When it last asked for other managers.
    pub roles_changed_at: Timestamp,
    /// Watches of new leaders: what comes with them is not an answer to the operator.
    watches: BTreeMap<RequestId, usize>,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    manager: usize,
    hops: u32,
    /// Somebody waits for the answer.
    awaited: bool,
}

impl Operator {
    pub fn new(dice: Dice) -> Self {
        Self {
            dice,
            history: History::default(),
            pending: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_request: 0,
            made: 0,
            roles_changed_at: Timestamp::ZERO,
            watches: BTreeMap::new(),
        }
    }

    fn draw_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }
}

impl World {
    /// Sends a request to any manager that runs.
    pub fn send(&mut self, request: Request, awaited: bool) -> Option<RequestId> {
        // One that has just joined passes everything on, as its shell does.
        let knows = |manager: &usize| {
            let process = self.managers[*manager].core.as_ref();
            process.is_some_and(|process| process.core.replica().nodes().next().is_some())
        };
        let mut up: Vec<usize> = (0..self.managers.len()).filter(knows).collect();
        if up.is_empty() {
            up.extend((0..self.managers.len()).find(|manager| self.managers[*manager].core.is_some()));
        }
        let manager = match self.leader().filter(|_| self.operator.dice.per_mille(700)) {
            Some(leader) => leader,
            None => *self.operator.dice.pick(&up)?,
        };
        let id = self.operator.draw_request();
        self.operator.history.invoke(id, &request);
        self.operator.pending.insert(id, Pending { request, manager, hops: 0, awaited });
        let after = self.network.latency();
        self.schedule(after, Happening::Ask { manager, id });
        Some(id)
    }

    pub fn ask_manager(&mut self, manager: usize, id: RequestId) {
        let Some(pending) = self.operator.pending.get_mut(&id) else { return };
        if self.managers[manager].core.is_none() {
            return self.refuse(id);
        }
        pending.manager = manager;
        let request = pending.request.clone();
        if let Some(result) = self.tamper_answer(manager, &request) {
            return self.replied(manager, id, result);
        }
        let life = self.managers[manager].life;
        let request = self.tamper_request(request);
        self.tell_manager(manager, life, Event::Request { id, by: None, request });
    }

    /// Nothing was changed.
    fn refuse(&mut self, id: RequestId) {
        self.operator.history.refused(id);
        self.answer(id, Err(ApiError::NotLeader { leader: None }));
    }

    fn answer(&mut self, id: RequestId, result: Result<Response, ApiError>) {
        if self.operator.pending.remove(&id).is_some_and(|pending| pending.awaited) {
            self.operator.answers.insert(id, result);
        }
    }

    pub fn replied(&mut self, manager: usize, id: RequestId, result: Result<Response, ApiError>) {
        if let Some(watched) = self.operator.watches.remove(&id) {
            if let (true, Ok(Response::Snapshot { changes, .. })) = (watched == manager, result) {
                self.checks.seen.apply(changes);
            }
            return;
        }
        let Some(pending) = self.operator.pending.get_mut(&id) else { return };
        if let Err(ApiError::NotLeader { leader: Some(leader) }) = &result
            && pending.hops < HOPS
            && let Some(leader) = self.managers.iter().position(|it| it.is_member && it.raft_id == *leader)
            && self.network.passes(manager, leader)
            && self.network.passes(leader, manager)
        {
            pending.hops += 1;
            let after = self.network.latency();
            return self.schedule(after, Happening::Ask { manager: leader, id });
        }
        let request = pending.request.clone();
        let result = self.tamper_reply(&request, result);
        if let Err(text) = self.operator.history.complete(id, &request, &result) {
            self.violate("history", text);
        }
        self.answer(id, result);
    }

    /// A manager is gone: what it had not answered may or may not be done.
    pub fn operator_lost(&mut self, manager: usize) {
        let lost: Vec<RequestId> = self
            .operator
            .pending
            .iter()
            .filter(|(_, pending)| pending.manager == manager)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if self.tamper_unknown(id) {
                continue;
            }
            self.operator.history.unknown(id);
            self.answer(id, Err(ApiError::Unavailable("connection reset".to_owned())));
        }
    }

    /// For mutations: a removal of unknown outcome is told as done. `true`: it was.
    fn tamper_unknown(&mut self, id: RequestId) -> bool {
        let Some(pending) = self.operator.pending.get(&id) else { return false };
        let (manager, request) = (pending.manager, pending.request.clone());
        let unknown = Err(ApiError::Unavailable("connection reset".to_owned()));
        let told = self.tamper_reply(&request, unknown);
        let is_lie = told.is_ok();
        if is_lie {
            self.replied(manager, id, told);
        }
        is_lie
    }

    /// Follows what a new leader publishes.
    pub fn watch_leader(&mut self, manager: usize) {
        let id = self.operator.draw_request();
        self.operator.watches.insert(id, manager);
        let life = self.managers[manager].life;
        self.tell_manager(
            manager,
            life,
            Event::Request { id, by: None, request: Request::Snapshot { service: None, tasks: true } },
        );
    }

    pub fn published(&mut self, manager: usize, publication: Publication) {
        if self.managers[manager].leads == Some(self.checks.seen.term())
            && let Err(text) = self.checks.seen.follow(publication.changes, self.now)
        {
            self.violate("states rise", text);
        }
    }

    /// Asks until there is an answer of substance.
    pub fn ask(&mut self, limit: Duration, request: &Request) -> Option<Result<Response, ApiError>> {
        let end = self.now + limit;
        while self.now < end && self.violation.is_none() {
            let Some(id) = self.send(request.clone(), true) else {
                self.run_for(Duration::from_millis(20));
                continue;
            };
            self.run_until(Duration::from_secs(5), |world| world.operator.answers.contains_key(&id));
            match self.operator.answers.remove(&id) {
                None | Some(Err(ApiError::NotLeader { .. } | ApiError::Unavailable(_))) => {
                    self.run_for(Duration::from_millis(50));
                }
                Some(answer) => return Some(answer),
            }
        }
        None
    }

    // What the operator does.

    pub fn operate(&mut self) {
        if !self.is_chaos {
            return;
        }
        match self.operator.dice.below(20) {
            0..=3 => self.create_service(),
            4..=8 => self.update_service(),
            9 => self.roll_back(),
            10 => self.remove_service(),
            11 => self.change_node(),
            12..=13 => self.put_image(),
            14..=15 => drop(self.send(Request::ListImages, false)),
            _ => self.read_service(),
        }
        let pause = self.plan.operator_pause.as_micros() as u64;
        let after = self.operator.dice.micros(pause / 4..2 * pause);
        self.schedule(after, Happening::Operate);
    }

    fn create_service(&mut self) {
        if self.truth.services.len() >= 12 {
            return;
        }
        self.operator.made += 1;
        let number = self.operator.made;
        let spec = Arc::new(specs::service(&mut self.operator.dice, number));
        let request_id = Some(Id::from_u128((77 << 64) + u128::from(number)));
        let request = Request::CreateService { spec, request_id };
        // A request may be sent twice: it is the same service.
        let copies = if self.operator.dice.per_mille(100) { 2 } else { 1 };
        for _ in 0..copies {
            self.send(request.clone(), false);
        }
    }

    fn some_service(&mut self) -> Option<(String, u64, Arc<ServiceSpec>)> {
        let services: Vec<_> = self.truth.services.values().collect();
        let service = self.operator.dice.pick(&services)?;
        Some((service.id.to_string(), service.version, service.spec.clone()))
    }

    fn update_service(&mut self) {
        let Some((service, version, spec)) = self.some_service() else { return };
        let mut spec = (*spec).clone();
        specs::change(&mut self.operator.dice, &mut spec);
        // Somebody else may have read it long ago.
        let version = if self.operator.dice.per_mille(80) { version.saturating_sub(1) } else { version };
        self.send(Request::UpdateService { service, version, spec: Arc::new(spec) }, false);
    }

    fn roll_back(&mut self) {
        let Some((service, version, _)) = self.some_service() else { return };
        self.send(Request::RollbackService { service, version, to_revision: None }, false);
    }

    fn remove_service(&mut self) {
        let Some((service, ..)) = self.some_service() else { return };
        self.send(Request::RemoveService { service }, false);
    }

    fn read_service(&mut self) {
        let Some((service, ..)) = self.some_service() else { return };
        self.send(Request::GetService { service }, false);
    }

    fn change_node(&mut self) {
        let nodes: Vec<_> = self.truth.nodes.values().cloned().collect();
        let Some(node) = self.operator.dice.pick(&nodes).cloned() else { return };
        let mut spec = NodeSpec::clone(&node.spec);
        match self.operator.dice.below(12) {
            0..=2 => spec.availability = Availability::Active,
            3 => spec.availability = Availability::Drain,
            4 => spec.availability = Availability::Pause,
            5 => drop(spec.labels.insert("tier".to_owned(), "gold".to_owned())),
            6 => drop(spec.labels.remove("tier")),
            7..=8 if spec.role == NodeRole::Worker => spec.role = NodeRole::Manager,
            7..=9 => spec.role = NodeRole::Worker,
            _ if spec.role == NodeRole::Worker => return self.remove_node(node.id.to_string()),
            _ => return,
        }
        if spec.role != node.spec.role && !self.may_change_roles() {
            return;
        }
        let (node, version) = (node.id.to_string(), node.version);
        self.send(Request::UpdateNode { node, version, spec }, false);
    }

    /// Not while a manager is broken: that one is replaced first.
    fn may_change_roles(&mut self) -> bool {
        let may = !self.has_damage();
        if may {
            self.operator.roles_changed_at = self.now;
        }
        may
    }

    fn remove_node(&mut self, node: String) {
        self.send(Request::RemoveNode { node, force: self.seed.is_multiple_of(2) }, false);
    }

    fn put_image(&mut self) {
        let number = self.operator.dice.number(0..1 << 40);
        let image = Image {
            name: format!("docker.io/library/web:{}", number % 3),
            version: 0,
            created_at: Timestamp::ZERO,
            digest: format!("sha256:{number:064x}"),
            manifest_bytes: 1,
            total_bytes: 1,
            platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
        };
        self.send(Request::PutImage(image), false);
    }
}
