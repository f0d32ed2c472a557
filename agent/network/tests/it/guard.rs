//! What must not get through.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use swarm_network::NodeNetworkConfig;

use crate::world::{Connection, SILENCE, Server, World, tcp, with_nodes};

/// Tries a connection that must not come about.
fn blocked(to: SocketAddrV4) -> bool {
    match Connection::open(to, SILENCE) {
        Ok(_) => false,
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
        ),
    }
}

#[test]
fn tasks_reach_each_others_gateway_addresses_neither_here_nor_there() {
    with_nodes(2, |world| {
        let (one, beside, there) =
            (world.task(1, 0, "one"), world.task(1, 1, "beside"), world.task(2, 0, "there"));
        world.publish(8080, &[&there]);
        for target in [&beside, &there] {
            assert!(one.within(|| blocked(SocketAddrV4::new(target.address, 80))));
        }
        // The outside reaches them through no node, whether it routes to them or not.
        for target in [&one, &there] {
            assert!(world.at_client(|| blocked(SocketAddrV4::new(target.address, 80))));
        }
        assert!(one.within(|| tcp(world.endpoint(1, 8080))).is_ok());
    });
}

#[test]
fn a_task_does_not_reach_its_nodes_loopback() {
    with_nodes(1, |world| {
        let task = world.task(1, 0, "web.1");
        let node = world.hosts.netns_fd(1).unwrap();
        let _service = Server::start(node, "private", 7000);
        let answer = task.within(|| {
            let socket = UdpSocket::bind((task.address, 0)).unwrap();
            // Past the task's own loopback, out to the node.
            setsockopt(&socket, sockopt::BindToDevice, &"gw".into()).unwrap();
            crate::world::ask(&socket, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000), SILENCE)
        });
        assert!(answer.is_err(), "{answer:?}");
        let own = task.within(|| tcp(world.endpoint(1, 7000))).unwrap();
        assert_eq!(own.name, "private", "the node's public services stay reachable");
    });
}

#[test]
fn only_nodes_may_speak_on_the_tunnel() {
    with_nodes(2, |world| {
        let (victim, attacker) = (world.task(1, 0, "victim"), world.task(2, 0, "attacker"));
        world.publish(8080, &[]);
        drop_server(world, victim.netns.try_clone().unwrap(), |heard| {
            let frame = tunnel_frame(victim.address);
            let tunnel = world.endpoint(1, NodeNetworkConfig::DEFAULT_VXLAN_PORT);
            let send = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().send_to(&frame, tunnel);
            let _ = world.at_client(send);
            assert!(!heard(), "an outsider's frame reached the task");
            let _ = attacker.within(send);
            assert!(!heard(), "a task's frame reached the task");
            world.at_node(2, send).unwrap();
            assert!(heard(), "a node's frame reaches the task: the test sends what would get through");
        });
    });
}

/// Runs `test` with a way to ask whether a datagram has arrived at the task's UDP port 81.
fn drop_server(world: &World, netns: std::os::fd::OwnedFd, test: impl FnOnce(&dyn Fn() -> bool)) {
    world
        .node(1)
        .set_targets(
            "victim",
            &[swarm_network::Target { protocol: swarm_network::Protocol::Udp, target_port: 81 }],
        )
        .unwrap();
    let socket = crate::world::within(netns, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 81)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    test(&|| socket.recv_from(&mut [0; 100]).is_ok());
}

/// A VXLAN packet with a UDP datagram to port 81 of a task, as node 2 would send it.
fn tunnel_frame(task: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0x08, 0, 0, 0];
    frame.extend_from_slice(&(NodeNetworkConfig::DEFAULT_VNI << 8).to_be_bytes());
    frame.extend_from_slice(&[0x02, 0xff, 0, 0, 0, 1, 0x02, 0xff, 0, 0, 0, 2, 0x08, 0x00]);
    let mut header = vec![0x45, 0, 0, 20 + 8 + 4, 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend_from_slice(&[203, 0, 113, 7]);
    header.extend_from_slice(&task.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&[0x30, 0x39, 0, 81, 0, 12, 0, 0, b'e', b'v', b'i', b'l']);
    frame
}
