//! The nodes with one number of tasks: a bitmap over the seats, with the most that is free in each word and in each block
//! of 64 words, so that a search skips full nodes 64 or 4,096 at a time.

use swarm_model::Resources;

use super::ladder::{Mask, Seat};
use super::order::most_of;

const WORDS_PER_BLOCK: usize = 64;

#[derive(Debug)]
pub(super) struct Rung {
    words: Vec<u64>,
    /// By word, of the nodes that are on this rung.
    most: Vec<Resources>,
    /// By block.
    most_of_block: Vec<Resources>,
    nodes: u32,
}

impl Rung {
    pub(super) fn for_seats(seats: usize) -> Self {
        let words = seats.div_ceil(64);
        Self {
            words: vec![0; words],
            most: vec![Resources::default(); words],
            most_of_block: vec![Resources::default(); words.div_ceil(WORDS_PER_BLOCK)],
            nodes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// A node comes, that has `free[seat]`.
    pub(super) fn enter(&mut self, seat: Seat, free: &[Resources]) {
        let word = seat as usize / 64;
        self.words[word] |= 1 << (seat % 64);
        self.nodes += 1;
        self.raise(word, free[seat as usize]);
    }

    /// A node goes, that had `was` free.
    pub(super) fn leave(&mut self, seat: Seat, was: Resources, free: &[Resources]) {
        let word = seat as usize / 64;
        self.words[word] &= !(1 << (seat % 64));
        self.nodes -= 1;
        self.lower(word, was, free);
    }

    /// A node stays, that had `was` free and has `free[seat]` now.
    pub(super) fn change(&mut self, seat: Seat, was: Resources, free: &[Resources]) {
        let word = seat as usize / 64;
        self.raise(word, free[seat as usize]);
        self.lower(word, was, free);
    }

    fn raise(&mut self, word: usize, free: Resources) {
        self.most[word] = most_of(self.most[word], free);
        let block = &mut self.most_of_block[word / WORDS_PER_BLOCK];
        *block = most_of(*block, free);
    }

    /// What had the most may have less now.
    fn lower(&mut self, word: usize, was: Resources, free: &[Resources]) {
        let most = self.most[word];
        if !touches(was, most) {
            return;
        }
        let seats = seats_of(word, self.words[word]);
        self.most[word] = most_among(seats.map(|seat| free[seat as usize]), most);
        let block = word / WORDS_PER_BLOCK;
        let most = self.most_of_block[block];
        if touches(was, most) {
            // Nodes fill up in order, so those with the most stand after this one.
            let words = block * WORDS_PER_BLOCK..self.most.len().min((block + 1) * WORDS_PER_BLOCK);
            let (before, after) = (&self.most[words.start..word], &self.most[word..words.end]);
            self.most_of_block[block] = most_among(after.iter().chain(before).copied(), most);
        }
    }

    /// The first seat of `mask` from `start` that is on the rung and has `need` free, but is in none of the words of
    /// `without`.
    pub(super) fn first_fit(
        &self,
        mask: &Mask,
        start: Seat,
        need: Resources,
        free: &[Resources],
        without: impl Fn(u32) -> u64,
    ) -> Option<Seat> {
        let mut words = mask.from(start);
        while let Some(((word, bits), rest)) = words.split_first() {
            let block = *word as usize / WORDS_PER_BLOCK;
            if !need.fits_in(self.most_of_block[block]) {
                words =
                    &words[words.partition_point(|(word, _)| *word as usize / WORDS_PER_BLOCK == block)..];
                continue;
            }
            words = rest;
            let on = bits & self.words[*word as usize];
            if on == 0 || !need.fits_in(self.most[*word as usize]) {
                continue;
            }
            let from = if *word == start / 64 { u64::MAX << (start % 64) } else { u64::MAX };
            let mut fitting = seats_of(*word as usize, on & from & !without(*word));
            if let Some(seat) = fitting.find(|seat| need.fits_in(free[*seat as usize])) {
                return Some(seat);
            }
        }
        None
    }
}

fn seats_of(word: usize, mut bits: u64) -> impl Iterator<Item = Seat> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(Seat::try_from(word * 64).expect("seats are counted in 32 bits") + bit)
    })
}

/// Whether `was` was the most of some resource.
fn touches(was: Resources, most: Resources) -> bool {
    was.cpu_nanos == most.cpu_nanos || was.memory_bytes == most.memory_bytes
}

/// The most of each resource, known to be at most `ceiling`.
fn most_among(amounts: impl Iterator<Item = Resources>, ceiling: Resources) -> Resources {
    let mut most = Resources::default();
    for amount in amounts {
        most = most_of(most, amount);
        if most == ceiling {
            break;
        }
    }
    most
}
