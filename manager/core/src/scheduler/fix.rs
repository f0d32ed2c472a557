//! The smallest changes that would let a refused task fit, as commands and flags.

use std::fmt;

use swarm_model::{ConstraintKey, Operator, Resources};

use super::nodes::Host;
use super::refusal::Cause;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const CPU: u64 = 1_000_000_000;

/// Changes that together let one more task fit. `Display` joins them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix(pub Vec<Change>);

/// One change, to the service or to a node. `node` is a hostname, or an id if the node has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    LowerReservedCpu { to_nanos: u64 },
    LowerReservedMemory { to_bytes: u64 },
    AddLabel { node: String, key: String, value: String },
    RemoveLabel { node: String, key: String },
    Activate { node: String },
    RaiseMaxReplicas { to: u32 },
}

impl Fix {
    /// What has to change so that `host` does not lack `lacks` any more; `None` if no setting does it.
    pub(super) fn of(host: &Host, need: Resources, lacks: &[Cause]) -> Option<Self> {
        let mut changes = Vec::new();
        for cause in lacks {
            changes.extend(changes_for(host, need, cause)?);
        }
        Some(Self(changes))
    }
}

fn changes_for(host: &Host, need: Resources, cause: &Cause) -> Option<Vec<Change>> {
    match cause {
        Cause::Short { .. } => lower(need, host.free()),
        Cause::Constraint(constraint) => {
            let (node, value) = (name_of(host), constraint.value.clone());
            match (&constraint.key, constraint.operator) {
                (ConstraintKey::NodeLabel(key), Operator::Equal) => {
                    Some(vec![Change::AddLabel { node, key: key.clone(), value }])
                }
                (ConstraintKey::NodeLabel(key), Operator::NotEqual) => {
                    Some(vec![Change::RemoveLabel { node, key: key.clone() }])
                }
                // These are what the node is, not what it is set to.
                (
                    ConstraintKey::NodeId
                    | ConstraintKey::NodeHostname
                    | ConstraintKey::NodeIp
                    | ConstraintKey::NodeRole
                    | ConstraintKey::PlatformOs
                    | ConstraintKey::PlatformArch
                    | ConstraintKey::EngineLabel(_),
                    _,
                ) => None,
            }
        }
        Cause::Paused => Some(vec![Change::Activate { node: name_of(host) }]),
        Cause::MaxReplicas(limit) => Some(vec![Change::RaiseMaxReplicas { to: limit.saturating_add(1) }]),
        // A drain is on its way to something that somebody wants.
        Cause::Removed
        | Cause::Down
        | Cause::Unknown
        | Cause::Draining
        | Cause::Platform(_)
        | Cause::HostPort(_) => None,
    }
}

/// Lower reservations that are easy to type; `None` if hardly anything is free.
fn lower(need: Resources, free: Resources) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    if need.cpu_nanos > free.cpu_nanos {
        let to_nanos = round_down(free.cpu_nanos, CPU, CPU / 100);
        changes
            .push((to_nanos >= Resources::MIN_CPU_NANOS).then_some(Change::LowerReservedCpu { to_nanos })?);
    }
    if need.memory_bytes > free.memory_bytes {
        let to_bytes = round_down(free.memory_bytes, GIB, MIB);
        changes.push(
            (to_bytes >= Resources::MIN_MEMORY_BYTES).then_some(Change::LowerReservedMemory { to_bytes })?,
        );
    }
    Some(changes)
}

/// To a whole `coarse` if that gives away at most an eighth, else to a whole `fine`.
fn round_down(amount: u64, coarse: u64, fine: u64) -> u64 {
    if amount % coarse <= amount / 8 { amount - amount % coarse } else { amount - amount % fine }
}

/// The hostname as far as it can be shown (it comes from the node), else the id.
pub(super) fn name_of(host: &Host) -> String {
    /// Longest label of a DNS name.
    const MAX_LENGTH: usize = 63;
    let hostname = host.node.as_ref().map_or("", |node| node.engine.hostname.as_str());
    let shown = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !hostname.is_empty() && hostname.len() <= MAX_LENGTH && hostname.chars().all(shown) {
        hostname.to_owned()
    } else {
        host.id.to_string()
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.0.iter().enumerate() {
            write!(f, "{}{change}", if index == 0 { "" } else { " and " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node_update = "swarmctl node update";
        match self {
            Self::LowerReservedCpu { to_nanos } => {
                write!(f, "lower --reserve-cpu to {}", Cpu::floor(*to_nanos))
            }
            Self::LowerReservedMemory { to_bytes } if to_bytes % GIB == 0 => {
                write!(f, "lower --reserve-memory to {}G", to_bytes / GIB)
            }
            Self::LowerReservedMemory { to_bytes } => {
                write!(f, "lower --reserve-memory to {}M", to_bytes / MIB)
            }
            Self::AddLabel { node, key, value } => {
                write!(f, "`{node_update} --label-add {} {node}`", quoted(&format!("{key}={value}")))
            }
            Self::RemoveLabel { node, key } => {
                write!(f, "`{node_update} --label-rm {} {node}`", quoted(key))
            }
            Self::Activate { node } => write!(f, "`{node_update} --availability active {node}`"),
            Self::RaiseMaxReplicas { to } => write!(f, "raise --replicas-max-per-node to {to}"),
        }
    }
}

/// As one word of a shell. Keys and values of constraints have no single quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{text}'") }
}

/// CPUs with two decimals.
pub(super) struct Cpu(u64);

/// Bytes with one decimal of the largest unit.
pub(super) struct Memory {
    tenths: u64,
    unit: &'static str,
}

impl Cpu {
    pub(super) fn floor(nanos: u64) -> Self {
        Self(nanos / (CPU / 100))
    }

    pub(super) fn ceil(nanos: u64) -> Self {
        Self(nanos.div_ceil(CPU / 100))
    }
}

impl Memory {
    pub(super) fn floor(bytes: u64) -> Self {
        let (size, unit) = unit_of(bytes);
        Self { tenths: tenths(bytes, size, 0), unit }
    }

    pub(super) fn ceil(bytes: u64) -> Self {
        let (size, unit) = unit_of(bytes);
        Self { tenths: tenths(bytes, size, u128::from(size) - 1), unit }
    }
}

fn unit_of(bytes: u64) -> (u64, &'static str) {
    match bytes {
        GIB.. => (GIB, "GiB"),
        MIB..GIB => (MIB, "MiB"),
        0..MIB => (KIB, "KiB"),
    }
}

fn tenths(bytes: u64, unit: u64, round: u128) -> u64 {
    u64::try_from((u128::from(bytes) * 10 + round) / u128::from(unit))
        .expect("ten times less than a KiB's part")
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(f, "{whole}"),
            _ if hundredths % 10 == 0 => write!(f, "{whole}.{}", hundredths / 10),
            _ => write!(f, "{whole}.{hundredths:02}"),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, tenth) = (self.tenths / 10, self.tenths % 10);
        match tenth {
            0 => write!(f, "{whole} {}", self.unit),
            _ => write!(f, "{whole}.{tenth} {}", self.unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_never_look_enough_when_they_are_not() {
        let memory = |free, need| format!("{} of {}", Memory::floor(free), Memory::ceil(need));
        assert_eq!(memory(7 * GIB + 110 * MIB, 8 * GIB), "7.1 GiB of 8 GiB");
        assert_eq!(memory(8 * GIB - 1, 8 * GIB), "7.9 GiB of 8 GiB");
        assert_eq!(memory(8 * GIB, 8 * GIB + 1), "8 GiB of 8.1 GiB");
        assert_eq!(memory(0, 512 * MIB), "0 KiB of 512 MiB");
        assert_eq!(memory(u64::MAX, u64::MAX), "17179869183.9 GiB of 17179869184 GiB");
        let cpu = |free, need| format!("{} of {}", Cpu::floor(free), Cpu::ceil(need));
        assert_eq!(cpu(1_500_000_000, 2 * CPU), "1.5 of 2");
        assert_eq!(cpu(1_999_999_999, 2 * CPU), "1.99 of 2");
    }

    #[test]
    fn suggested_reservations_are_easy_to_type_and_fit() {
        let check = |free: u64, expect: &str| {
            let need = Resources { memory_bytes: u64::MAX, ..Resources::default() };
            let fix = lower(need, Resources { memory_bytes: free, ..Resources::default() });
            assert_eq!(fix.map(|changes| Fix(changes).to_string()).unwrap_or_default(), expect);
        };
        check(7 * GIB + 100 * MIB, "lower --reserve-memory to 7G");
        check(GIB + 900 * MIB + 5, "lower --reserve-memory to 1924M");
        check(4 * MIB, "lower --reserve-memory to 4M");
        check(4 * MIB - 1, "");
    }
}
