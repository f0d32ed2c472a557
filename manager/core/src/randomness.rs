//! Child generators of the core's one seed, one per purpose, so that a new use of randomness in one place does not shift
//! the numbers of another.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use swarm_model::{Id, TaskId};

/// Streams of the seed. Never renumbered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Ids = 1,
    Election = 2,
    Incarnation = 3,
}

pub(crate) fn child(seed: [u8; 32], purpose: Purpose) -> ChaCha12Rng {
    let mut generator = ChaCha12Rng::from_seed(seed);
    generator.set_stream(purpose as u64);
    generator
}

/// Makes ids: 128 random bits each.
#[derive(Debug)]
pub(crate) struct Ids(ChaCha12Rng);

impl Ids {
    pub fn new(seed: [u8; 32]) -> Self {
        Self(child(seed, Purpose::Ids))
    }

    pub fn task(&mut self) -> TaskId {
        TaskId(self.draw())
    }

    pub fn draw(&mut self) -> Id {
        Id::from_u128(u128::from(self.0.next_u64()) << 64 | u128::from(self.0.next_u64()))
    }
}
