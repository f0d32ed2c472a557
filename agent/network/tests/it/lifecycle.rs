//! Restarts, adoption, repair and clean-up.

use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use swarm_network::{DevError, DevNetwork, NodeNetwork, Protocol, TaskError};

use crate::world::{
    Connection, PATIENCE, TASK_PORT, World, devices, eventually, host_port, isolated, task_address, tcp,
    unique_name, with_nodes,
};

const PORT: u16 = 8080;

fn leftovers(world: &World, i: u16) -> Vec<String> {
    world.at_node(i, NodeNetwork::leftovers).unwrap()
}

#[test]
fn a_restart_disturbs_neither_open_nor_new_connections() {
    with_nodes(2, |world| {
        let task = world.task(2, 0, "web.1");
        let mesh = world.mesh(PORT, &[&task]);
        world.apply(&mesh);
        let endpoint = world.endpoint(1, PORT);
        let mut open = world.at_client(|| Connection::open(endpoint, PATIENCE)).unwrap();

        world.nodes.clear();
        open.echo("while the daemons are dead").unwrap();
        world.at_client(|| tcp(endpoint)).unwrap();

        world.open(1);
        world.open(2);
        open.echo("before anything is adopted").unwrap();
        world.at_client(|| tcp(endpoint)).unwrap();

        let netns = task.netns.try_clone().unwrap();
        world.node(2).adopt("web.1", task.address, netns).unwrap();
        world.apply(&mesh);
        assert_eq!(world.node(2).sweep().unwrap(), 0);
        open.echo("after the adoption").unwrap();
        assert_eq!(world.at_client(|| tcp(endpoint)).unwrap().name, "web.1");
    });
}

#[test]
fn a_sweep_removes_what_no_adopted_task_owns() {
    with_nodes(1, |world| {
        let (kept, lost) = (world.task(1, 0, "kept"), world.task(1, 1, "lost"));
        world.node(1).set_host_ports("kept", &[host_port(Protocol::Tcp, 9000)]).unwrap();
        world.node(1).set_host_ports("lost", &[host_port(Protocol::Tcp, 9001)]).unwrap();
        world.nodes.clear();
        world.open(1);
        world.node(1).adopt("kept", kept.address, kept.netns.try_clone().unwrap()).unwrap();
        assert_eq!(world.node(1).sweep().unwrap(), 1);
        assert_eq!(world.at_client(|| tcp(world.endpoint(1, 9000))).unwrap().name, "kept");
        assert!(world.at_client(|| tcp(world.endpoint(1, 9001))).is_err());
        // The stray's namespace has lost its cable, so its address is free for another.
        world.node(1).attach("next", lost.address).unwrap();
        let dump = world.node(1).dump().unwrap();
        assert!(dump.contains("kept") && !dump.contains("9001"), "{dump}");
    });
}

#[test]
fn detaching_frees_the_address_at_once_and_leaves_nothing() {
    with_nodes(1, |world| {
        let before = leftovers(world, 1);
        let mut task = world.task(1, 0, "web.1");
        world.node(1).set_host_ports("web.1", &[host_port(Protocol::Tcp, 9000)]).unwrap();
        task.server = None;
        world.node(1).detach("web.1").unwrap();
        world.node(1).detach("web.1").unwrap();
        assert!(matches!(world.node(1).set_targets("web.1", &[]), Err(TaskError::Unknown { .. })));
        // The old namespace is still held here, as by a process that dies slowly.
        let mut next = world.task(1, 0, "web.2");
        next.server = None;
        world.node(1).detach("web.2").unwrap();
        drop((task, next));
        eventually("the devices are gone", || leftovers(world, 1) == before);
    });
}

#[test]
fn a_teardown_leaves_nothing() {
    with_nodes(2, |world| {
        let tasks = [world.task(1, 0, "web.1"), world.task(1, 1, "web.2")];
        world.publish(PORT, &[&tasks[0], &tasks[1]]);
        world.node(1).set_host_ports("web.1", &[host_port(Protocol::Udp, 9000)]).unwrap();
        assert!(!leftovers(world, 1).is_empty());
        world.nodes.remove(&1).unwrap().teardown().unwrap();
        assert_eq!(leftovers(world, 1), Vec::<String>::new());
        assert_eq!(world.at_node(1, devices).len(), 2, "the loopback and the one to the other nodes");
    });
}

#[test]
fn what_others_flush_is_repaired() {
    with_nodes(2, |world| {
        let task = world.task(2, 0, "web.1");
        let mesh = world.mesh(PORT, &[&task]);
        world.apply(&mesh);
        assert!(!world.node(1).repair().unwrap());
        for i in 1..=2 {
            let config = world.config(i);
            let other = world.at_node(i, || NodeNetwork::open(config)).unwrap();
            // Node 2 loses its task's cable for good; here only tables and tunnels are looked at.
            if i == 1 {
                other.teardown().unwrap();
            }
        }
        assert!(world.at_client(|| tcp(world.endpoint(1, PORT))).is_err());
        assert!(world.node(1).repair().unwrap());
        assert_eq!(world.at_client(|| tcp(world.endpoint(1, PORT))).unwrap().name, "web.1");
    });
}

#[test]
fn a_change_to_tables_that_others_have_emptied_loads_them_anew() {
    with_nodes(1, |world| {
        let (one, two) = (world.task(1, 0, "one"), world.task(1, 1, "two"));
        world.publish(PORT, &[&one, &two]);
        let config = world.config(1);
        let other = world.at_node(1, || NodeNetwork::open(config)).unwrap();
        other.apply_mesh(&Default::default()).unwrap();
        world.publish(PORT, &[&two]);
        assert_eq!(world.at_client(|| tcp(world.endpoint(1, PORT))).unwrap().name, "two");
    });
}

#[test]
fn names_addresses_and_ports_are_held_once() {
    with_nodes(1, |world| {
        let task = world.task(1, 0, "web.1");
        let node = world.node(1);
        assert!(matches!(node.attach("web.1", task_address(1, 5)), Err(TaskError::Attached { .. })));
        assert!(matches!(node.attach("web.2", task.address), Err(TaskError::AddressInUse { .. })));
        assert!(matches!(node.attach("web.2", task_address(2, 0)), Err(TaskError::ForeignAddress { .. })));
        let host = host_port(Protocol::Tcp, 9000);
        node.set_host_ports("web.1", &[host]).unwrap();
        node.attach("web.2", task_address(1, 1)).unwrap();
        assert!(matches!(node.set_host_ports("web.2", &[host]), Err(TaskError::PortInUse { .. })));
        let stranger = File::open("/proc/thread-self/ns/net").unwrap().into();
        assert!(matches!(node.adopt("web.3", task_address(1, 2), stranger), Err(TaskError::NoDevice { .. })));
    });
}

#[test]
fn a_task_without_privileges_may_bind_low_ports() {
    with_nodes(1, |world| {
        let task = world.task(1, 0, "web.1");
        let start = task.within(|| fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
        assert_eq!(start.unwrap().trim(), "0");
        assert_eq!(task.within(devices), ["lo", "gw"]);
    });
}

#[test]
fn attaching_many_at_once_waits_for_namespaces() {
    with_nodes(1, |world| {
        let node = world.node(1);
        std::thread::scope(|scope| {
            for n in 0..20 {
                scope.spawn(move || node.attach(&format!("web.{n}"), task_address(1, n)).unwrap());
            }
        });
        assert_eq!(node.dump().unwrap().matches("  web.").count(), 20);
    });
}

#[test]
fn a_development_network_runs_processes_and_leaves_nothing() {
    isolated(|| {
        let name = unique_name();
        let network = DevNetwork::create(&name, 2).unwrap();
        assert!(matches!(DevNetwork::create(&name, 2), Err(DevError::Exists { .. })));
        let mut child = network.spawn(2, Command::new("sleep").arg("60").stdin(Stdio::null())).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        eventually("the process is inside", || DevNetwork::processes(&name).unwrap() == [(2, pid)]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(DevNetwork::processes(&name).unwrap().is_empty());
        assert!(matches!(network.link_down(3), Err(DevError::NoNode { .. })));
        // As if its process had been killed.
        drop(network);
        DevNetwork::clean(&name).unwrap();
        DevNetwork::clean(&name).unwrap();
        assert_eq!(devices(), ["lo"]);
        let named = fs::read_dir("/run/netns").unwrap();
        let ours = format!("swarm-{name}-");
        assert!(named.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with(&ours)));
        DevNetwork::create(&name, 1).unwrap().destroy().unwrap();
        assert!(DevNetwork::create("no such", 1).is_err());
    });
}

#[test]
fn a_node_that_is_cut_off_answers_nobody() {
    with_nodes(1, |world| {
        let task = world.task(1, 0, "web.1");
        world.publish(PORT, &[&task]);
        world.hosts.link_down(1).unwrap();
        let error = world.at_client(|| Connection::open(world.endpoint(1, PORT), Duration::from_millis(200)));
        assert!(matches!(
            error.map(|_| ()).unwrap_err().kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable
        ));
        world.hosts.link_up(1).unwrap();
        assert_eq!(world.at_client(|| tcp(world.endpoint(1, PORT))).unwrap().name, "web.1");
        assert_eq!(TASK_PORT, 80);
    });
}
