//! How long a cluster of three real managers accepts no write after its leader was killed, under write load; and that no
//! acknowledged write is lost by it.
//!
//! A probe that begins at the moment of the kill writes at a surviving manager: what counts is when its first write is
//! acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use swarm_proto::v1;
use swarm_proto::v1::nodes_client::NodesClient;
use tokio::runtime::Runtime;

use super::Report;
use super::figures::Times;
use super::operator::Operator;
use crate::e2e::{Cluster, Options as ClusterOptions};
use crate::load::{Tally, Writer};

const MANAGERS: u16 = 3;
/// For a leader to be there, or a killed manager to be back.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Leaders that are killed, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// Clients that write all the time
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: u16,
}

/// # Errors
/// The cluster does not come up, has no leader within a minute, or loses an acknowledged write.
///
/// # Panics
/// The daemons cannot be started.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut cluster =
        Cluster::with(ClusterOptions { nodes: MANAGERS, managers: MANAGERS, ..ClusterOptions::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sockets: Vec<PathBuf> = (1..=MANAGERS).map(|number| cluster.socket(number)).collect();
    let tally = Arc::new(Tally::default());
    let writers: Vec<_> = (0..options.clients)
        .map(|number| {
            let writer = Writer::new(&format!("load-{number}"), sockets.clone(), usize::from(number));
            runtime.spawn(writer.write_until_told(Arc::clone(&tally)))
        })
        .collect();
    let mut gaps = Vec::new();
    for kill in 0..options.kills {
        gaps.push(kill_leader(&mut cluster, &runtime, kill).with_context(|| format!("kill {kill}"))?);
    }
    tally.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer)??;
    }
    let lost = tally.lost.load(Ordering::Relaxed);
    ensure!(lost == 0, "{lost} acknowledged writes are lost");
    let invented = tally.invented.load(Ordering::Relaxed);
    ensure!(invented == 0, "{invented} writes are there that nobody made");
    Ok(report(options, gaps, &tally))
}

fn report(options: &Options, gaps: Vec<Duration>, tally: &Tally) -> Report {
    let mut report = Report::new(&["FAILOVER", "FIGURE", "OF"]);
    let times = Times::of(gaps).expect("at least one kill");
    let of = format!("{} kills of the leader under the load of {} clients", times.count(), options.clients);
    report.row("first write after the kill, median", format!("{:.0} ms", times.median_ms()), of);
    report.figure("median_ms", times.median_ms());
    report.row("  the worst of them", format!("{:.0} ms", times.percentile_ms(100)), String::new());
    report.figure("worst_ms", times.percentile_ms(100));
    let acknowledged = tally.acknowledged.load(Ordering::Relaxed);
    report.row("acknowledged writes that are lost", "0".to_owned(), format!("{acknowledged} writes"));
    report.figure("lost_writes", 0);
    report.figure("writes", acknowledged);
    report
}

/// How long until a write that begins with the kill is acknowledged. Then the manager comes back.
fn kill_leader(cluster: &mut Cluster, runtime: &Runtime, kill: u32) -> anyhow::Result<Duration> {
    let leader = runtime.block_on(leader_of_all(&cluster.socket(1)))?;
    let survivor = cluster.socket(leader % MANAGERS + 1);
    let mut probe = Writer::new(&format!("probe-{kill}"), vec![survivor], 0);
    runtime.block_on(probe.find())?;
    let begin = Instant::now();
    cluster.kill(leader);
    runtime.block_on(async {
        while probe.write().await.is_err() {
            ensure!(begin.elapsed() < LIMIT, "no write for {} s", LIMIT.as_secs());
            tokio::time::sleep(RETRY).await;
            let _ = probe.find().await;
        }
        Ok(())
    })?;
    let took = begin.elapsed();
    cluster.restart(leader);
    Ok(took)
}

/// The leader, once all managers vote and can be reached.
async fn leader_of_all(socket: &Path) -> anyhow::Result<u16> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Ok(Some(leader)) = try_leader_of_all(socket).await {
            return Ok(leader);
        }
        if Instant::now() > end {
            bail!("not all managers vote after {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn try_leader_of_all(socket: &Path) -> anyhow::Result<Option<u16>> {
    let mut client = NodesClient::new(Operator::connect(socket).await?.channel());
    let nodes = client.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
    let reachable = nodes.iter().filter(|node| node.manager_status() == v1::ManagerStatus::Reachable).count();
    let leader = nodes.iter().find(|node| node.leader).and_then(|node| node.engine.as_ref());
    let number = leader.and_then(|engine| engine.hostname.strip_prefix("node-")?.parse().ok());
    Ok(number.filter(|_| reachable + 1 == usize::from(MANAGERS)))
}
