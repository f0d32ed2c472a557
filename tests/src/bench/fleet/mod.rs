//! A fleet: one manager with a disk, many agents without containers, gRPC over TLS between them on loopback. How long
//! until all replicas of a service run, and what that costs the manager.
//!
//! The manager is a process of its own, so that its memory and CPU time are its own; all agents share another.

pub mod agents;
mod manager;
mod three;

use std::time::Duration;

use anyhow::ensure;
use swarm_proto::v1;

use super::Report;
use super::figures::{Times, rounded};
use super::operator::{Operator, service_spec};
use super::process::{self, Usage};
use agents::Fleet;
use manager::ManagerProcess;
pub use manager::{ServeOptions, serve};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Nodes, each with an agent and a certificate of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4_000))]
    agents: u16,
    /// Tasks of the service
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    replicas: u32,
    /// Managers; several are real daemons on hosts of their own (root)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    managers: u16,
    /// Services that are made and removed, one after the other; the times are medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// What one service cost until all of its tasks ran.
#[derive(Debug)]
struct Round {
    took: Duration,
    log_entries: u64,
    manager: Usage,
    agents: Usage,
}

/// # Errors
/// Nodes cannot join, a task does not run, or tasks are not spread evenly.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    if options.managers > 1 {
        return three::run(options);
    }
    process::allow_open_files(u64::from(options.agents) * 4 + 1_024)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Report> {
    let home = tempfile::Builder::new().prefix("swarm-bench-").tempdir()?;
    let manager = ManagerProcess::start(home.path())?;
    let operator = Operator::connect(manager.socket()).await?;
    let token = operator.worker_token().await?;
    let fleet = Fleet::join(&token, &[manager.address().to_owned()], options.agents).await?;
    operator.wait_for_nodes(usize::from(options.agents)).await?;
    let mut rounds = Vec::new();
    for number in 0..options.rounds {
        rounds.push(round(options, number, &operator, &fleet, &manager).await?);
    }
    let peak_bytes = process::peak_memory_bytes(manager.pid())?;
    fleet.stop().await;
    manager.stop()?;
    Ok(report(options, &rounds, peak_bytes))
}

async fn round(
    options: &Options,
    number: u32,
    operator: &Operator,
    fleet: &Fleet,
    manager: &ManagerProcess,
) -> anyhow::Result<Round> {
    let image = v1::ImageRef { name: "shop/web:1".to_owned(), no_resolve: true, ..v1::ImageRef::default() };
    let spec = service_spec(&format!("web-{number}"), image, options.replicas);
    let entries = operator.log_entries().await?;
    let before = (Usage::of(manager.pid())?, Usage::of(std::process::id())?);
    let service = operator.run(spec, options.replicas).await?;
    let after = (Usage::of(manager.pid())?, Usage::of(std::process::id())?);
    let log_entries = operator.log_entries().await? - entries;
    operator.check_none_ended(&service).await?;
    check(options, fleet)?;
    let took = service.took;
    operator.remove(service).await?;
    Ok(Round { took, log_entries, manager: after.0.since(before.0), agents: after.1.since(before.1) })
}

/// Every task runs somewhere, once, and no node has two more than another.
fn check(options: &Options, fleet: &Fleet) -> anyhow::Result<()> {
    let running = fleet.running();
    let all: usize = running.iter().sum();
    ensure!(all == options.replicas as usize, "{all} tasks run on the agents, not {}", options.replicas);
    let (least, most) = (running.iter().min(), running.iter().max());
    let even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
    ensure!(even, "one agent has {most:?} tasks, another {least:?}");
    Ok(())
}

fn report(options: &Options, rounds: &[Round], peak_bytes: u64) -> Report {
    let mut report = Report::new(&["FLEET", "FIGURE", "OF"]);
    let Options { agents, replicas, .. } = options;
    let times = Times::of(rounds.iter().map(|round| round.took).collect()).expect("at least one round");
    let of = format!("median of {} services of {replicas} replicas on {agents} agents", rounds.len());
    report.row("until all run", format!("{:.3} s", times.median_s()), of);
    report.figure("running_all_s", times.median_s());
    report.row("  the slowest of them", format!("{:.3} s", times.longest_s()), String::new());
    report.figure("running_all_slowest_s", times.longest_s());
    let count = rounds.len() as f64;
    let entries: u64 = rounds.iter().map(|round| round.log_entries).sum();
    let per_task = entries as f64 / (count * f64::from(*replicas));
    report.row("log entries per task", format!("{per_task:.4}"), format!("{entries} in all"));
    report.figure("log_entries_per_task", (per_task * 1e4).round() / 1e4);
    let rss_bytes = rounds.iter().map(|round| round.manager.resident_bytes).max().unwrap_or(0);
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    report.row("memory of the manager, all running", mib(rss_bytes), "resident".to_owned());
    report.figure("manager_rss_bytes", rss_bytes);
    report.row("  its peak", mib(peak_bytes), String::new());
    report.figure("manager_peak_rss_bytes", peak_bytes);
    let cpu = |usage: fn(&Round) -> Duration| {
        rounded(rounds.iter().map(usage).sum::<Duration>().as_secs_f64() / count)
    };
    let (manager_cpu, agents_cpu) = (cpu(|round| round.manager.cpu), cpu(|round| round.agents.cpu));
    report.row("CPU time of the manager", format!("{manager_cpu:.2} s"), "mean, until all run".to_owned());
    report.figure("manager_cpu_s", manager_cpu);
    report.row("CPU time of all agents", format!("{agents_cpu:.2} s"), "mean, until all run".to_owned());
    report.figure("agents_cpu_s", agents_cpu);
    report
}
