//! The same with several managers, each a real daemon: agents join, a service is made and grows by a tenth; one more
//! manager joins; the leader is killed and comes back, then all managers; and the service is removed.

use std::time::{Duration, Instant};

use swarm_proto::v1;
use tokio::runtime::Runtime;

use super::agents::Fleet;
use super::{Options, check};
use crate::bench::Report;
use crate::bench::figures::rounded;
use crate::bench::managers::Managers;
use crate::bench::operator::{Service, service_spec};
use crate::bench::process::{Usage, load_average, peak_memory_bytes};

/// What one phase took, and used.
struct Phase {
    name: &'static str,
    took: Duration,
    leader: Duration,
    followers: Duration,
    agents: Duration,
}

/// Usage of the leader, of all followers together, and of this process.
struct Used([Usage; 3]);

/// # Errors
/// As [`super::run`].
///
/// # Panics
/// The daemons cannot be started.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let load = load_average();
    let mut managers = Managers::with_spare(options.managers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut report, fleet, service) = runtime
        .block_on(measure(options, &managers, &load))
        .inspect_err(|_| eprintln!("{}", managers.cluster.logs()))?;
    join(&runtime, &managers, &mut report)?;
    restart(&runtime, &mut managers, &mut report)?;
    if options.rounds > 1 {
        let leader = runtime.block_on(managers.leader())?;
        let removed = runtime.block_on(remove(&managers, leader, service))?;
        show(&mut report, &removed);
    }
    runtime.block_on(fleet.stop());
    let slowest = managers.slowest_batch_ms()?;
    report.row("longest batch of a core", format!("{slowest} ms"), "0: none took 100 ms".to_owned());
    report.figure("slowest_batch_ms", slowest);
    Ok(report)
}

/// One more manager, which has all of it from the leader.
fn join(runtime: &Runtime, managers: &Managers, report: &mut Report) -> anyhow::Result<()> {
    let leader = runtime.block_on(managers.leader())?;
    let before = managers.usage(leader)?;
    let took = managers.join_spare()?;
    let peak = peak_memory_bytes(managers.cluster.daemon_pid(leader))?;
    let cpu = rounded(managers.usage(leader)?.since(before).cpu.as_secs_f64());
    let grown = peak.saturating_sub(before.resident_bytes) >> 20;
    let of = format!("CPU: leader {cpu:.2} s; its memory rose by {grown} MiB at most");
    report.row("one more manager joins and votes", format!("{:.2} s", took.as_secs_f64()), of);
    report.figure("manager_joins_s", rounded(took.as_secs_f64()));
    report.figure("manager_joins_leader_cpu_s", cpu);
    Ok(())
}

/// With all tasks in their logs and checkpoints: one manager, then all at once.
fn restart(runtime: &Runtime, managers: &mut Managers, report: &mut Report) -> anyhow::Result<()> {
    let leader = runtime.block_on(managers.leader())?;
    let begin = Instant::now();
    managers.cluster.kill(leader);
    managers.cluster.restart(leader);
    runtime.block_on(serves(managers, leader))?;
    let took = rounded(begin.elapsed().as_secs_f64());
    report.row("the leader is killed, comes back and serves", format!("{took:.2} s"), String::new());
    report.figure("restart_s", took);
    let begin = Instant::now();
    let all: Vec<u16> = managers.with_joined().collect();
    all.iter().for_each(|number| managers.cluster.kill(*number));
    for number in &all {
        managers.cluster.start_daemon(*number);
    }
    for number in &all {
        managers.cluster.wait_listening(*number);
        runtime.block_on(serves(managers, *number))?;
    }
    let took = rounded(begin.elapsed().as_secs_f64());
    let of = format!("{} managers", all.len());
    report.row("all managers are killed, come back and serve", format!("{took:.2} s"), of);
    report.figure("restart_all_s", took);
    Ok(())
}

/// The manager answers a linearizable read: it has its state, and knows a leader.
async fn serves(managers: &Managers, number: u16) -> anyhow::Result<()> {
    let operator = managers.operator(number).await?;
    operator.log_entries().await.map(drop)
}

async fn remove(managers: &Managers, leader: u16, service: Service) -> anyhow::Result<Phase> {
    let operator = managers.operator(leader).await?;
    let (before, begin) = (used(managers, leader)?, Instant::now());
    operator.remove(service).await?;
    Ok(phase("all removed", begin.elapsed(), &before, &used(managers, leader)?))
}

async fn measure(
    options: &Options,
    managers: &Managers,
    load: &str,
) -> anyhow::Result<(Report, Fleet, Service)> {
    let leader = managers.leader().await?;
    let operator = managers.operator(leader).await?;
    let term = operator.term().await?;
    let token = operator.worker_token().await?;
    let replicas = options.replicas;
    let mut phases = Vec::new();

    let (before, begin) = (used(managers, leader)?, Instant::now());
    let fleet = Fleet::join(&token, &managers.addresses(), options.agents).await?;
    operator.wait_for_nodes(usize::from(options.agents) + managers.all().count()).await?;
    phases.push(phase("agents join", begin.elapsed(), &before, &used(managers, leader)?));

    let rss: Vec<u64> = resident(managers)?;
    let (entries, bytes) = (operator.log_entries().await?, managers.log_bytes(leader)?);
    let image = v1::ImageRef { name: "shop/web:1".to_owned(), no_resolve: true, ..v1::ImageRef::default() };
    let before = used(managers, leader)?;
    let mut service = operator.run(service_spec("web", image, replicas), replicas).await?;
    phases.push(phase("all replicas run", service.took, &before, &used(managers, leader)?));
    let entries = operator.log_entries().await? - entries;
    let bytes = managers.log_bytes(leader)? - bytes;
    check(options, &fleet)?;
    let grown: Vec<u64> =
        resident(managers)?.iter().zip(&rss).map(|(now, before)| now.saturating_sub(*before)).collect();

    let before = used(managers, leader)?;
    let took = operator.scale(&mut service, replicas + replicas.div_ceil(10)).await?;
    phases.push(phase("a tenth more run", took, &before, &used(managers, leader)?));
    operator.check_none_ended(&service).await?;

    let mut report = report(options, &phases, load);
    let per_task = |figure: u64| figure as f64 / f64::from(replicas);
    report.row("log entries per task", format!("{:.4}", per_task(entries)), format!("{entries} in all"));
    report.figure("log_entries_per_task", (per_task(entries) * 1e4).round() / 1e4);
    report.row("log bytes per task", format!("{:.0}", per_task(bytes)), "of the leader".to_owned());
    report.figure("log_bytes_per_task", per_task(bytes).round());
    for (number, grown) in managers.all().zip(&grown) {
        let what = if number == leader { "memory per task, leader" } else { "memory per task, follower" };
        report.row(what, format!("{:.0} B", per_task(*grown)), "growth of resident memory".to_owned());
        let name = if number == leader { "leader".to_owned() } else { format!("follower_{number}") };
        report.figure(format!("{name}_bytes_per_task"), per_task(*grown).round());
    }
    let elections = operator.term().await? - term;
    report.row("elections meanwhile", elections.to_string(), String::new());
    report.figure("elections", elections);
    Ok((report, fleet, service))
}

fn resident(managers: &Managers) -> anyhow::Result<Vec<u64>> {
    managers.all().map(|number| Ok(managers.usage(number)?.resident_bytes)).collect()
}

fn used(managers: &Managers, leader: u16) -> anyhow::Result<Used> {
    let mut followers = Usage { cpu: Duration::ZERO, resident_bytes: 0 };
    for number in managers.all().filter(|number| *number != leader) {
        followers.cpu += managers.usage(number)?.cpu;
    }
    Ok(Used([managers.usage(leader)?, followers, Usage::of(std::process::id())?]))
}

fn phase(name: &'static str, took: Duration, before: &Used, after: &Used) -> Phase {
    let cpu = |of: usize| after.0[of].since(before.0[of]).cpu;
    Phase { name, took, leader: cpu(0), followers: cpu(1), agents: cpu(2) }
}

fn report(options: &Options, phases: &[Phase], load: &str) -> Report {
    let mut report = Report::new(&["FLEET", "FIGURE", "OF"]);
    let Options { managers, agents, replicas, .. } = options;
    let of = format!("{replicas} replicas, {agents} agents; load average {load} before");
    report.row("managers", managers.to_string(), of);
    report.figure("load_average", load);
    phases.iter().for_each(|phase| show(&mut report, phase));
    report
}

fn show(report: &mut Report, phase: &Phase) {
    let seconds = |time: Duration| rounded(time.as_secs_f64());
    let (leader, followers, agents) =
        (seconds(phase.leader), seconds(phase.followers), seconds(phase.agents));
    let of = format!("CPU: leader {leader:.2} s, followers {followers:.2} s, agents {agents:.2} s");
    report.row(phase.name, format!("{:.2} s", seconds(phase.took)), of);
    let name = phase.name.replace(' ', "_");
    report.figure(format!("{name}_s"), seconds(phase.took));
    report.figure(format!("{name}_leader_cpu_s"), leader);
    report.figure(format!("{name}_agents_cpu_s"), agents);
}
