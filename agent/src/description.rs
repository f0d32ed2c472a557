//! What a node says about itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use swarm_model::{EngineDescription, Platform, Resources};

/// Nanoseconds of CPU per second of one CPU.
const CPU_NANOS: u64 = 1_000_000_000;

/// Describes this machine: its host name, platform, the CPUs that this process may use, and all of its memory.
pub fn describe(
    hostname: Option<String>,
    labels: BTreeMap<String, String>,
    data_address: Ipv4Addr,
    version: String,
) -> EngineDescription {
    let system = rustix::system::uname();
    let own_name = || system.nodename().to_string_lossy().into_owned();
    EngineDescription {
        hostname: hostname.unwrap_or_else(own_name),
        platform: Platform { os: "linux".to_owned(), arch: Platform::canonical_arch(std::env::consts::ARCH) },
        resources: Resources { cpu_nanos: cpus() * CPU_NANOS, memory_bytes: memory_bytes() },
        labels,
        data_address,
        version,
    }
}

/// CPUs within this process's affinity and quota.
fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(info.mem_unit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_cpus_and_memory() {
        let engine = describe(None, BTreeMap::new(), Ipv4Addr::LOCALHOST, "1".to_owned());
        assert!(!engine.hostname.is_empty());
        assert!(engine.resources.cpu_nanos >= CPU_NANOS && engine.resources.memory_bytes > 64 << 20);
        assert!(["amd64", "arm64"].contains(&engine.platform.arch.as_str()), "{:?}", engine.platform);
    }
}
