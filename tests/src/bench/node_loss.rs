//! How long until the tasks of a lost host run elsewhere, with real daemons and containers: a host that loses its power,
//! and one whose daemon hangs. And whether a fleet of agents at full CPU loses a node that is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use swarm_proto::v1;
use swarm_proto::v1::nodes_client::NodesClient;

use super::Report;
use super::figures::rounded;
use super::fleet::agents::Fleet;
use super::managers::Managers;
use super::operator::service_spec;
use super::process::load_average;
use crate::e2e::busybox_image;

const MANAGERS: u16 = 3;
const WORKERS: u16 = 3;
const REPLICAS: u32 = 9;
const IMAGE: &str = "swarm-bench-busybox:1";
/// Between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Agents that must not be lost, while every CPU is busy; 0 leaves this part out
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(0..=4_000))]
    agents: u16,
    /// For how long they are watched
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=600))]
    minutes: u16,
}

/// # Errors
/// Tasks do not come back.
///
/// # Panics
/// The daemons cannot be started.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let load = load_average();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new(&["NODE LOSS", "FIGURE", "OF"]);
    let of = format!("{REPLICAS} tasks on {WORKERS} hosts; load average {load} before");
    report.figure("load_average", load);
    let crash =
        rounded(lose(&runtime, |managers, number| managers.cluster.crash_host(number))?.as_secs_f64());
    report.row("a host without power: its tasks run elsewhere", format!("{crash:.2} s"), of.clone());
    report.figure("crash_s", crash);
    let hang = rounded(lose(&runtime, stop_daemon)?.as_secs_f64());
    report.row("a host that hangs: its tasks run elsewhere", format!("{hang:.2} s"), of);
    report.figure("hang_s", hang);
    if options.agents > 0 {
        let lost = runtime.block_on(watch_a_busy_fleet(options))?;
        let of = format!("{} agents, all CPUs busy for {} min", options.agents, options.minutes);
        report.row("nodes that were taken for lost", lost.to_string(), of);
        report.figure("false_downs", lost);
        report.figure("minutes", options.minutes);
    }
    Ok(report)
}

/// The last worker is lost; how long until as many tasks as it had run elsewhere.
fn lose(
    runtime: &tokio::runtime::Runtime,
    fault: impl FnOnce(&mut Managers, u16),
) -> anyhow::Result<Duration> {
    let mut managers = Managers::with_workers(MANAGERS, WORKERS)?;
    let archive = busybox_image(IMAGE).write(managers.cluster.directory());
    managers.cluster.ctl_ok(&["image", "load", "-i", archive.to_str().context("a path in UTF-8")?]);
    let leader = runtime.block_on(managers.leader())?;
    let operator = runtime.block_on(managers.operator(leader))?;
    let image = v1::ImageRef { name: IMAGE.to_owned(), ..v1::ImageRef::default() };
    let mut service = runtime.block_on(operator.run(service_spec("web", image, REPLICAS), REPLICAS))?;
    runtime.block_on(operator.check_none_ended(&service))?;
    let victim = MANAGERS + WORKERS;
    let host = format!("node-{victim}");
    let theirs = managers.cluster.running("web").iter().filter(|task| task.node == host).count();
    ensure!(theirs > 0, "no task runs on {host}");
    let begin = Instant::now();
    fault(&mut managers, victim);
    runtime.block_on(operator.replaced(&mut service))?;
    Ok(begin.elapsed())
}

/// Dropping the cluster kills it all the same.
fn stop_daemon(managers: &mut Managers, number: u16) {
    let pid = i32::try_from(managers.cluster.daemon_pid(number)).ok().and_then(Pid::from_raw);
    let stopped = pid.map(|pid| kill_process(pid, Signal::STOP));
    assert!(matches!(stopped, Some(Ok(()))), "the daemon of node {number} cannot be stopped");
}

/// How many nodes were ever seen down.
async fn watch_a_busy_fleet(options: &Options) -> anyhow::Result<usize> {
    let managers = Managers::start(MANAGERS)?;
    let leader = managers.leader().await?;
    let operator = managers.operator(leader).await?;
    let token = operator.worker_token().await?;
    let fleet = Fleet::join(&token, &managers.addresses(), options.agents).await?;
    operator.wait_for_nodes(usize::from(options.agents) + usize::from(MANAGERS)).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let cpus = std::thread::available_parallelism()?.get();
    let busy: Vec<_> = (0..cpus).map(|_| std::thread::spawn(spin(Arc::clone(&stop)))).collect();
    let mut nodes = NodesClient::new(operator.channel()).max_decoding_message_size(64 << 20);
    let end = Instant::now() + Duration::from_secs(60) * u32::from(options.minutes);
    let mut lost = BTreeSet::new();
    while Instant::now() < end {
        let list = nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
        let down = list.into_iter().filter(|node| node.state() == v1::NodeState::Down);
        lost.extend(down.map(|node| node.id));
        tokio::time::sleep(LOOK).await;
    }
    stop.store(true, Ordering::Relaxed);
    for thread in busy {
        let _ = thread.join();
    }
    fleet.stop().await;
    Ok(lost.len())
}

fn spin(stop: Arc<AtomicBool>) -> impl FnOnce() + Send {
    move || {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
}
