//! How long a container takes to start, everything included: its network, its root filesystem, limits, isolation and
//! the execution of its command. `runc run` and `crun run` of the same files are measured in turn with it.
//!
//! They have less to do: their root filesystem is no overlay, their network has no cable, and the specification that
//! they write themselves has no system call filter.

mod host;
mod leaks;
mod memory;
mod reference;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Report;
use super::figures::{Times, milliseconds, rounded};
use host::Host;
use reference::Reference;

/// Tasks of a node have 1,012 addresses.
const MOST_AT_ONCE: u32 = 1_000;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Containers that are started one after the other
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Containers that are started at once, to see how many a second there are
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_AT_ONCE)))]
    burst: u32,
    /// Containers of the burst that are being started at any one time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
}

/// One container after the other.
#[derive(Debug, Default)]
struct Series {
    /// From the call until the command runs.
    started: Vec<Duration>,
    /// From the call until the command, `true`, has ended.
    ended: Vec<Duration>,
}

/// # Errors
/// A container does not start or end; something is left when all are removed.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let host = Host::open()?;
    let mut references = ["runc", "crun"].map(|program| Reference::prepare(program, &host));
    let mut series = Series::default();
    // The first of each only warms caches.
    for number in 0..=options.count {
        let measured = host.run_to_exit(number)?;
        if number > 0 {
            series.started.push(measured.started);
            series.ended.push(measured.ended);
        }
        for reference in &mut references {
            reference.run(number);
        }
    }
    let burst = burst(&host, options)?;
    let shim_private_kib = memory::median_of_shims(&burst.shims)?;
    host.remove_all(options.burst)?;
    let leaks = host.close()?;
    let report = report(&series, &references, &burst, shim_private_kib, &leaks)?;
    ensure!(leaks.is_empty(), "{}\nleft behind: {leaks:?}", report.table);
    Ok(report)
}

/// Containers that were started a few at a time, and run.
struct Burst {
    shims: Vec<i32>,
    count: u32,
    parallel: u32,
    took: Duration,
}

fn burst(host: &Host, options: &Options) -> anyhow::Result<Burst> {
    let begin = Instant::now();
    let shims = thread::scope(|scope| {
        let starters: Vec<_> = (0..options.parallel)
            .map(|first| {
                let numbers = (first..options.burst).step_by(options.parallel as usize);
                scope.spawn(move || numbers.map(|number| host.start_sleeper(number)).collect())
            })
            .collect();
        let results =
            starters.into_iter().map(|starter| starter.join().expect("starters return their errors"));
        results.collect::<anyhow::Result<Vec<Vec<i32>>>>()
    })?;
    let took = begin.elapsed();
    Ok(Burst { shims: shims.concat(), count: options.burst, parallel: options.parallel, took })
}

fn report(
    series: &Series,
    references: &[Reference],
    burst: &Burst,
    shim_private_kib: u64,
    leaks: &[String],
) -> anyhow::Result<Report> {
    let mut report = Report::new(&["START", "FIGURE", "OF"]);
    let started = Times::of(series.started.clone()).context("nothing measured")?;
    let ended = Times::of(series.ended.clone()).context("nothing measured")?;
    for (what, figure, ms) in [
        ("until the command runs, median", "median_ms", started.median_ms()),
        ("until the command runs, 99th percentile", "p99_ms", started.percentile_ms(99)),
        ("until `true` has ended, median", "to_exit_median_ms", ended.median_ms()),
    ] {
        report.row(what, format!("{ms:.2} ms"), format!("{} containers", started.count()));
        report.figure(figure, ms);
    }
    for reference in references {
        let (text, of, value) = match reference.times() {
            Ok(times) => {
                let ms = times.median_ms();
                (format!("{ms:.2} ms"), format!("{} containers", times.count()), Value::from(ms))
            }
            Err(reason) => ("-".to_owned(), reason, Value::Null),
        };
        report.row(&format!("`{} run` of `true` to its end, median", reference.program()), text, of);
        report.figure(format!("{}_median_ms", reference.program()), value);
    }
    let per_second = rounded(f64::from(burst.count) / burst.took.as_secs_f64());
    let of = format!("{} in {:.0} ms, {} at a time", burst.count, milliseconds(burst.took), burst.parallel);
    report.row("started a second", format!("{per_second:.0}"), of);
    report.figure("starts_per_s", per_second);
    let of = format!("median of {} shims", burst.shims.len());
    report.row("private memory of a shim", format!("{shim_private_kib} KiB"), of);
    report.figure("shim_private_kib", shim_private_kib);
    report.row(
        "left behind",
        leaks.len().to_string(),
        "mounts, cgroups, networks, processes, directories".to_owned(),
    );
    report.figure("leaks", leaks.len());
    Ok(report)
}
