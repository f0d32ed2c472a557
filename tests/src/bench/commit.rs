//! How many writes per second three real managers commit to their disks, and how long one takes.
//!
//! A write replaces a label of 256 bytes of a node that only its client writes to. Calls go over mutual TLS to the leader, as
//! another manager forwards them for root of its node; the clients share a few connections, a stream per call, and speak
//! HTTP/2 directly. Nothing runs in the cluster.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use swarm_pki::{JoinRequest, JoinToken, join};
use swarm_proto::v1;
use swarm_proto::v1::nodes_client::NodesClient;

use super::Report;
use super::calls::Calls;
use super::figures::{Times, rounded};
use super::managers::Managers;
use super::process::{Usage, load_average};

const MANAGERS: u16 = 3;
const VALUE_BYTES: usize = 256;
const LABEL: &str = "bench";
/// Nodes that join at the same time.
const JOINING: usize = 32;
const UPDATE: &str = "/swarm.v1.Nodes/Update";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Clients that write at the same time, each with a node of its own
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=4_000))]
    clients: u16,
    /// Connections that they share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// For how long they write
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
    /// Writes of one client alone
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    alone: u32,
}

/// What the managers and this process used.
struct Used {
    leader: Usage,
    followers: Vec<Usage>,
    clients: Usage,
    log_writes: u64,
}

/// # Errors
/// A write is refused.
///
/// # Panics
/// The daemons cannot be started.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let load = load_average();
    let managers = Managers::start(MANAGERS)?;
    // One thread is enough for the clients, and takes less of the managers' processors than several.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(options, &managers, &load))
}

async fn measure(options: &Options, managers: &Managers, load: &str) -> anyhow::Result<Report> {
    let leader = managers.leader().await?;
    join_nodes(options.clients, managers, leader).await?;
    let mut clients = clients(options, managers, leader).await?;
    let first = clients.first_mut().context("at least one client")?;
    let mut alone = Vec::new();
    for _ in 0..options.alone {
        let begin = Instant::now();
        first.write().await?;
        alone.push(begin.elapsed());
    }
    let before = used(managers, leader)?;
    let begin = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(client.write_until_told(Arc::clone(&stop)))).collect();
    tokio::time::sleep(Duration::from_secs(options.seconds.into())).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for written in writing {
        times.extend(written.await??);
    }
    let took = begin.elapsed();
    let after = used(managers, leader)?;
    ensure!(managers.leader().await? == leader, "the leader changed while it was measured");
    let times = (Times::of(alone).context("no write")?, Times::of(times).context("no write")?);
    Ok(report(options, times, took, &before, &after, load))
}

fn report(
    options: &Options,
    (alone, together): (Times, Times),
    took: Duration,
    before: &Used,
    after: &Used,
    load: &str,
) -> Report {
    let mut report = Report::new(&["COMMIT", "FIGURE", "OF"]);
    let count = together.count() as f64;
    let Options { clients, connections, .. } = options;
    let of = format!("{clients} clients on {connections} connections, load average {load} before");
    report.row("writes per second", format!("{:.0}", count / took.as_secs_f64()), of);
    report.figure("writes_per_s", (count / took.as_secs_f64()).round());
    let of = format!("99th percentile {:.2} ms", together.percentile_ms(99));
    report.row("  one of them, median", format!("{:.2} ms", together.median_ms()), of);
    report.figure("median_ms", together.median_ms());
    report.figure("p99_ms", together.percentile_ms(99));
    let of = format!("{} writes, 99th percentile {:.2} ms", alone.count(), alone.percentile_ms(99));
    report.row("one client alone, median", format!("{:.2} ms", alone.median_ms()), of);
    report.figure("one_client_median_ms", alone.median_ms());
    report.figure("one_client_p99_ms", alone.percentile_ms(99));
    let fsyncs = after.log_writes - before.log_writes;
    let of = format!("{:.0} writes each; appends of the leader's log", count / fsyncs.max(1) as f64);
    report.row("syncs", fsyncs.to_string(), of);
    report.figure("fsyncs", fsyncs);
    let mut cpu = |what: &str, name: &str, after: Usage, before: Usage| {
        let micros = rounded(after.since(before).cpu.as_secs_f64() * 1e6 / count);
        report.row(what, format!("{micros:.1} us"), "per write".to_owned());
        report.figure(name, micros);
    };
    cpu("CPU time of the leader", "leader_cpu_us", after.leader, before.leader);
    for (after, before) in after.followers.iter().zip(&before.followers) {
        cpu("CPU time of a follower", "follower_cpu_us", *after, *before);
    }
    cpu("CPU time of the clients", "clients_cpu_us", after.clients, before.clients);
    report.figure("load_average", load);
    report
}

fn used(managers: &Managers, leader: u16) -> anyhow::Result<Used> {
    let followers = managers.all().filter(|number| *number != leader);
    Ok(Used {
        leader: managers.usage(leader)?,
        followers: followers.map(|number| managers.usage(number)).collect::<anyhow::Result<_>>()?,
        clients: Usage::of(std::process::id())?,
        log_writes: managers.log_writes(leader)?,
    })
}

/// Nodes that are members, and never there.
async fn join_nodes(count: u16, managers: &Managers, leader: u16) -> anyhow::Result<()> {
    let token: JoinToken = managers.operator(leader).await?.worker_token().await?.parse()?;
    let joins = (0..count).map(|number| JoinRequest {
        token,
        managers: vec![managers.address(leader)],
        hostname: format!("write-{number}"),
        data_address: Ipv4Addr::from(Ipv4Addr::new(198, 18, 0, 1).to_bits() + u32::from(number)).to_string(),
        manager_address: String::new(),
    });
    stream::iter(joins)
        .map(|request| async move { join(&request).await.map(drop) })
        .buffer_unordered(JOINING)
        .try_collect::<()>()
        .await?;
    Ok(())
}

async fn clients(options: &Options, managers: &Managers, leader: u16) -> anyhow::Result<Vec<Client>> {
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(managers.dial(leader, leader).await?);
    }
    let operator = managers.operator(leader).await?;
    let mut nodes = NodesClient::new(operator.channel()).max_decoding_message_size(64 << 20);
    let nodes = nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
    let own = nodes
        .into_iter()
        .filter(|node| node.engine.as_ref().is_some_and(|engine| engine.hostname.starts_with("write-")));
    let clients: Vec<Client> = own
        .zip(connections.iter().cycle())
        .map(|(node, calls)| Client { calls: Calls::clone(calls), node, written: 0 })
        .collect();
    ensure!(clients.len() == usize::from(options.clients), "only {} nodes joined", clients.len());
    Ok(clients)
}

struct Client {
    calls: Calls,
    node: v1::Node,
    written: u64,
}

impl Client {
    async fn write_until_told(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            self.write().await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        self.written += 1;
        let value = format!("{:0VALUE_BYTES$}", self.written);
        let spec = v1::NodeSpec {
            labels: BTreeMap::from([(LABEL.to_owned(), value.clone())]),
            ..self.node.spec.clone().unwrap_or_default()
        };
        let version = self.node.meta.map_or(0, |meta| meta.version);
        let request = v1::UpdateNodeRequest { node_id: self.node.id.clone(), version, spec: Some(spec) };
        self.node = self.calls.call(UPDATE, &request).await?;
        let now = self.node.spec.as_ref().and_then(|spec| spec.labels.get(LABEL));
        ensure!(now == Some(&value), "a write was answered with something else");
        Ok(())
    }
}
