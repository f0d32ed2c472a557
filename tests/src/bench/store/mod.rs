//! How fast a manager's store is: entries of the log applied in memory, and writes acknowledged from disk.
//!
//! Both are the manager's own code, Raft included; there is one manager, no network and no agent.

mod acknowledge;
mod apply;
mod world;

use std::path::PathBuf;

use super::Report;
use super::figures::rounded;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Nodes that the tasks are placed on
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    nodes: u32,
    /// Services, each of 1,000 tasks
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    services: u32,
    /// Clients that write at the same time
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Writes of all clients together
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    writes: u32,
    /// Directory on the disk that is to be measured; by default that of temporary files
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// # Errors
/// A store that was rebuilt from its log differs, or an acknowledged write is gone after a restart.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new(&["what", "figure", "of"]);

    let applied = apply::measure(options.nodes, options.services)?;
    let per_second = applied.objects as f64 / applied.replay.as_secs_f64();
    report.row("objects applied per second", format!("{per_second:.0}"), format!("{}", applied.objects));
    report.row("log entries that held them", applied.entries.to_string(), applied.bytes_text());
    report.figure("apply_per_s", rounded(per_second));
    report.figure("log_bytes_per_object", rounded(applied.bytes as f64 / applied.objects as f64));

    let root = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let alone = acknowledge::measure(&root, 1, options.writes.div_ceil(50))?;
    let together = acknowledge::measure(&root, options.clients, options.writes)?;
    let rate =
        |measured: &acknowledge::Measured| measured.times.count() as f64 / measured.whole.as_secs_f64();
    let clients = |count: u32, measured: &acknowledge::Measured| {
        format!("{} writes, {count} clients", measured.times.count())
    };
    report.row("one write, median ms", format!("{}", alone.times.median_ms()), clients(1, &alone));
    report.row("one write, p99 ms", format!("{}", alone.times.percentile_ms(99)), String::new());
    report.row("writes per second", format!("{:.0}", rate(&together)), clients(options.clients, &together));
    report.row("one of them, p99 ms", format!("{}", together.times.percentile_ms(99)), String::new());
    report.figure("write_median_ms", alone.times.median_ms());
    report.figure("write_p99_ms", alone.times.percentile_ms(99));
    report.figure("writes_per_s", rounded(rate(&together)));
    report.figure("write_loaded_p99_ms", together.times.percentile_ms(99));
    Ok(report)
}
