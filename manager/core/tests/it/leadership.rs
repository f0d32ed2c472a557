//! Three managers: the leader dies, is cut off, comes back.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{ApiError, Request, Response};

use crate::checks;
use crate::sim::{World, specs};

fn settle_and_compare(world: &mut World) {
    world.run_for(Duration::from_secs(2));
    checks::equal_stores(world);
}

#[test]
fn a_new_leader_goes_on_and_moves_nothing() {
    for seed in 200..210 {
        let mut world = World::with_agents(seed, 3, 3);
        let spec = Arc::new(specs::service("web", 6));
        world.ask(Request::CreateService { spec, request_id: None }).unwrap();
        world.wait_running("web", 6);
        let before: Vec<_> = world.running("web").iter().map(|view| view.task.id).collect();
        let old = world.leader().unwrap();
        world.crash(old);
        let took =
            world.run_until("another manager leads", |world| world.leader().is_some_and(|it| it != old));
        assert!(took < Duration::from_secs(1), "seed {seed}: {took:?}");
        let spec = Arc::new(specs::service("second", 2));
        world.ask(Request::CreateService { spec, request_id: None }).unwrap();
        world.wait_running("second", 2);
        world.wait_running("web", 6);
        let after: Vec<_> = world.running("web").iter().map(|view| view.task.id).collect();
        assert_eq!(before, after, "seed {seed}");
        world.start(old);
        settle_and_compare(&mut world);
    }
}

/// All followers notice at nearly the same moment; if all asked for votes then, none would win before an election timeout.
#[test]
fn the_heirs_of_a_crashed_leader_do_not_split_their_votes() {
    for (seed, managers) in (300..340).zip([3, 5].into_iter().cycle()) {
        let mut world = World::with_agents(seed, managers, 1);
        let spec = Arc::new(specs::service("web", 3));
        world.send(Request::CreateService { spec, request_id: None });
        // One of them may have more of the log.
        let pause = Duration::from_micros(world.random(0..1_500));
        world.run_for(pause);
        let old = world.leader().unwrap();
        world.crash(old);
        let took =
            world.run_until("another manager leads", |world| world.leader().is_some_and(|it| it != old));
        assert!(took < Duration::from_millis(400), "seed {seed}: {took:?}");
        settle_and_compare(&mut world);
    }
}

#[test]
fn a_leader_that_is_cut_off_steps_down_and_answers_that_the_outcome_is_unknown() {
    let mut world = World::with_agents(220, 3, 2);
    let old = world.leader().unwrap();
    world.managers[old].is_cut = true;
    let request = Request::CreateService { spec: Arc::new(specs::service("web", 1)), request_id: None };
    let id = world.send_to(old, request);
    world.run_until("another manager leads", |world| world.leader().is_some_and(|it| it != old));
    let mut reply = None;
    world.run_until("the old leader has answered", |world| {
        reply = reply.take().or_else(|| world.take_reply(id));
        reply.is_some()
    });
    let error = reply.unwrap().unwrap_err().to_string();
    assert!(error.contains("the outcome is unknown"), "{error}");
    world.managers[old].is_cut = false;
    settle_and_compare(&mut world);
}

/// What it does not find may have been made by its successor.
#[test]
fn a_leader_that_is_cut_off_refuses_nothing_by_what_it_believes() {
    let mut world = World::with_agents(221, 3, 2);
    let old = world.leader().unwrap();
    world.managers[old].is_cut = true;
    let id = world.send_to(old, Request::RemoveService { service: "web".to_owned() });
    let mut reply = None;
    world.run_until("the old leader has answered", |world| {
        reply = reply.take().or_else(|| world.take_reply(id));
        reply.is_some()
    });
    let error = reply.unwrap().unwrap_err();
    assert!(matches!(error, ApiError::NotLeader { .. }), "{error}");
    world.managers[old].is_cut = false;
    let refused = world.ask(Request::RemoveService { service: "web".to_owned() });
    assert!(refused.is_err_and(|error| matches!(error, ApiError::NotFound { .. })));
    settle_and_compare(&mut world);
}

/// Leaders die at arbitrary moments of a busy cluster.
#[test]
fn acknowledged_services_survive_a_series_of_leaders() {
    for seed in 240..256 {
        let mut world = World::with_agents(seed, 3, 3);
        let mut acknowledged = Vec::new();
        for round in 0..4 {
            let mut asked = Vec::new();
            for number in 0..4 {
                let name = format!("s{round}-{number}");
                let spec = Arc::new(specs::service(&name, 2));
                asked.push((world.send(Request::CreateService { spec, request_id: None }), name));
                let pause = Duration::from_micros(world.random(0..1_500));
                world.run_for(pause);
            }
            let old = world.leader().unwrap_or(0);
            world.crash(old);
            world.run_until("there is a leader", |world| world.leader().is_some());
            world.start(old);
            for (id, name) in asked {
                if let Some(Ok(Response::Service(view))) = world.take_reply(id) {
                    acknowledged.push((name, view.service.id));
                }
            }
        }
        for (name, id) in &acknowledged {
            match world.ask(Request::GetService { service: name.clone() }) {
                Ok(Response::Service(view)) => assert_eq!(view.service.id, *id),
                other => panic!("seed {seed}: {name}: {other:?}\n{}", world.story()),
            }
            world.wait_running(name, 2);
        }
        settle_and_compare(&mut world);
    }
}

#[test]
fn a_manager_that_was_away_for_long_catches_up_from_a_snapshot() {
    let mut world = World::with_agents(260, 3, 1);
    let away = (world.leader().unwrap() + 1) % 3;
    world.crash(away);
    let spec = specs::service("web", 1);
    world.ask(Request::CreateService { spec: Arc::new(spec.clone()), request_id: None }).unwrap();
    for round in 0..1_800u32 {
        let Ok(Response::Service(view)) = world.ask(Request::GetService { service: "web".to_owned() }) else {
            panic!("the service is there")
        };
        let spec = specs::with_replicas(&spec, 1 + round % 2);
        let request =
            Request::UpdateService { service: "web".to_owned(), version: view.service.version, spec };
        world.ask(request).unwrap();
    }
    world.start(away);
    settle_and_compare(&mut world);
    let applied: Vec<u64> =
        world.managers.iter().map(|manager| manager.core.as_ref().unwrap().fingerprint().0).collect();
    assert_eq!(applied[0], applied[1]);
    assert_eq!(applied[1], applied[2]);
    world.crash(away);
    world.start(away);
    settle_and_compare(&mut world);
}
