//! The way of a service on a healthy cluster, and what single failures do to it.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{ApiError, Request, Response, ServiceView};
use swarm_model::{Availability, PortMode, Protocol, ServiceSpec, UpdateState};

use crate::sim::{World, specs};

fn create(world: &mut World, spec: &ServiceSpec) -> ServiceView {
    match world.ask(Request::CreateService { spec: Arc::new(spec.clone()), request_id: None }) {
        Ok(Response::Service(view)) => view,
        other => panic!("create: {other:?}"),
    }
}

fn get(world: &mut World, name: &str) -> ServiceView {
    match world.ask(Request::GetService { service: name.to_owned() }) {
        Ok(Response::Service(view)) => view,
        other => panic!("get: {other:?}"),
    }
}

fn update(world: &mut World, name: &str, spec: Arc<ServiceSpec>) -> ServiceView {
    let version = get(world, name).service.version;
    match world.ask(Request::UpdateService { service: name.to_owned(), version, spec }) {
        Ok(Response::Service(view)) => view,
        other => panic!("update: {other:?}"),
    }
}

#[test]
fn three_replicas_run_on_three_nodes_within_two_log_entries() {
    let mut world = World::with_agents(1, 1, 3);
    world.run_for(Duration::from_secs(1));
    let before = world.entries_written;
    create(&mut world, &specs::service("web", 3));
    let took = world.wait_running("web", 3);
    assert!(took < Duration::from_millis(60), "{took:?}");
    assert_eq!(world.hosts("web").len(), 3);
    assert_eq!(world.entries_written - before, 2, "one for the service, one for its tasks");
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.entries_written - before, 2, "a settled service writes nothing");
    assert_eq!(get(&mut world, "web").running, 3);
}

#[test]
fn scaling_adds_and_removes_tasks_and_leaves_nothing_behind() {
    let mut world = World::with_agents(2, 1, 3);
    let spec = specs::service("web", 2);
    create(&mut world, &spec);
    world.wait_running("web", 2);
    update(&mut world, "web", specs::with_replicas(&spec, 7));
    world.wait_running("web", 7);
    update(&mut world, "web", specs::with_replicas(&spec, 1));
    world.run_until("one task is left", |world| world.tasks("web").len() == 1);
    world.ask(Request::RemoveService { service: "web".to_owned() }).unwrap();
    world
        .run_until("every agent is empty", |world| world.agents.iter().all(|agent| agent.tasks().is_empty()));
    world.run_until("no task is left", |world| world.mirror.tasks.is_empty());
    let missing = world.ask(Request::GetService { service: "web".to_owned() });
    assert!(matches!(missing, Err(ApiError::NotFound { .. })), "{missing:?}");
}

#[test]
fn the_name_of_a_removed_service_is_free_at_once() {
    let mut world = World::with_agents(3, 1, 1);
    let mut spec = specs::service("web", 1);
    spec.ports = vec![specs::port(Some(8080), PortMode::Ingress)];
    let first = create(&mut world, &spec);
    world.wait_running("web", 1);
    world.ask(Request::RemoveService { service: "web".to_owned() }).unwrap();
    let second = create(&mut world, &spec);
    assert_ne!(first.service.id, second.service.id);
    world.wait_running("web", 1);
    world.run_until("the old task is gone", |world| world.mirror.tasks.len() == 1);
}

#[test]
fn an_update_replaces_every_task_and_completes() {
    let mut world = World::with_agents(4, 1, 3);
    let spec = specs::service("web", 3);
    create(&mut world, &spec);
    world.wait_running("web", 3);
    let view = update(&mut world, "web", specs::with_image(&spec, "2"));
    assert_eq!(view.service.revision, 2);
    assert_eq!(view.service.update.as_ref().map(|update| update.state), Some(UpdateState::Updating));
    world.run_until("the update is complete", |world| {
        let update = get(world, "web").service.update.clone();
        update.is_some_and(|update| update.state == UpdateState::Completed)
    });
    let running = world.running("web");
    assert_eq!(running.len(), 3);
    assert!(running.iter().all(|view| view.task.revision == 2));
}

#[test]
fn an_update_that_fails_rolls_back_to_what_worked() {
    let mut world = World::with_agents(5, 1, 3);
    let spec = specs::service("web", 3);
    create(&mut world, &spec);
    world.wait_running("web", 3);
    for agent in &mut world.agents {
        agent.fails = Some("cannot start");
    }
    update(&mut world, "web", specs::with_image(&spec, "bad"));
    world.run_until("the first new task has failed", |world| {
        world.tasks("web").iter().any(|view| view.task.outcome.is_some())
    });
    for agent in &mut world.agents {
        agent.fails = None;
    }
    world.run_until("the rollback is complete", |world| {
        let update = get(world, "web").service.update.clone();
        update.is_some_and(|update| update.state == UpdateState::RollbackCompleted)
    });
    world.wait_running("web", 3);
    assert_eq!(get(&mut world, "web").service.spec.task, spec.task);
}

#[test]
fn a_task_that_crashes_is_replaced_after_its_delay() {
    let mut world = World::with_agents(6, 1, 2);
    create(&mut world, &specs::service("web", 2));
    world.wait_running("web", 2);
    let task = world.running("web")[0].task.clone();
    let agent = world.agents.iter().position(|agent| Some(agent.node) == task.node).unwrap();
    world.agents[agent].end(task.id, 1);
    world.run_until("the crash is noted", |world| {
        world.tasks("web").iter().any(|view| view.task.id == task.id && view.task.outcome.is_some())
    });
    let took = world.wait_running("web", 2);
    assert!(took < Duration::from_secs(1), "{took:?}");
    let slots: Vec<u32> = world.running("web").iter().map(|view| view.task.slot).collect();
    assert!(slots.contains(&1) && slots.contains(&2));
}

#[test]
fn tasks_of_a_vanished_host_run_elsewhere_within_five_seconds() {
    let mut world = World::with_agents(7, 1, 3);
    create(&mut world, &specs::service("web", 6));
    world.wait_running("web", 6);
    world.run_for(Duration::from_millis(700));
    world.vanish(2);
    let lost = world.agents[2].node;
    let took = world.run_until("six tasks run on the other two", |world| {
        let running = world.running("web");
        running.len() == 6 && running.iter().all(|view| view.task.node != Some(lost))
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(took > Duration::from_secs(2), "a node is not down before it missed three beats: {took:?}");
}

#[test]
fn a_restarted_agent_moves_nothing() {
    let mut world = World::with_agents(8, 1, 3);
    create(&mut world, &specs::service("web", 6));
    world.wait_running("web", 6);
    let before: Vec<_> = world.running("web").iter().map(|view| view.task.id).collect();
    let written = world.entries_written;
    for agent in 0..3 {
        world.restart_agent(agent);
        world.run_for(Duration::from_millis(500));
    }
    world.run_for(Duration::from_secs(10));
    let after: Vec<_> = world.running("web").iter().map(|view| view.task.id).collect();
    assert_eq!(before, after);
    assert_eq!(world.entries_written, written);
}

/// The plan that puts tasks there is proposed before the drain is applied, and applied behind it.
#[test]
fn a_node_that_is_drained_while_tasks_are_on_their_way_there_ends_with_none() {
    for delay in 0..100 {
        let mut world = World::with_agents(9, 1, 3);
        let node = world.nodes()[1].node.clone();
        let mut spec = node.spec.clone();
        spec.availability = Availability::Drain;
        let web = Arc::new(specs::service("web", 6));
        world.send(Request::CreateService { spec: web, request_id: None });
        world.run_for(Duration::from_micros(delay * 10));
        world.send(Request::UpdateNode { node: "host-1".to_owned(), version: node.version, spec });
        world.run_for(Duration::from_secs(3));
        let running = world.running("web");
        assert_eq!(running.len(), 6, "after {delay}");
        assert!(running.iter().all(|view| view.task.node != Some(node.id)), "after {delay}");
    }
}

#[test]
fn a_drained_node_ends_with_no_task() {
    let mut world = World::with_agents(9, 1, 3);
    create(&mut world, &specs::service("web", 6));
    world.wait_running("web", 6);
    let node = world.nodes()[1].node.clone();
    let mut spec = node.spec.clone();
    spec.availability = Availability::Drain;
    world.ask(Request::UpdateNode { node: "host-1".to_owned(), version: node.version, spec }).unwrap();
    let took = world.run_until("the node is empty and all run", |world| {
        world.running("web").len() == 6
            && world.running("web").iter().all(|view| view.task.node != Some(node.id))
    });
    assert!(took < Duration::from_secs(1), "it hangs on no timer: {took:?}");
    world.run_until("its agent has stopped all", |world| {
        world.agents[1].tasks().values().all(|held| held.state.is_final())
    });
}

#[test]
fn what_does_not_fit_waits_with_a_reason_and_is_placed_when_it_fits() {
    let mut world = World::with_agents(10, 1, 2);
    let mut spec = specs::service("big", 3);
    spec.task.reservations.memory_bytes = 5 << 30;
    create(&mut world, &spec);
    world.wait_running("big", 2);
    let waiting = world.tasks("big").into_iter().find(|view| view.task.node.is_none()).unwrap();
    assert!(!waiting.status.message.is_empty(), "{waiting:?}");
    world.join(2);
    world.wait_running("big", 3);
}

#[test]
fn host_ports_are_never_given_twice() {
    let mut world = World::with_agents(11, 1, 2);
    let mut spec = specs::service("edge", 3);
    spec.ports = vec![specs::port(Some(443), PortMode::Host)];
    create(&mut world, &spec);
    world.wait_running("edge", 2);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.running("edge").len(), 2);
    assert_eq!(world.hosts("edge").len(), 2);
}

#[test]
fn the_mesh_names_what_runs_on_every_node() {
    let mut world = World::with_agents(12, 1, 3);
    let mut spec = specs::service("web", 3);
    spec.ports = vec![specs::port(None, PortMode::Ingress)];
    let view = create(&mut world, &spec);
    let published = view.service.ports[0].published.unwrap();
    assert_eq!(published, 30_000);
    world.wait_running("web", 3);
    let expected: Vec<_> = {
        let mut it: Vec<_> = world.running("web").iter().map(|view| view.task.address.unwrap()).collect();
        it.sort();
        it
    };
    world.run_until("every agent has the three backends", |world| {
        world.agents.iter().all(|agent| {
            let backends = agent.mesh.get(&(Protocol::Tcp, published)).cloned().unwrap_or_default();
            backends.iter().map(|backend| *backend.ip()).collect::<Vec<_>>() == expected
                && backends.iter().all(|backend| backend.port() == 80)
                && agent.mesh_nodes.len() == 3
        })
    });
    world.ask(Request::RemoveService { service: "web".to_owned() }).unwrap();
    world.run_until("the port is gone", |world| world.agents.iter().all(|agent| agent.mesh.is_empty()));
    assert!(world.agents.iter().all(|agent| agent.gaps == 0));
}

#[test]
fn a_stop_waits_for_the_mesh_but_not_for_a_deaf_agent() {
    let mut world = World::with_agents(13, 1, 2);
    let mut spec = specs::service("web", 2);
    spec.ports = vec![specs::port(Some(80), PortMode::Ingress)];
    create(&mut world, &spec);
    world.wait_running("web", 2);
    world.run_for(Duration::from_secs(1));
    world.agents[1].is_deaf = true;
    let start = world.now;
    update(&mut world, "web", specs::with_replicas(&spec, 1));
    world.run_until("one task was told to stop", |world| {
        world.agents.iter().map(|agent| agent.stops.len()).sum::<usize>() == 1
    });
    let waited = world.now.since(start);
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_millis(2_300), "{waited:?}");
}

#[test]
fn refusals_name_what_is_wrong_and_change_nothing() {
    let mut world = World::with_agents(14, 1, 1);
    let mut spec = specs::service("web", 1);
    spec.ports = vec![specs::port(Some(8080), PortMode::Ingress)];
    let view = create(&mut world, &spec);
    let refuse = |world: &mut World, request: Request, expect: &str| {
        let error = world.ask(request).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    let again = Request::CreateService { spec: Arc::new(spec.clone()), request_id: None };
    refuse(&mut world, again, "the name \"web\" is taken by service");
    let mut other = spec.clone();
    other.name = "other".to_owned();
    let other = Request::CreateService { spec: Arc::new(other), request_id: None };
    refuse(&mut world, other, "published port 8080/tcp is taken by service \"web\"");
    refuse(&mut world, Request::GetService { service: "wbe".to_owned() }, "did you mean web?");
    let stale =
        Request::UpdateService { service: "web".to_owned(), version: 1, spec: view.service.spec.clone() };
    refuse(&mut world, stale, "update out of sequence");
    refuse(&mut world, Request::RemoveNode { node: "host-0".to_owned(), force: true }, "last manager");
    let rollback = Request::RollbackService {
        service: "web".to_owned(),
        version: view.service.version,
        to_revision: Some(9),
    };
    refuse(&mut world, rollback, "cannot return to revision 9");
    refuse(&mut world, Request::GetTask { task: "web.4".to_owned() }, "no task is called \"web.4\"");
}

#[test]
fn a_repeated_creation_answers_the_same_service() {
    let mut world = World::with_agents(15, 1, 1);
    let request_id = Some(swarm_model::Id::from_u128(77));
    let spec = Arc::new(specs::service("web", 1));
    let mut ids = Vec::new();
    for _ in 0..2 {
        match world.ask(Request::CreateService { spec: spec.clone(), request_id }) {
            Ok(Response::Service(view)) => ids.push(view.service.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(world.mirror.services.len(), 1);
}

#[test]
fn a_creation_that_arrives_again_after_the_removal_makes_nothing() {
    let mut world = World::with_agents(15, 1, 1);
    let spec = Arc::new(specs::service("web", 1));
    let create = Request::CreateService { spec, request_id: Some(swarm_model::Id::from_u128(77)) };
    world.ask(create.clone()).unwrap();
    world.wait_running("web", 1);
    world.ask(Request::RemoveService { service: "web".to_owned() }).unwrap();
    world.run_until("its task is gone", |world| world.mirror.tasks.is_empty());
    let refused = world.ask(create).unwrap_err();
    assert!(refused.to_string().contains("removed"), "{refused}");
    assert!(world.mirror.services.is_empty());
}

#[test]
fn a_removed_node_is_refused_and_its_tasks_run_elsewhere() {
    let mut world = World::with_agents(16, 1, 3);
    create(&mut world, &specs::service("web", 3));
    world.wait_running("web", 3);
    let node = world.agents[2].node;
    let refused = world.ask(Request::RemoveNode { node: "host-2".to_owned(), force: false });
    assert!(refused.is_err_and(|error| error.to_string().contains("is not down")));
    world.ask(Request::RemoveNode { node: "host-2".to_owned(), force: true }).unwrap();
    world.run_until("three run on the other two", |world| {
        let running = world.running("web");
        running.len() == 3 && running.iter().all(|view| view.task.node != Some(node))
    });
}

#[test]
fn a_thousand_replicas_on_a_hundred_nodes_cost_one_entry() {
    let mut world = World::with_agents(17, 1, 100);
    world.run_for(Duration::from_secs(1));
    let before = world.entries_written;
    let mut spec = specs::service("web", 1_000);
    spec.ports = vec![specs::port(Some(80), PortMode::Ingress)];
    create(&mut world, &spec);
    let took = world.run_until("all run", |world| get(world, "web").running == 1_000);
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(world.entries_written - before, 2);
    world.run_until("all agents know all backends", |world| {
        world.agents.iter().all(|agent| agent.mesh.get(&(Protocol::Tcp, 80)).map(Vec::len) == Some(1_000))
    });
}

#[test]
fn a_host_that_comes_back_after_a_reboot_runs_nothing_twice() {
    let mut world = World::with_agents(18, 1, 3);
    create(&mut world, &specs::service("web", 6));
    world.wait_running("web", 6);
    world.vanish(2);
    let lost = world.agents[2].node;
    world.run_until("six tasks run on the other two", |world| {
        let running = world.running("web");
        running.len() == 6 && running.iter().all(|view| view.task.node != Some(lost))
    });
    world.revive(2);
    world.run_until("the node is ready", |world| {
        world.nodes().iter().all(|view| view.state == swarm_model::NodeState::Ready)
    });
    world.run_until("its old tasks have ended", |world| {
        world
            .tasks("web")
            .iter()
            .filter(|view| view.task.node == Some(lost))
            .all(|view| view.task.outcome.is_some())
    });
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.running("web").len(), 6);
    assert!(world.agents[2].tasks().values().all(|held| held.state.is_final()));
}

#[test]
fn a_host_that_reboots_within_its_grace_has_its_tasks_replaced() {
    let mut world = World::with_agents(19, 1, 2);
    create(&mut world, &specs::service("web", 4));
    world.wait_running("web", 4);
    world.vanish(1);
    world.run_for(Duration::from_millis(500));
    world.revive(1);
    world.run_until("the loss is noted", |world| {
        world.tasks("web").iter().filter(|view| view.task.outcome.is_some()).count() == 2
    });
    let took = world.wait_running("web", 4);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_watcher_that_follows_publications_sees_what_a_new_one_is_told() {
    let mut world = World::with_agents(20, 1, 3);
    let spec = specs::service("web", 4);
    create(&mut world, &spec);
    world.wait_running("web", 4);
    update(&mut world, "web", specs::with_replicas(&spec, 2));
    world.wait_running("web", 2);
    world.run_until("two tasks are left", |world| world.mirror.tasks.len() == 2);
    let mut fresh = crate::checks::Mirror::default();
    world.snapshot().into_iter().for_each(|change| fresh.apply(change));
    let tasks = |mirror: &crate::checks::Mirror| -> Vec<_> {
        mirror
            .tasks
            .values()
            .map(|view| (view.task.clone(), view.status.clone(), view.node_hostname.clone()))
            .collect()
    };
    assert_eq!(tasks(&fresh), tasks(&world.mirror));
    assert_eq!(fresh.services, world.mirror.services);
    let states = |mirror: &crate::checks::Mirror| -> Vec<_> {
        mirror.nodes.values().map(|view| (view.node.id, view.state, view.message.clone())).collect()
    };
    assert_eq!(states(&fresh), states(&world.mirror));
}

#[test]
fn a_paused_node_keeps_its_tasks_and_gets_no_others() {
    let mut world = World::with_agents(41, 1, 2);
    let spec = specs::service("web", 2);
    create(&mut world, &spec);
    world.wait_running("web", 2);
    let node = world.nodes()[1].node.clone();
    let mut paused = node.spec.clone();
    paused.availability = Availability::Pause;
    world
        .ask(Request::UpdateNode { node: node.id.to_string(), version: node.version, spec: paused })
        .unwrap();
    update(&mut world, "web", specs::with_replicas(&spec, 6));
    world.wait_running("web", 6);
    let there = world.running("web").iter().filter(|view| view.task.node == Some(node.id)).count();
    assert_eq!(there, 1);
}

#[test]
fn a_label_that_goes_moves_the_tasks_that_need_it() {
    let mut world = World::with_agents(42, 1, 3);
    let label = |world: &mut World, host: &str, zone: Option<&str>| {
        let view = world.nodes().into_iter().find(|view| view.node.engine.hostname == host).unwrap();
        let mut spec = view.node.spec.clone();
        spec.labels = zone.map(|zone| ("zone".to_owned(), zone.to_owned())).into_iter().collect();
        world.ask(Request::UpdateNode { node: host.to_owned(), version: view.node.version, spec }).unwrap();
        view.node.id
    };
    let first = label(&mut world, "host-1", Some("a"));
    let mut spec = specs::service("web", 2);
    spec.task.placement.constraints = vec![swarm_model::Constraint::parse("node.labels.zone==a").unwrap()];
    create(&mut world, &spec);
    world.wait_running("web", 2);
    assert_eq!(world.hosts("web").into_iter().collect::<Vec<_>>(), [first]);
    let second = label(&mut world, "host-2", Some("a"));
    label(&mut world, "host-1", None);
    world.run_until("both tasks run on the other node", |world| {
        world.running("web").len() == 2 && world.hosts("web").into_iter().collect::<Vec<_>>() == [second]
    });
}
