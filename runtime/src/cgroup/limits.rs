//! Limits in the words of both cgroup versions.

use std::path::Path;

use super::{Cgroup, CgroupError, Controller, write_file};
use crate::spec::{DEFAULT_PIDS_LIMIT, Resources};

/// Period over which CPU time is limited. Docker's and Kubernetes' value.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// Least quota that the kernel takes.
const CPU_QUOTA_LEAST_MICROS: u64 = 1_000;

pub fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    let unified = cgroup.unified.as_deref();
    if let Some(path) = cgroup.legacy_directory(Controller::Memory) {
        legacy_memory(path, resources)?;
    }
    if let Some(path) = cgroup.legacy_directory(Controller::Cpu) {
        legacy_cpu(path, resources)?;
    }
    let pids = resources.pids.unwrap_or(DEFAULT_PIDS_LIMIT).to_string();
    if let Some(path) = cgroup.legacy_directory(Controller::Pids) {
        write_file(&path.join("pids.max"), &pids)?;
    }
    if let (Some(path), true) = (unified, cgroup.legacy.is_empty()) {
        write_file(&path.join("pids.max"), &pids)?;
        unified_memory_and_cpu(path, resources)?;
    }
    Ok(())
}

pub fn apply_cpu_quota(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    let Some(nanos) = resources.cpu_nanos else { return Ok(()) };
    let quota = quota_micros(nanos);
    match (cgroup.legacy_directory(Controller::Cpu), &cgroup.unified) {
        (Some(path), _) => {
            write_file(&path.join("cpu.cfs_period_us"), &CPU_PERIOD_MICROS.to_string())?;
            write_file(&path.join("cpu.cfs_quota_us"), &quota.to_string())
        }
        (None, Some(path)) => write_file(&path.join("cpu.max"), &format!("{quota} {CPU_PERIOD_MICROS}")),
        (None, None) => Ok(()),
    }
}

fn legacy_memory(path: &Path, resources: &Resources) -> Result<(), CgroupError> {
    let Some(bytes) = resources.memory_bytes else { return Ok(()) };
    let bytes = bytes.to_string();
    write_file(&path.join("memory.limit_in_bytes"), &bytes)?;
    // Absent where the kernel does not account swap.
    let with_swap = path.join("memory.memsw.limit_in_bytes");
    if with_swap.exists() {
        write_file(&with_swap, &bytes)?;
    }
    Ok(())
}

fn legacy_cpu(path: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(shares) = resources.cpu_shares {
        write_file(&path.join("cpu.shares"), &shares.to_string())?;
    }
    Ok(())
}

fn unified_memory_and_cpu(path: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(bytes) = resources.memory_bytes {
        write_file(&path.join("memory.max"), &bytes.to_string())?;
        let swap = path.join("memory.swap.max");
        if swap.exists() {
            write_file(&swap, "0")?;
        }
    }
    if let Some(shares) = resources.cpu_shares {
        write_file(&path.join("cpu.weight"), &weight(shares).to_string())?;
    }
    Ok(())
}

/// CPU time per period, of CPU nanoseconds per second.
fn quota_micros(nanos: u64) -> u64 {
    let micros_per_second = nanos / 1_000;
    let periods_per_second = 1_000_000 / CPU_PERIOD_MICROS;
    (micros_per_second / periods_per_second).max(CPU_QUOTA_LEAST_MICROS)
}

/// Version 1 shares (2 to 262,144) on version 2's scale (1 to 10,000), as runc converts them.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_per_period_and_never_less_than_the_kernel_takes() {
        assert_eq!(quota_micros(1_500_000_000), 150_000);
        assert_eq!(quota_micros(1), 1_000);
    }

    #[test]
    fn shares_cover_the_whole_scale_of_weights() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 39, 10_000, 10_000]);
    }
}
