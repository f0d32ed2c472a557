//! Managers come and go: join, promotion, demotion, removal of the dead, also while leaders die.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{ApiError, ManagerStatus, NodeView, Request, Response};
use swarm_model::NodeRole;

use crate::checks;
use crate::sim::{World, specs};

fn admit(world: &mut World, index: usize) {
    if index == world.managers.len() {
        world.add_manager(index);
    }
    world.ask(Request::AdmitNode(specs::new_node(index, true))).expect("a manager is admitted");
}

fn node(world: &mut World, index: usize) -> NodeView {
    let id = specs::node_id(index);
    world.nodes().into_iter().find(|view| view.node.id == id).expect("the node is there")
}

fn try_demote(world: &mut World, index: usize) -> Result<(), ApiError> {
    let node = node(world, index).node;
    let spec = swarm_model::NodeSpec { role: NodeRole::Worker, ..node.spec.clone() };
    world.ask(Request::UpdateNode { node: node.id.to_string(), version: node.version, spec }).map(drop)
}

fn try_remove(world: &mut World, index: usize) -> Result<(), ApiError> {
    let node = specs::node_id(index).to_string();
    world.ask(Request::RemoveNode { node, force: true }).map(drop)
}

fn refused(result: Result<(), ApiError>, expect: &str) {
    let text = result.expect_err("it is refused").to_string();
    assert!(text.contains(expect), "{text}");
}

fn write(world: &mut World, name: &str) {
    let spec = Arc::new(specs::service(name, 1));
    match world.ask(Request::CreateService { spec, request_id: None }) {
        Ok(Response::Service(_)) => {}
        other => panic!("seed {}: {name}: {other:?}\n{}", world.seed, world.story()),
    }
}

fn settle_and_compare(world: &mut World) {
    world.run_for(Duration::from_secs(2));
    checks::equal_stores(world);
}

#[test]
fn one_manager_grows_to_five_and_any_two_of_them_may_die() {
    for seed in 300..306 {
        let mut world = World::with_agents(seed, 1, 1);
        for index in 1..5 {
            admit(&mut world, index);
            write(&mut world, &format!("s{index}"));
            world.run_until("it votes", |world| world.voting() == index + 1);
        }
        settle_and_compare(&mut world);
        for round in 0..2 {
            let leader = world.leader().unwrap();
            world.crash(leader);
            world.run_until("another manager leads", |world| world.leader().is_some_and(|it| it != leader));
            write(&mut world, &format!("after{round}"));
        }
    }
}

#[test]
fn a_manager_joins_after_the_log_was_cut() {
    let mut world = World::with_agents(310, 1, 1);
    let spec = specs::service("web", 1);
    world.ask(Request::CreateService { spec: Arc::new(spec.clone()), request_id: None }).unwrap();
    for round in 0..1_800u32 {
        let Ok(Response::Service(view)) = world.ask(Request::GetService { service: "web".to_owned() }) else {
            panic!("the service is there")
        };
        let (service, version) = ("web".to_owned(), view.service.version);
        let spec = specs::with_replicas(&spec, 1 + round % 2);
        world.ask(Request::UpdateService { service, version, spec }).unwrap();
    }
    // And nothing is written meanwhile that would push it on.
    world.run_for(Duration::from_secs(5));
    admit(&mut world, 1);
    world.run_until("it votes", |world| world.voting() == 2);
    admit(&mut world, 2);
    world.run_until("all vote", |world| world.voting() == 3);
    settle_and_compare(&mut world);
    world.crash(0);
    write(&mut world, "after");
}

#[test]
fn a_learner_does_not_count_before_it_has_the_log() {
    let mut world = World::with_agents(320, 1, 1);
    world.add_manager(1);
    world.managers[1].is_cut = true;
    admit(&mut world, 1);
    write(&mut world, "web");
    world.run_for(Duration::from_secs(5));
    assert_eq!(node(&mut world, 1).manager, Some(ManagerStatus::Unreachable));
    write(&mut world, "second");
    refused(try_demote(&mut world, 0), "which is no majority");
    world.managers[1].is_cut = false;
    world.run_until("it votes", |world| world.voting() == 2);
    try_demote(&mut world, 0).expect("the other one can go on alone");
}

#[test]
fn a_demoted_leader_hands_over_and_leaves() {
    for seed in 330..340 {
        let mut world = World::with_agents(seed, 3, 3);
        write(&mut world, "web");
        let old = world.leader().unwrap();
        try_demote(&mut world, old).unwrap();
        let took = world.run_until("it is a worker", |world| {
            world.leader().is_some_and(|it| it != old) && node(world, old).manager.is_none()
        });
        assert!(took < Duration::from_secs(2), "seed {seed}: {took:?}");
        assert_eq!(node(&mut world, old).node.raft_id, None);
        write(&mut world, "after");
        // It goes on in vain, and disturbs nobody.
        let leader = world.leader();
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.leader(), leader, "seed {seed}");
        world.crash(old);
        settle_and_compare(&mut world);
    }
}

#[test]
fn managers_leave_one_after_the_other_but_for_the_last() {
    let mut world = World::with_agents(345, 3, 3);
    for left in [2, 1] {
        let leader = world.leader().unwrap();
        try_demote(&mut world, leader).unwrap();
        world.run_until("it has left", |world| world.voting() == left);
        world.crash(leader);
    }
    let last = world.leader().unwrap();
    refused(try_demote(&mut world, last), "is the last manager");
    refused(try_remove(&mut world, last), "is the last manager");
    write(&mut world, "alone");
}

#[test]
fn a_dead_manager_is_removed_and_replaced() {
    for seed in 350..356 {
        let mut world = World::with_agents(seed, 3, 3);
        let dead = (world.leader().unwrap() + 1) % 3;
        let other = (dead + 1) % 3;
        refused(try_remove(&mut world, other), "is a manager; `swarmctl node demote");
        world.crash(dead);
        world.vanish(dead);
        world
            .run_until("it is missed", |world| node(world, dead).manager == Some(ManagerStatus::Unreachable));
        // Two of three are left: without one of them there is no majority.
        refused(try_demote(&mut world, other), "which is no majority");
        try_remove(&mut world, dead).unwrap();
        admit(&mut world, 3);
        world.run_until("three vote again", |world| world.voting() == 3);
        // It comes back without knowing, and is not heard.
        world.start(dead);
        let leader = world.leader();
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.leader(), leader, "seed {seed}");
        world.crash(dead);
        settle_and_compare(&mut world);
    }
}

#[test]
fn membership_goes_on_where_a_dead_leader_stopped() {
    for seed in 360..390 {
        let mut world = World::with_agents(seed, 3, 1);
        admit(&mut world, 3);
        admit(&mut world, 4);
        let pause = Duration::from_micros(world.random(0..8_000));
        world.run_for(pause);
        let leader = world.leader().unwrap();
        world.crash(leader);
        world.run_until("four vote", |world| world.voting() == 4);
        world.start(leader);
        world.run_until("five vote", |world| world.voting() == 5);
        let leaving = world.leader().unwrap();
        try_demote(&mut world, leaving).unwrap();
        let pause = Duration::from_micros(world.random(0..8_000));
        world.run_for(pause);
        if let Some(leader) = world.leader() {
            world.crash(leader);
            world.run_until("another manager leads", |world| world.leader().is_some_and(|it| it != leader));
            world.start(leader);
        }
        world.run_until("four are left", |world| world.voting() == 4);
        write(&mut world, "after");
    }
}

#[test]
fn followers_answer_what_is_replicated_and_nothing_stale() {
    let mut world = World::with_agents(395, 3, 3);
    let leader = world.leader().unwrap();
    let follower = (leader + 1) % 3;
    let image = swarm_model::Image {
        name: "web".to_owned(),
        version: 0,
        created_at: world.now,
        digest: "sha256:1".to_owned(),
        manifest_bytes: 1,
        total_bytes: 1,
        platform: swarm_model::Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
    };
    world.ask(Request::PutImage(image)).unwrap();
    let id = world.send_to(follower, Request::ListImages);
    let mut reply = None;
    world.run_until("the follower answers", |world| {
        reply = reply.take().or_else(|| world.take_reply(id));
        reply.is_some()
    });
    match reply.unwrap() {
        Ok(Response::Images(images)) => assert_eq!(images.len(), 1),
        other => panic!("{other:?}"),
    }
    world.managers[follower].is_cut = true;
    let id = world.send_to(follower, Request::ListImages);
    world.run_for(Duration::from_secs(3));
    match world.take_reply(id) {
        Some(Err(ApiError::NotLeader { .. })) | None => {}
        other => panic!("a follower that is cut off answered {other:?}"),
    }
}
