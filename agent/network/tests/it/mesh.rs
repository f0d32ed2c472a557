//! Published ports: who answers, whom it sees, and what a change does to traffic.

use std::collections::BTreeMap;

use crate::world::{Answer, World, tcp, udp, with_nodes};

const PORT: u16 = 8080;

fn from_client(world: &World, answer: &Answer) -> bool {
    answer.peer.ip() == world.clients.address(1)
}

#[test]
fn every_node_answers_for_a_task_on_one_and_the_task_sees_the_client() {
    with_nodes(3, |world| {
        let task = world.task(2, 0, "web.1");
        world.publish(PORT, &[&task]);
        for i in 1..=3 {
            for ask in [tcp, udp] {
                let answer = world.at_client(|| ask(world.endpoint(i, PORT))).unwrap();
                assert_eq!(answer.name, "web.1");
                assert!(from_client(world, &answer), "through node {i} the task saw {answer:?}");
            }
        }
    });
}

#[test]
fn connections_spread_evenly_over_tasks() {
    with_nodes(3, |world| {
        let tasks: Vec<_> =
            (0..6).map(|n| world.task(n % 3 + 1, (n / 3).into(), &format!("web.{n}"))).collect();
        world.publish(PORT, &tasks.iter().collect::<Vec<_>>());
        for i in 1..=3 {
            let mut count: BTreeMap<String, u32> = BTreeMap::new();
            world.at_client(|| {
                for _ in 0..600 {
                    *count.entry(tcp(world.endpoint(i, PORT)).unwrap().name).or_default() += 1;
                }
            });
            // 100 each is expected, with a standard deviation of 9.
            assert_eq!(count.len(), 6);
            assert!(count.values().all(|count| (46..=154).contains(count)), "through node {i}: {count:?}");
        }
    });
}
