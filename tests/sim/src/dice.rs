//! All randomness of a run: one generator per purpose, of the run's one seed, so that a new use of one does not shift the
//! numbers of another.

use std::ops::Range;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Streams of the seed. Never renumbered: kept seeds would mean other runs.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    Plan = 1,
    Network = 2,
    Disk = 3,
    Faults = 4,
    Operator = 5,
    Runtime = 6,
    Cores = 7,
    Mutation = 8,
    Damage = 9,
}

#[derive(Debug)]
pub struct Dice(ChaCha12Rng);

impl Dice {
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        let mut generator = ChaCha12Rng::seed_from_u64(seed);
        generator.set_stream(purpose as u64);
        Self(generator)
    }

    /// A number of the range, which is not empty.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        range.start + self.0.next_u64() % (range.end - range.start)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.number(0..bound as u64) as usize
    }

    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.number(0..1_000) < chance
    }

    pub fn coin(&mut self) -> bool {
        self.per_mille(500)
    }

    pub fn micros(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.number(range))
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        self.micros(range.start * 1_000..range.end * 1_000)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| &items[self.below(items.len())])
    }

    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}
