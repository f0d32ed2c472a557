//! Measures the data path on this machine, in namespaces of its own: what a task's network and a change of the mesh cost.
//! Run as root: `cargo run --release -p swarm-network --example figures`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use swarm_network::{DevNetwork, Mesh, NodeNetwork, NodeNetworkConfig, Protocol, Target};

const ATTACHMENTS: u32 = 64;
const CHANGES: usize = 1000;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let name = "figures";
    DevNetwork::clean(name)?;
    let start = Instant::now();
    let network = DevNetwork::create(name, 3)?;
    print("development network of 3 nodes", &mut [start.elapsed()]);
    let outcome = network.within(1, || measure(&network));
    let start = Instant::now();
    network.destroy()?;
    print("its removal", &mut [start.elapsed()]);
    outcome?
}

fn measure(network: &DevNetwork) -> Outcome {
    let open = |prepared| {
        NodeNetwork::open(NodeNetworkConfig { prepared, ..NodeNetworkConfig::new(1, network.address(1)) })
    };
    let start = Instant::now();
    let node = open(0)?;
    print("open", &mut [start.elapsed()]);
    attach("attach, nothing prepared", &node)?;
    drop(node);
    let node = open(ATTACHMENTS as usize)?;
    std::thread::sleep(Duration::from_secs(2));
    attach("attach, prepared", &node)?;
    for (protocol, ports, backends) in
        [(Protocol::Udp, 1, 10), (Protocol::Tcp, 1, 10), (Protocol::Tcp, 1000, 10)]
    {
        change(&node, protocol, ports, backends)?;
    }
    let start = Instant::now();
    drop(node);
    let node = open(0)?;
    print("open with 1000 ports of 10 backends loaded", &mut [start.elapsed()]);
    let start = Instant::now();
    node.teardown()?;
    print("teardown", &mut [start.elapsed()]);
    Ok(())
}

fn attach(what: &str, node: &NodeNetwork) -> Outcome {
    let mut times = Vec::new();
    let mut held = Vec::new();
    let mut targets = Vec::new();
    for n in 0..ATTACHMENTS {
        let name = format!("task.{n}");
        let start = Instant::now();
        held.push(node.attach(&name, task_address(1, n))?);
        times.push(start.elapsed());
        let start = Instant::now();
        node.set_targets(&name, &[Target { protocol: Protocol::Tcp, target_port: 80 }])?;
        targets.push(start.elapsed());
    }
    print(what, &mut times);
    print("set_targets", &mut targets);
    drop(held);
    let mut times = Vec::new();
    for n in 0..ATTACHMENTS {
        let start = Instant::now();
        node.detach(&format!("task.{n}"))?;
        times.push(start.elapsed());
    }
    print("detach", &mut times);
    Ok(())
}

fn change(node: &NodeNetwork, protocol: Protocol, ports: u16, backends: u32) -> Outcome {
    let tasks = |n: u16| (0..backends).map(move |b| SocketAddrV4::new(task_address(n % 100 + 2, b), 80));
    let nodes = (1..=101).map(|i| (i, Ipv4Addr::new(10, 88, 0, 0))).collect::<BTreeMap<_, _>>();
    let mut mesh = Mesh { nodes, ports: BTreeMap::new() };
    mesh.ports.extend((0..ports).map(|n| ((protocol, 10_000 + n), tasks(n).collect())));
    let start = Instant::now();
    node.apply_mesh(&mesh)?;
    print(
        &format!("apply_mesh, {ports} {protocol} ports of {backends} backends from nothing"),
        &mut [start.elapsed()],
    );
    let (mut replace, mut scale) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let list = mesh.ports.get_mut(&(protocol, 10_000)).ok_or("the port is there")?;
        list[0] = SocketAddrV4::new(task_address(200, u32::try_from(n % 900)?), 80);
        let start = Instant::now();
        node.apply_mesh(&mesh)?;
        replace.push(start.elapsed());
    }
    for n in 0..CHANGES {
        let list = mesh.ports.get_mut(&(protocol, 10_000)).ok_or("the port is there")?;
        if n % 2 == 0 {
            list.pop();
        } else {
            list.push(SocketAddrV4::new(task_address(201, u32::try_from(n % 900)?), 80));
        }
        let start = Instant::now();
        node.apply_mesh(&mesh)?;
        scale.push(start.elapsed());
    }
    print("  one backend replaced", &mut replace);
    print("  one backend more or less", &mut scale);
    Ok(())
}

fn task_address(node: u16, number: u32) -> Ipv4Addr {
    let pool = NodeNetworkConfig::DEFAULT_POOL.network().to_bits();
    (pool + u32::from(node) * 1024 + 11 + number).into()
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let percentile = |p: usize| times[(times.len() - 1) * p / 100];
    println!("{what:<58} p50 {:>10.3?}  p99 {:>10.3?}", percentile(50), percentile(99));
}
