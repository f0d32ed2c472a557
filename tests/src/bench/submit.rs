//! From an API call to running containers, with real `swarmd` processes as three hosts in network namespaces: one task
//! on an idle cluster, and a hundred at once.
//!
//! The image is on every node beforehand, and calls go to the manager's socket directly: neither a pull nor the start of
//! a command line tool is part of the figures.

use std::time::Duration;

use anyhow::Context;
use swarm_proto::v1;

use super::Report;
use super::figures::Times;
use super::operator::{Operator, service_spec};
use crate::e2e::{Cluster, busybox_image};

const NODES: u16 = 3;
const IMAGE: &str = "swarm-bench-busybox:1";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Services of one task, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Replicas of the large service
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=3_000))]
    replicas: u32,
    /// Times that the large service is made; the figure is the median
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// # Errors
/// A service is refused, or a task does not run.
///
/// # Panics
/// The cluster does not come up, or a host holds something when all services are gone.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let cluster = Cluster::start(NODES);
    let archive = busybox_image(IMAGE).write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", archive.to_str().context("a path in UTF-8")?]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (single, large) = runtime.block_on(measure(options, &cluster))?;
    cluster.finish();
    let mut report = Report::new(&["SUBMIT", "FIGURE", "OF"]);
    let of = format!("{} services, one after the other", single.count());
    report.row("one task until it runs, median", format!("{:.1} ms", single.median_ms()), of);
    report.figure("median_ms", single.median_ms());
    report.row("  the slowest of them", format!("{:.1} ms", single.percentile_ms(100)), String::new());
    report.figure("slowest_ms", single.percentile_ms(100));
    let of = format!("median of {} times, on {NODES} nodes", large.count());
    let what = format!("{} replicas until all run", options.replicas);
    report.row(&what, format!("{:.2} s", large.median_s()), of);
    report.figure("hundred_running_s", large.median_s());
    Ok(report)
}

async fn measure(options: &Options, cluster: &Cluster) -> anyhow::Result<(Times, Times)> {
    let operator = Operator::connect(&cluster.socket(1)).await?;
    // Brings the image to every node.
    run_once(&operator, "warm", u32::from(NODES) * 2).await?;
    let mut single = Vec::new();
    for number in 0..options.count {
        single.push(run_once(&operator, &format!("one-{number}"), 1).await?);
    }
    let mut large = Vec::new();
    for number in 0..options.rounds {
        large.push(run_once(&operator, &format!("many-{number}"), options.replicas).await?);
    }
    let times = |times| Times::of(times).context("nothing was measured");
    Ok((times(single)?, times(large)?))
}

async fn run_once(operator: &Operator, name: &str, replicas: u32) -> anyhow::Result<Duration> {
    let image = v1::ImageRef { name: IMAGE.to_owned(), ..v1::ImageRef::default() };
    let service = operator.run(service_spec(name, image, replicas), replicas).await?;
    operator.check_none_ended(&service).await?;
    let took = service.took;
    operator.remove(service).await?;
    Ok(took)
}
