//! One manager that is killed, with its disk kept: nothing acknowledged is lost, and nothing moves.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{Request, Response};

use crate::sim::{World, specs};

#[test]
fn a_restarted_manager_knows_everything_and_moves_nothing() {
    let mut world = World::with_agents(21, 1, 3);
    let spec = Arc::new(specs::service("web", 6));
    world.ask(Request::CreateService { spec, request_id: None }).unwrap();
    world.wait_running("web", 6);
    let before: Vec<_> = world.running("web").iter().map(|view| view.task.id).collect();
    world.crash(0);
    world.run_for(Duration::from_millis(200));
    world.start(0);
    let took = world.run_until("it leads", |world| world.leader().is_some());
    assert!(took < Duration::from_millis(20), "a single manager need not wait for an election: {took:?}");
    world.wait_running("web", 6);
    world.run_for(Duration::from_secs(10));
    let after: Vec<_> = world.running("web").iter().map(|view| view.task.id).collect();
    assert_eq!(before, after);
}

#[test]
fn a_node_that_does_not_come_back_after_a_restart_is_down_after_its_grace_period() {
    let mut world = World::with_agents(22, 1, 3);
    let spec = Arc::new(specs::service("web", 3));
    world.ask(Request::CreateService { spec, request_id: None }).unwrap();
    world.wait_running("web", 3);
    world.crash(0);
    world.vanish(1);
    world.start(0);
    world.run_until("it leads", |world| world.leader().is_some());
    world.run_for(Duration::from_secs(2));
    let lost = world.agents[1].node;
    assert!(
        world.tasks("web").iter().filter(|view| view.task.is_live()).count() == 3,
        "nothing is decided yet"
    );
    world.run_until("three run on the other two", |world| {
        let running = world.running("web");
        running.len() == 3 && running.iter().all(|view| view.task.node != Some(lost))
    });
}

/// Crashes at arbitrary moments, with arbitrary parts of the unsynced writes kept: every acknowledged service is there.
#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    for seed in 100..140 {
        let mut world = World::with_agents(seed, 1, 2);
        let mut acknowledged = Vec::new();
        for round in 0..6 {
            let mut asked = Vec::new();
            for number in 0..5 {
                let name = format!("s{round}-{number}");
                let spec = Arc::new(specs::service(&name, 1));
                asked.push((world.send(Request::CreateService { spec, request_id: None }), name));
                let pause = Duration::from_micros(world.random(0..800));
                world.run_for(pause);
            }
            world.crash(0);
            for (id, name) in asked {
                if let Some(Ok(Response::Service(view))) = world.take_reply(id) {
                    acknowledged.push((name, view.service.id));
                }
            }
            world.start(0);
            world.run_until("it leads again", |world| world.leader().is_some());
        }
        for (name, id) in &acknowledged {
            match world.ask(Request::GetService { service: name.clone() }) {
                Ok(Response::Service(view)) => assert_eq!(view.service.id, *id),
                other => panic!("seed {seed}: {name} was acknowledged: {other:?}\n{}", world.story()),
            }
        }
        for (name, _) in &acknowledged {
            world.wait_running(name, 1);
        }
        assert!(acknowledged.len() > 5, "seed {seed}: only {} acknowledged", acknowledged.len());
    }
}

#[test]
fn a_long_history_is_cut_and_recovered_from_the_checkpoint() {
    let mut world = World::with_agents(23, 1, 1);
    let spec = specs::service("web", 1);
    world.ask(Request::CreateService { spec: Arc::new(spec.clone()), request_id: None }).unwrap();
    for round in 0..1_600u32 {
        let Ok(Response::Service(view)) = world.ask(Request::GetService { service: "web".to_owned() }) else {
            panic!("the service is there")
        };
        let spec = specs::with_replicas(&spec, 1 + round % 2);
        let request =
            Request::UpdateService { service: "web".to_owned(), version: view.service.version, spec };
        world.ask(request).unwrap();
    }
    world.run_for(Duration::from_secs(1));
    let kept = world.managers[0].disk.recover();
    assert!(kept.checkpoint.is_some_and(|checkpoint| checkpoint.index > 1_000));
    assert!(kept.entries.len() < 3_000, "{} entries are kept", kept.entries.len());
    world.crash(0);
    world.start(0);
    world.wait_running("web", 2);
}

#[test]
fn a_seed_gives_one_run() {
    let run = |seed| {
        let mut world = World::with_agents(seed, 1, 3);
        world
            .ask(Request::CreateService { spec: Arc::new(specs::service("web", 5)), request_id: None })
            .unwrap();
        world.wait_running("web", 5);
        world.run_for(Duration::from_secs(5));
        (world.now, world.entries_written, world.managers[0].core.as_ref().unwrap().fingerprint())
    };
    assert_eq!(run(31), run(31));
    assert_ne!(run(31).2, run(32).2);
}
