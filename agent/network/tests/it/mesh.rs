//! Published ports: who answers, whom it sees, and what a change does to traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use swarm_network::{Mesh, Protocol};

use crate::world::{
    Answer, Connection, PATIENCE, Server, World, ask, ask_with, bound_stream, host_port, tcp, udp, with_nodes,
};

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
fn packets_larger_than_the_tunnel_get_through() {
    with_nodes(2, |world| {
        let task = world.task(2, 0, "web.1");
        world.publish(PORT, &[&task]);
        let through = world.endpoint(1, PORT);
        world.at_client(|| {
            let mut connection = Connection::open(through, PATIENCE).unwrap();
            connection.echo(&"x".repeat(1_000_000)).unwrap();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let answer = ask_with(&socket, through, PATIENCE, &[b'x'; 4000]).unwrap();
            assert_eq!(answer.name, "web.1");
        });
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

#[test]
fn tasks_reach_published_ports_of_every_node_and_themselves() {
    with_nodes(2, |world| {
        let (one, two) = (world.task(1, 0, "one"), world.task(2, 0, "two"));
        for (port, backend) in [(PORT, &one), (PORT + 1, &two)] {
            let mut mesh = world.mesh(PORT, &[&one]);
            mesh.ports.extend(world.mesh(PORT + 1, &[&two]).ports);
            world.apply(&mesh);
            for i in 1..=2 {
                for ask in [tcp, udp] {
                    let answer = one.within(|| ask(world.endpoint(i, port))).unwrap();
                    assert_eq!(answer.name, if backend.address == one.address { "one" } else { "two" });
                }
            }
        }
    });
}

#[test]
fn a_node_reaches_published_ports_by_loopback_and_by_every_address() {
    with_nodes(2, |world| {
        let (local, remote) = (world.task(1, 0, "local"), world.task(2, 0, "remote"));
        let mut mesh = world.mesh(PORT, &[&local]);
        mesh.ports.extend(world.mesh(PORT + 1, &[&remote]).ports);
        world.apply(&mesh);
        let addresses = [Ipv4Addr::LOCALHOST, world.hosts.address(1), world.hosts.address(2)];
        for address in addresses {
            for ask in [tcp, udp] {
                for (port, name) in [(PORT, "local"), (PORT + 1, "remote")] {
                    let answer = world.at_node(1, || ask(SocketAddrV4::new(address, port)));
                    assert_eq!(answer.unwrap().name, name, "{address}:{port}");
                }
            }
        }
    });
}

#[test]
fn tasks_reach_the_outside_with_their_nodes_address() {
    with_nodes(1, |world| {
        let task = world.task(1, 0, "web.1");
        let _outside = Server::start(world.clients.netns_fd(1).unwrap(), "outside", 7000);
        let outside = SocketAddrV4::new(world.clients.address(1), 7000);
        for ask in [tcp, udp] {
            let answer = task.within(|| ask(outside)).unwrap();
            assert_eq!(answer.peer.ip(), world.hosts.address(1));
        }
    });
}

#[test]
fn removing_a_backend_under_load_fails_no_connection() {
    with_nodes(2, |world| {
        let tasks: Vec<_> =
            (0..4).map(|n| world.task(n % 2 + 1, (n / 2).into(), &format!("web.{n}"))).collect();
        let all: Vec<_> = tasks.iter().collect();
        world.publish(PORT, &all);
        // TCP alone: a change of UDP backends is slowed down by its walk over the tracked connections.
        let (stop, made) = (AtomicBool::new(false), AtomicU32::new(0));
        let worst = std::thread::scope(|scope| {
            let load: Vec<_> = (1..=2)
                .map(|i| {
                    let (world, stop, made) = (&*world, &stop, &made);
                    let endpoint = world.endpoint(i, PORT);
                    scope.spawn(move || world.at_client(|| connect_until(stop, made, endpoint)))
                })
                .collect();
            let mut changes = 0;
            while changes < 400 || made.load(Ordering::Relaxed) < 2000 {
                let count = [4, 3, 1, 2][changes % 4];
                let first = changes / 4 % 2;
                let mut mesh = world.mesh(PORT, &all[first..][..count.min(4 - first)]);
                mesh.ports.retain(|(protocol, _), _| *protocol == Protocol::Tcp);
                world.apply(&mesh);
                changes += 1;
            }
            stop.store(true, Ordering::Relaxed);
            load.into_iter().map(|thread| thread.join().unwrap()).max()
        });
        assert!(worst < Some(PATIENCE), "the slowest connection took {worst:?}");
    });
}

/// Connects again and again; gives the longest time that it took.
fn connect_until(stop: &AtomicBool, made: &AtomicU32, to: SocketAddrV4) -> Duration {
    let mut worst = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        tcp(to).unwrap();
        worst = worst.max(start.elapsed());
        made.fetch_add(1, Ordering::Relaxed);
    }
    worst
}

#[test]
fn a_published_port_without_backends_is_refused_at_once() {
    with_nodes(2, |world| {
        let task = world.task(1, 0, "web.1");
        world.publish(PORT, &[&task]);
        world.publish(PORT, &[]);
        for i in 1..=2 {
            for ask in [tcp, udp] {
                let start = Instant::now();
                let error = world.at_client(|| ask(world.endpoint(i, PORT))).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                assert!(start.elapsed() < Duration::from_secs(1));
            }
        }
        world.publish(PORT, &[&task]);
        assert!(world.at_client(|| tcp(world.endpoint(2, PORT))).is_ok());
    });
}

#[test]
fn an_unserved_port_does_not_disturb_the_nodes_own_connections_from_it() {
    with_nodes(1, |world| {
        world.publish(PORT, &[]);
        let _outside = Server::start(world.clients.netns_fd(1).unwrap(), "outside", 7000);
        let outside = SocketAddrV4::new(world.clients.address(1), 7000);
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
        let answer = world.at_node(1, || Connection::greet(bound_stream(from, outside)?)).unwrap().answer;
        assert_eq!(answer.peer.port(), PORT);
    });
}

#[test]
fn a_udp_sender_moves_to_another_backend_when_its_own_is_removed() {
    with_nodes(2, |world| {
        let (one, two) = (world.task(1, 0, "one"), world.task(2, 0, "two"));
        world.publish(PORT, &[&one]);
        world.at_client(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for i in 1..=2 {
                assert_eq!(ask(&socket, world.endpoint(i, PORT), PATIENCE).unwrap().name, "one");
            }
            world.publish(PORT, &[&two]);
            for i in 1..=2 {
                assert_eq!(ask(&socket, world.endpoint(i, PORT), PATIENCE).unwrap().name, "two");
            }
        });
    });
}

#[test]
fn a_udp_sender_from_before_the_port_was_published_is_served() {
    with_nodes(1, |world| {
        let task = world.task(1, 0, "one");
        world.at_client(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            // Nobody listens: the node tracks the attempt all the same.
            assert!(ask(&socket, world.endpoint(1, PORT), Duration::from_millis(50)).is_err());
            world.publish(PORT, &[&task]);
            assert_eq!(ask(&socket, world.endpoint(1, PORT), PATIENCE).unwrap().name, "one");
        });
    });
}

#[test]
fn one_client_port_through_two_nodes_to_one_task_makes_two_connections() {
    with_nodes(3, |world| {
        let task = world.task(3, 0, "web.1");
        world.publish(PORT, &[&task]);
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 45_000);
        world.at_client(|| {
            let mut open: Vec<_> = (1..=2)
                .map(|i| Connection::greet(bound_stream(from, world.endpoint(i, PORT)).unwrap()).unwrap())
                .collect();
            for connection in &mut open {
                connection.echo("still here").unwrap();
                assert!(from_client(world, &connection.answer));
            }
        });
    });
}

#[test]
fn a_host_port_answers_on_its_node_alone() {
    with_nodes(2, |world| {
        let (task, neighbour) = (world.task(1, 0, "web.1"), world.task(1, 1, "web.2"));
        let ports = [host_port(Protocol::Tcp, 9000), host_port(Protocol::Udp, 9000)];
        world.node(1).set_host_ports("web.1", &ports).unwrap();
        let here = world.endpoint(1, 9000);
        for ask in [tcp, udp] {
            let answer = world.at_client(|| ask(here)).unwrap();
            assert!(answer.name == "web.1" && from_client(world, &answer), "{answer:?}");
            let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000);
            assert_eq!(world.at_node(1, || ask(loopback)).unwrap().name, "web.1");
            assert_eq!(neighbour.within(|| ask(here)).unwrap().name, "web.1");
            assert_eq!(task.within(|| ask(here)).unwrap().name, "web.1");
        }
        let elsewhere = world.at_client(|| tcp(world.endpoint(2, 9000))).unwrap_err();
        assert_eq!(elsewhere.kind(), io::ErrorKind::ConnectionRefused);
        world.node(1).set_host_ports("web.1", &[]).unwrap();
        let gone = world.at_client(|| tcp(here)).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_node_that_leaves_the_mesh_takes_its_backends_along() {
    with_nodes(3, |world| {
        let (stays, goes) = (world.task(2, 0, "stays"), world.task(3, 0, "goes"));
        world.publish(PORT, &[&stays, &goes]);
        let mut mesh = world.mesh(PORT, &[&stays]);
        mesh.nodes.remove(&3);
        world.node(1).apply_mesh(&mesh).unwrap();
        world.node(2).apply_mesh(&mesh).unwrap();
        let seen: BTreeSet<String> =
            world.at_client(|| (0..20).map(|_| tcp(world.endpoint(1, PORT)).unwrap().name).collect());
        assert_eq!(seen, BTreeSet::from(["stays".to_owned()]));
        world.publish(PORT, &[&goes]);
        assert_eq!(world.at_client(|| tcp(world.endpoint(1, PORT))).unwrap().name, "goes");
        world.apply(&Mesh::default());
        assert!(world.at_client(|| tcp(world.endpoint(1, PORT))).is_err());
    });
}

#[test]
fn this_machines_loopback_reaches_published_ports_of_a_development_network() {
    with_nodes(3, |world| {
        let task = world.task(2, 0, "web.1");
        world.publish(PORT, &[&task]);
        let ports = BTreeSet::from([(Protocol::Tcp, PORT), (Protocol::Udp, PORT)]);
        world.hosts.publish(&ports).unwrap();
        // One node less must not cost a connection.
        world.hosts.link_down(3).unwrap();
        for address in [Ipv4Addr::LOCALHOST, world.hosts.host_address()] {
            for _ in 0..10 {
                assert_eq!(tcp(SocketAddrV4::new(address, PORT)).unwrap().name, "web.1");
                assert_eq!(udp(SocketAddrV4::new(address, PORT)).unwrap().name, "web.1");
            }
            let other = tcp(SocketAddrV4::new(address, PORT + 1)).unwrap_err();
            assert_eq!(other.kind(), io::ErrorKind::ConnectionRefused);
        }
        world.hosts.publish(&BTreeSet::new()).unwrap();
        assert!(tcp(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)).is_err());
        world.hosts.link_up(3).unwrap();
        assert_eq!(world.at_client(|| tcp(world.endpoint(3, PORT))).unwrap().name, "web.1");
    });
}
