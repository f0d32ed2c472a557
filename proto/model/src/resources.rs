//! Amounts of CPU and memory.

use serde::{Deserialize, Serialize};

/// CPU and memory of a node, or reserved by a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a CPU: 1 CPU is 1,000,000,000.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

/// What a container may use at the most; `None` is no limit of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Billionths of a CPU.
    pub cpu_nanos: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u64>,
}

impl Resources {
    /// Smallest CPU amount that a spec may name: a thousandth of a core.
    pub const MIN_CPU_NANOS: u64 = 1_000_000;
    /// Smallest memory amount that a spec may name: 4 MiB.
    pub const MIN_MEMORY_BYTES: u64 = 4 << 20;

    pub fn fits_in(self, free: Self) -> bool {
        self.cpu_nanos <= free.cpu_nanos && self.memory_bytes <= free.memory_bytes
    }

    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            cpu_nanos: self.cpu_nanos.saturating_add(other.cpu_nanos),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            cpu_nanos: self.cpu_nanos.saturating_sub(other.cpu_nanos),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}
