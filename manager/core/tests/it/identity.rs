//! The root of all certificates is replaced while managers and nodes come and go.

use std::time::Duration;

use swarm_manager_core::api::{ClusterView, Request, Response};
use swarm_model::{JoinSecrets, NodeState, RootRotation, Timestamp};

use crate::checks;
use crate::sim::{World, specs};

fn cluster(world: &mut World) -> ClusterView {
    match world.ask(Request::GetCluster) {
        Ok(Response::Cluster(view)) => view,
        other => panic!("seed {}: {other:?}\n{}", world.seed, world.story()),
    }
}

/// Fake agents take the last line of what they are told to believe for the root that issues.
fn rotation(root: &str) -> Box<RootRotation> {
    let secret = |role: &str| format!("{role} of {root}");
    Box::new(RootRotation {
        started_at: Timestamp::ZERO,
        root_certificate: format!("\n{root}"),
        root_key: format!("key of {root}"),
        cross_signed: String::new(),
        root_digest: root.to_owned(),
        join: JoinSecrets { worker: secret("worker"), manager: secret("manager") },
    })
}

fn rotate(world: &mut World, root: &str) {
    let base = cluster(world).cluster.version;
    let begun = world.ask(Request::RotateRoot { base, rotation: rotation(root) });
    assert!(matches!(begun, Ok(Response::Cluster(_))), "{begun:?}");
}

fn wait_root(world: &mut World, root: &str) {
    world.run_until("the new root has taken over", |world| {
        let view = cluster(world);
        view.rotation.is_none() && view.cluster.root_certificate.trim() == root
    });
    let view = cluster(world);
    assert_eq!(view.cluster.root_key, format!("key of {root}"));
    assert_eq!(view.cluster.join.worker, format!("worker of {root}"));
    world.run_for(Duration::from_secs(2));
    checks::equal_stores(world);
}

fn wait_state(world: &mut World, index: usize, state: NodeState) {
    let id = specs::node_id(index);
    world.run_until("the node is as expected", |world| {
        world.nodes().iter().any(|view| view.node.id == id && view.state == state)
    });
}

#[test]
fn a_root_takes_over_once_every_node_has_followed_whoever_leads_meanwhile() {
    for seed in 700..706 {
        let mut world = World::with_agents(seed, 3, 5);
        rotate(&mut world, "first");
        wait_root(&mut world, "first");

        world.vanish(4);
        wait_state(&mut world, 4, NodeState::Down);
        rotate(&mut world, "second");
        world.run_for(Duration::from_secs(5));
        let view = cluster(&mut world).rotation.expect("it waits");
        assert_eq!((view.done, view.nodes), (4, 5));
        assert!(view.waiting.len() == 1 && view.waiting[0].reason.contains("is down"), "{view:?}");
        // The next leader has to be told again by everybody.
        let leader = world.leader().expect("somebody leads");
        world.crash(leader);
        world.run_for(Duration::from_secs(5));
        let view = cluster(&mut world).rotation.expect("it still waits");
        assert!((3..=4).contains(&view.done), "{view:?}");
        world.start(leader);
        // Begun anew, it is the newest root that counts.
        rotate(&mut world, "third");
        world.run_for(Duration::from_secs(5));
        assert!(cluster(&mut world).rotation.is_some());
        world.revive(4);
        wait_root(&mut world, "third");
    }
}

#[test]
fn a_node_that_is_given_up_holds_up_no_rotation_and_is_not_admitted_again() {
    for seed in 710..714 {
        let mut world = World::with_agents(seed, 3, 5);
        world.vanish(4);
        wait_state(&mut world, 4, NodeState::Down);
        rotate(&mut world, "next");
        let node = specs::node_id(4).to_string();
        world.ask(Request::RemoveNode { node, force: false }).expect("it is down");
        wait_root(&mut world, "next");
        let refused = world.ask(Request::AdmitNode(specs::new_node(4, false))).expect_err("it was removed");
        assert!(refused.to_string().contains("was removed"), "{refused}");
    }
}

#[test]
fn a_rotation_made_from_an_older_cluster_is_refused() {
    let mut world = World::with_agents(720, 1, 1);
    let base = cluster(&mut world).cluster.version;
    rotate(&mut world, "next");
    wait_root(&mut world, "next");
    assert!(world.ask(Request::RotateRoot { base, rotation: rotation("late") }).is_err());
    assert_eq!(cluster(&mut world).rotation, None);
}
