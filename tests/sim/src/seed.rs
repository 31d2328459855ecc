//! The tree of randomness: every part of a run has a sequence of its own, so that a draw more in one part changes nothing
//! in another.

use std::sync::Arc;

use streamhouse_env::{Rng, SeededRng};

/// A place in the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring sequences.
        Self(SeededRng::new(seed).next_u64())
    }

    /// The place of a part with this name.
    pub(crate) fn branch(self, name: &str) -> Self {
        let mut word = self.0 ^ 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes() {
            word = (word ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self::new(word)
    }

    /// The number itself, for what seeds itself.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn rng(self) -> Dice {
        Dice(Arc::new(SeededRng::new(self.0)))
    }
}

/// Draws from one sequence. Clones go on with the same one.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<SeededRng>);

impl Dice {
    /// From `0..bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// From `low..=high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// True once in `n` draws.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.0.below(n) == 0
    }

    /// True with this probability, in parts of a million.
    pub(crate) fn chance(&self, ppm: u64) -> bool {
        self.0.below(1_000_000) < ppm
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.0.below(of.len() as u64)).expect("an index")]
    }

    /// From `low..=high`, small numbers as likely as large ones by magnitude.
    pub(crate) fn magnitude(&self, low: u64, high: u64) -> u64 {
        let (mut low, mut high) = (low, high);
        while high / 2 > low && !self.one_in(2) {
            high /= 2;
        }
        low = low.min(high);
        self.between(low, high)
    }

    pub(crate) fn as_env(&self) -> Arc<dyn Rng> {
        self.0.clone()
    }
}
