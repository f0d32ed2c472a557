//! What creation, update and rollback make of ports and revisions.

use std::sync::Arc;

use swarm_model::{
    Id, NodeState, PortSpec, Service, ServiceId, ServiceSpec, Timestamp, UpdateState, UpdateStatus,
};

use super::*;
use crate::api::Request;
use crate::members::Council;
use crate::store::tests::{cluster, ingress, spec};
use crate::store::{NewTask, Payload};

struct Bench {
    store: Store,
    reservations: Reservations,
    ids: u128,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { store: Store::default(), reservations: Reservations::default(), ids: 0 };
        bench.apply(vec![Action::CreateCluster(Box::new(cluster()))]);
        bench
    }

    fn apply(&mut self, actions: Vec<Action>) {
        let index = self.store.applied() + 1;
        let applied =
            self.store.apply(index, Payload { at: Timestamp::from_micros(index), by: None, actions });
        assert_eq!(applied.errors, []);
    }

    fn admit(&mut self, request: Request) -> Result<Verdict, ApiError> {
        let ids = &mut self.ids;
        let mut desk = Desk {
            store: &self.store,
            now: Timestamp::from_micros(5),
            by: None,
            node_state: &|_| NodeState::Ready,
            council: &Council::default(),
            reservations: &self.reservations,
            draw_id: &mut || {
                *ids += 1;
                Id::from_u128(*ids)
            },
        };
        desk.admit(request)
    }

    fn propose(&mut self, request: Request) -> Admitted {
        match self.admit(request) {
            Ok(Verdict::Propose(admitted)) => admitted,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, spec: ServiceSpec) -> Arc<Service> {
        let admitted = self.propose(Request::CreateService { spec: Arc::new(spec), request_id: None });
        self.apply(admitted.actions);
        self.service()
    }

    fn service(&self) -> Arc<Service> {
        self.store.services().last().expect("there is one").clone()
    }

    fn update(&mut self, spec: ServiceSpec) -> Arc<Service> {
        let version = self.service().version;
        let service = spec.name.clone();
        let admitted = self.propose(Request::UpdateService { service, version, spec: Arc::new(spec) });
        self.apply(admitted.actions);
        self.service()
    }

    fn task(&mut self, service: ServiceId, revision: u64) {
        self.ids += 1;
        self.apply(vec![Action::CreateTask(NewTask {
            id: swarm_model::TaskId::from_u128(self.ids),
            service,
            slot: 1,
            revision,
            desired: swarm_model::DesiredState::Running,
            place: None,
            not_before: None,
            restarts: 0,
        })]);
    }
}

fn automatic() -> PortSpec {
    PortSpec { published: None, ..ingress(1) }
}

fn published(service: &Service) -> Vec<u16> {
    service.ports.iter().filter_map(|port| port.published).collect()
}

#[test]
fn automatic_ports_avoid_what_is_taken_or_about_to_be() {
    let mut bench = Bench::new();
    let mut first = spec("first");
    first.ports = vec![automatic(), ingress(30_001), PortSpec { target: 81, ..automatic() }];
    assert_eq!(published(&bench.create(first)), [30_000, 30_001, 30_002]);
    let held = Reserved {
        ports: vec![swarm_model::HostPort { protocol: swarm_model::Protocol::Tcp, published: 30_003 }],
        node_index: None,
    };
    bench.reservations.hold(&held);
    let mut second = spec("second");
    second.ports = vec![automatic()];
    let admitted = bench.propose(Request::CreateService { spec: Arc::new(second), request_id: None });
    assert_eq!(admitted.reserved.ports[0].published, 30_004);
}

#[test]
fn an_update_keeps_automatic_ports() {
    let mut bench = Bench::new();
    let mut web = spec("web");
    web.ports = vec![automatic()];
    bench.create(web.clone());
    web.ports.push(ingress(80));
    web.task.container.image.name = "web:2".to_owned();
    let service = bench.update(web);
    assert_eq!(published(&service), [30_000, 80]);
}

#[test]
fn the_revision_rises_exactly_when_tasks_are_replaced() {
    let mut bench = Bench::new();
    let web = spec("web");
    let service = bench.create(web.clone());
    bench.task(service.id, 1);
    let mut scaled = web.clone();
    scaled.mode = swarm_model::ServiceMode::Replicated { replicas: 4 };
    let service = bench.update(scaled.clone());
    assert_eq!((service.revision, service.update.is_none()), (1, true));
    let mut newer = scaled.clone();
    newer.task.force_update = 1;
    let service = bench.update(newer);
    let update = service.update.clone().expect("tasks exist");
    assert_eq!((service.revision, update.state, update.from_revision), (2, UpdateState::Updating, 1));
    let service = bench.update(scaled);
    let update = service.update.clone().expect("tasks exist");
    assert_eq!((service.revision, update.state, update.from_revision), (3, UpdateState::Updating, 1));
    let mut on_host = (*service.spec).clone();
    on_host.ports = vec![PortSpec { mode: swarm_model::PortMode::Host, ..ingress(443) }];
    assert_eq!(bench.update(on_host).revision, 4);
}

#[test]
fn a_paused_update_goes_on_with_a_fresh_beginning() {
    let mut bench = Bench::new();
    let mut web = spec("web");
    let service = bench.create(web.clone());
    bench.task(service.id, 1);
    web.task.force_update = 1;
    let service = bench.update(web.clone());
    let update = service.update.clone().expect("tasks exist");
    let paused = UpdateStatus { state: UpdateState::Paused, started_at: Timestamp::from_micros(1), ..update };
    bench.apply(vec![Action::SetUpdateStatus { service: service.id, revision: 2, update: paused.clone() }]);
    web.update.parallelism = 3;
    let update = bench.update(web).update.clone().expect("it goes on");
    assert_eq!((update.state, update.to_revision), (UpdateState::Updating, 2));
    assert!(update.started_at > paused.started_at);
}

#[test]
fn a_rollback_returns_to_the_spec_but_keeps_the_number_of_replicas() {
    let mut bench = Bench::new();
    let web = spec("web");
    bench.create(web.clone());
    let mut newer = web.clone();
    newer.task.container.image.name = "web:2".to_owned();
    newer.mode = swarm_model::ServiceMode::Replicated { replicas: 9 };
    let version = bench.update(newer).version;
    let request = Request::RollbackService { service: "web".to_owned(), version, to_revision: None };
    let admitted = bench.propose(request);
    bench.apply(admitted.actions);
    let service = bench.service();
    assert_eq!(service.revision, 3);
    assert_eq!(service.spec.task, web.task);
    assert_eq!(service.replicas(), 9);
}

#[test]
fn immutable_and_oversized_things_are_refused() {
    let mut bench = Bench::new();
    let service = bench.create(spec("web"));
    let refuse = |bench: &mut Bench, request: Request, expect: &str| {
        let error = bench.admit(request).map(|_| ()).unwrap_err();
        let shown = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        assert!(shown.contains(expect), "{shown}");
    };
    let update = |spec: ServiceSpec| Request::UpdateService {
        service: service.id.to_string(),
        version: service.version,
        spec: Arc::new(spec),
    };
    refuse(&mut bench, update(spec("other")), "keeps its name");
    let mut large = spec("web");
    large.task.container.env = vec![format!("A={}", "x".repeat(1 << 20))];
    refuse(&mut bench, update(large), "at most 1048576 is allowed");
    let mut many = spec("web");
    many.mode = swarm_model::ServiceMode::Replicated { replicas: 1_000_001 };
    refuse(&mut bench, update(many), "number of tasks wanted");
    let reused = Request::CreateService { spec: Arc::new(spec("third")), request_id: Some(service.id.0) };
    refuse(&mut bench, reused, "was used for service \"web\"");
}
