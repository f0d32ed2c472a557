//! `swarm-bench`: the benchmarks, a subcommand each. Exits 1 if a result is wrong.

use clap::{Parser, Subcommand};
use swarm_runtime::allocator::Allocator;
use swarm_tests::bench::{commit, failover, fleet, node_loss, scheduler, start, store, submit};
use tracing_subscriber::EnvFilter;

/// Measures parts of the system and checks that what they did is right.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Print one JSON object with the figures as the last line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Placements per second over 1,000, 10,000 and 100,000 nodes, on one core
    Scheduler(scheduler::Options),
    /// Time and memory that real containers take to start; `runc` and `crun` beside it (root)
    Start(start::Options),
    /// Log entries applied per second, and writes acknowledged from disk per second
    Store(store::Options),
    /// Time until all replicas run on many agents without containers, and what it costs the manager
    Fleet(fleet::Options),
    /// Time from an API call to running containers, with real daemons as three hosts (root)
    Submit(submit::Options),
    /// Time without writes after the leader of three real managers is killed under load; lost writes (root)
    Failover(failover::Options),
    /// Writes per second that three real managers commit to their disks, and how long one takes (root)
    Commit(commit::Options),
    /// Time until the tasks of a lost host run elsewhere; nodes that are taken for lost and are not (root)
    NodeLoss(node_loss::Options),
    #[command(hide = true)]
    FleetManager(fleet::ServeOptions),
}

/// As the daemon has it: simulated agents are its code.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> anyhow::Result<()> {
    if std::env::args_os().nth(1).is_some_and(|first| first == swarm_runtime::shim::ARGUMENT) {
        swarm_runtime::shim::main(std::env::args_os().skip(2));
    }
    ALLOCATOR.serve_daemon();
    let arguments = Arguments::parse();
    // What simulated agents log, where it is asked for.
    if let Ok(filter) = EnvFilter::try_from_env("SWARM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let report = match &arguments.benchmark {
        Benchmark::Scheduler(options) => scheduler::run(options)?,
        Benchmark::Start(options) => start::run(options)?,
        Benchmark::Store(options) => store::run(options)?,
        Benchmark::Fleet(options) => fleet::run(options)?,
        Benchmark::Submit(options) => submit::run(options)?,
        Benchmark::Failover(options) => failover::run(options)?,
        Benchmark::Commit(options) => commit::run(options)?,
        Benchmark::NodeLoss(options) => node_loss::run(options)?,
        Benchmark::FleetManager(options) => return fleet::serve(options),
    };
    println!("{}", report.table);
    if arguments.json {
        println!("{}", serde_json::Value::Object(report.figures));
    }
    Ok(())
}
