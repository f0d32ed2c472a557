//! How large and how hostile a run is.

use std::time::Duration;

use swarm_manager_core::door::LogKeeping;

use super::dice::Dice;

#[derive(Debug, Clone)]
pub struct Plan {
    pub managers: usize,
    pub workers: usize,
    /// How long faults happen.
    pub chaos: Duration,
    /// Mean pause between two faults, and between two doings of the operator.
    pub fault_pause: Duration,
    pub operator_pause: Duration,
    /// Clocks are wrong by up to so many microseconds, and too fast or slow by so many millionths.
    pub skew: i64,
    pub drift: i64,
    /// Of a thousand syncs that many take seconds.
    pub slow_syncs: u64,
    pub loss: u64,
    pub duplication: u64,
    pub spikes: u64,
    pub network_failures: u64,
    pub log: LogKeeping,
    /// In most runs there is none: nothing may need it.
    pub sweep: Duration,
    /// Of a thousand faults so many are joined by damage to a disk.
    pub damage: u64,
}

impl Plan {
    pub fn new(dice: &mut Dice) -> Self {
        let managers = [1, 3, 3, 3, 5][dice.below(5)];
        let small_log = LogKeeping { checkpoint_every: dice.number(8..60), kept: dice.below(12) };
        Self {
            managers,
            workers: 1 + dice.below(4),
            chaos: dice.millis(4_000..14_000),
            fault_pause: dice.millis(60..900),
            operator_pause: dice.millis(15..250),
            skew: [0, 20_000, 400_000][dice.below(3)],
            drift: [0, 50, 200][dice.below(3)],
            slow_syncs: [0, 0, 5][dice.below(3)],
            loss: [0, 0, 10, 50][dice.below(4)],
            duplication: [0, 20][dice.below(2)],
            spikes: [0, 5, 60][dice.below(3)],
            network_failures: [0, 100][dice.below(2)],
            log: if dice.per_mille(700) { small_log } else { LogKeeping::default() },
            sweep: Duration::from_secs(if dice.per_mille(800) { 24 * 3600 } else { 60 }),
            damage: [0, 0, 0, 200][dice.below(4)],
        }
    }
}
