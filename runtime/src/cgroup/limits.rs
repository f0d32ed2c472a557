//! Limits in the words of both cgroup versions.

use std::io;
use std::path::Path;

use super::{Cgroup, CgroupError, Controller, write_file};
use crate::spec::{DEFAULT_PIDS_LIMIT, Resources};

/// Period over which CPU time is limited. Docker's and Kubernetes' value.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// Least quota that the kernel takes.
const CPU_QUOTA_LEAST_MICROS: u64 = 1_000;

/// Where a limit is set. A limit that was asked for and has no place is an error; the default one
/// on processes is left out.
enum Place<'a> {
    Legacy(&'a Path),
    Unified(&'a Path),
}

pub fn apply(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(bytes) = resources.memory_bytes {
        limit_memory(&place(cgroup, Controller::Memory)?, bytes)?;
    }
    if let Some(shares) = resources.cpu_shares {
        match place(cgroup, Controller::Cpu)? {
            Place::Legacy(path) => write_file(&path.join("cpu.shares"), &shares.to_string())?,
            Place::Unified(path) => {
                write_file(&path.join("cpu.weight"), &weight(shares).to_string())?;
            }
        }
    }
    match (place(cgroup, Controller::Pids), resources.pids) {
        (Ok(Place::Legacy(path) | Place::Unified(path)), pids) => {
            let pids = pids.unwrap_or(DEFAULT_PIDS_LIMIT);
            write_file(&path.join("pids.max"), &pids.to_string())
        }
        (Err(error), Some(_)) => Err(error),
        (Err(_), None) => Ok(()),
    }
}

pub fn apply_cpu_quota(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    let Some(nanos) = resources.cpu_nanos else { return Ok(()) };
    let quota = quota_micros(nanos);
    match place(cgroup, Controller::Cpu)? {
        Place::Legacy(path) => {
            write_file(&path.join("cpu.cfs_period_us"), &CPU_PERIOD_MICROS.to_string())?;
            write_file(&path.join("cpu.cfs_quota_us"), &quota.to_string())
        }
        Place::Unified(path) => write_file(&path.join("cpu.max"), &format!("{quota} {CPU_PERIOD_MICROS}")),
    }
}

fn place(cgroup: &Cgroup, controller: Controller) -> Result<Place<'_>, CgroupError> {
    if let Some(path) = cgroup.legacy_directory(controller) {
        return Ok(Place::Legacy(path));
    }
    cgroup.unified_with(controller).map(Place::Unified).ok_or_else(|| {
        let known = cgroup.directories().next().unwrap_or(Path::new("/sys/fs/cgroup"));
        let missing = format!("the {} controller is not enabled on this host", controller.name());
        CgroupError::new("limit", known, io::Error::other(missing))
    })
}

fn limit_memory(place: &Place<'_>, bytes: u64) -> Result<(), CgroupError> {
    let (limit, swap_limit, swap_value) = match place {
        Place::Legacy(path) => {
            (path.join("memory.limit_in_bytes"), path.join("memory.memsw.limit_in_bytes"), bytes.to_string())
        }
        Place::Unified(path) => (path.join("memory.max"), path.join("memory.swap.max"), "0".to_owned()),
    };
    write_file(&limit, &bytes.to_string())?;
    // Absent where the kernel does not account swap.
    if swap_limit.exists() {
        write_file(&swap_limit, &swap_value)?;
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
