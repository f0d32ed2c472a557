//! How much memory shims have to themselves.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

/// A shim gives memory back after its container has started.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// In KiB, once it does not change any more.
pub fn median_of_shims(shims: &[i32]) -> anyhow::Result<u64> {
    let end = Instant::now() + LIMIT;
    let mut last = median(shims)?;
    loop {
        thread::sleep(POLL);
        let now = median(shims)?;
        if now == last || Instant::now() > end {
            return Ok(now);
        }
        last = now;
    }
}

fn median(shims: &[i32]) -> anyhow::Result<u64> {
    let mut all = shims.iter().map(|pid| private_kib(*pid)).collect::<anyhow::Result<Vec<u64>>>()?;
    all.sort_unstable();
    all.get(all.len() / 2).copied().context("no shim to measure")
}

/// Pages that no other process has, clean or dirty.
fn private_kib(pid: i32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).context(path)?;
    let lines = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    let kib = lines.map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    kib.sum::<Option<u64>>().context("the kernel's figures have changed their form")
}
