//! `swarm-bench scheduler`: services with reservations, constraints and spread preferences are placed on clusters of
//! three sizes; then single tasks are replaced. Every placement is recorded, and checked outside of the timing.

mod check;
mod measure;
mod workload;

use serde_json::Value;

use super::Report;
use measure::{Measured, measure};

/// Sizes of the clusters, and how the figures call them.
const SIZES: [(u32, &str); 3] = [(1_000, "1k"), (10_000, "10k"), (100_000, "100k")];

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Tasks to place on each cluster
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u32,
    /// Tasks of each service
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Tasks to replace one by one afterwards
    #[arg(long, default_value_t = 50_000)]
    replacements: u32,
}

/// Runs it.
///
/// # Errors
/// The first placement that the checker refuses.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new(&[
        "nodes",
        "tasks",
        "placements/s",
        "replacements/s",
        "slowest plan",
        "nodes in",
        "checked",
    ]);
    for (nodes, name) in SIZES {
        let measured = measure(nodes, options.tasks, options.replicas, options.replacements)?;
        let Measured { placements_per_s, replacements_per_s, slowest_plan, nodes_in, checked } = measured;
        report.table.add_row([
            nodes.to_string(),
            options.tasks.to_string(),
            format!("{placements_per_s:.0}"),
            format!("{replacements_per_s:.0}"),
            format!("{:.1} ms", slowest_plan.as_secs_f64() * 1e3),
            format!("{:.0} ms", nodes_in.as_secs_f64() * 1e3),
            format!("all, {checked} against every node"),
        ]);
        report.figure(format!("placements_per_s_{name}"), Value::from(placements_per_s.round() as u64));
        report.figure(format!("replacements_per_s_{name}"), Value::from(replacements_per_s.round() as u64));
    }
    Ok(report)
}
