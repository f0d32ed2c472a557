//! Faults on real processes, one after the other, under load: the managers' and workers' daemons are killed, stopped, cut off,
//! run out of disk and are all restarted at once, while clients write and read.
//!
//! After every fault the cluster is healed and must converge: one leader that all managers agree on, every node ready,
//! every task running once. What only hits the control plane must not be noticed by containers or their clients at all.
//! No acknowledged write may be lost. Which faults hit what follows from a seed; when things happen does not.

mod checks;
mod faults;
mod traffic;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::e2e::{Cluster, Options as ClusterOptions, demo_image};
use crate::load::{Tally, Writer};
pub use faults::Fault;
use traffic::Traffic;

/// The first three nodes are managers, and run tasks as the others do.
const MANAGERS: u16 = 3;
const NODES: u16 = 5;
const WRITERS: usize = 6;
const SERVICE: &str = "web";
const REPLICAS: usize = 5;
const PORT: u16 = 8080;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rounds of all kinds of faults, each in an order of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,
    /// Decides the order of faults and whom they hit
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only this kind of fault (may be repeated)
    #[arg(long = "fault", value_enum)]
    pub faults: Vec<Fault>,
    /// Where to keep the daemons' logs; without it, their ends are printed if a fault is not survived
    #[arg(long, value_name = "DIRECTORY")]
    pub logs: Option<PathBuf>,
}

/// What was survived.
#[derive(Debug, Clone)]
pub struct Survived {
    pub faults: u32,
    pub writes: u64,
    pub requests: u64,
    /// From the end of a fault until everything was as it should be, the longest.
    pub slowest: (Fault, Duration),
}

/// # Errors
/// The cluster did not converge after a fault, something noticed a fault that must not, or a write was lost.
///
/// # Panics
/// The daemons cannot be started.
pub fn run(options: &Options, mut tell: impl FnMut(&str)) -> anyhow::Result<Survived> {
    let size = ClusterOptions { nodes: NODES, managers: MANAGERS, ..ClusterOptions::default() };
    let mut cluster = Cluster::with(ClusterOptions { small_disks: MANAGERS, ..size });
    deploy(&cluster)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sockets: Vec<PathBuf> = (1..=MANAGERS).map(|number| cluster.socket(number)).collect();
    let tally = Arc::new(Tally::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let writer = Writer::new(&format!("load-{number}"), sockets.clone(), number);
            runtime.spawn(writer.write_until_told(Arc::clone(&tally)))
        })
        .collect();
    let traffic = Traffic::start((1..=NODES).map(|number| cluster.endpoint(number, PORT)).collect());
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut survived =
        Survived { faults: 0, writes: 0, requests: 0, slowest: (Fault::KillLeader, Duration::ZERO) };
    for _ in 0..options.rounds {
        let mut kinds = if options.faults.is_empty() { Fault::all() } else { options.faults.clone() };
        kinds.shuffle(&mut random);
        for fault in kinds {
            let took = one(fault, &mut cluster, &traffic, &mut random)
                .inspect_err(|_| keep_logs(&cluster, options))
                .with_context(|| {
                    format!("fault {} ({fault:?}), seed {}", survived.faults + 1, options.seed)
                })?;
            survived.faults += 1;
            if took > survived.slowest.1 {
                survived.slowest = (fault, took);
            }
            let writes = tally.acknowledged.load(Ordering::Relaxed);
            tell(&format!(
                "{:>3}  {fault:?}: whole again after {:.1} s, {writes} writes so far",
                survived.faults,
                took.as_secs_f64()
            ));
        }
    }
    tally.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer)??;
    }
    survived.requests = traffic.stop();
    survived.writes = tally.acknowledged.load(Ordering::Relaxed);
    let (lost, invented) = (tally.lost.load(Ordering::Relaxed), tally.invented.load(Ordering::Relaxed));
    ensure!(lost == 0, "{lost} of {} acknowledged writes are lost", survived.writes);
    ensure!(invented == 0, "{invented} writes are there that nobody made");
    if let Some(directory) = &options.logs {
        cluster.copy_logs(directory);
    }
    cluster.finish();
    Ok(survived)
}

fn keep_logs(cluster: &Cluster, options: &Options) {
    match &options.logs {
        Some(directory) => cluster.copy_logs(directory),
        None => eprintln!("{}", cluster.logs()),
    }
}

fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    let image = demo_image("demo:1", "1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &image.display().to_string()]);
    let (replicas, port) = (REPLICAS.to_string(), format!("{PORT}:80"));
    cluster.ctl_ok(&["service", "create", "--name", SERVICE, "--replicas", &replicas, "-p", &port, "demo:1"]);
    checks::wait_whole(cluster).map(drop)
}

/// One fault and its end; how long the cluster took to be whole again.
fn one(
    fault: Fault,
    cluster: &mut Cluster,
    traffic: &Traffic,
    random: &mut StdRng,
) -> anyhow::Result<Duration> {
    let before = checks::containers(cluster)?;
    let failed = traffic.failed();
    fault.strike(cluster, random)?;
    let healed = Instant::now();
    checks::wait_whole(cluster)?;
    let took = healed.elapsed();
    if fault.is_of_the_control_plane() {
        let after = checks::containers(cluster)?;
        ensure!(after == before, "containers were replaced:\n{before:?}\n{after:?}");
        let lost = traffic.failed().saturating_sub(failed);
        ensure!(lost == 0, "{lost} requests failed: {:?}", traffic.last_failure());
    }
    Ok(took)
}
