//! Randomness.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng as _;

/// Gives random bytes. For ids, jitter and choices; not for keys.
pub trait Rng: Debug + Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A number from the whole range.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number in `0..bound`, even enough for jitter; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("a 64-bit product shifted right by 64 bits")
    }
}

/// The machine's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        rand::rng().fill_bytes(bytes);
    }
}

/// A sequence that its seed decides, the same on every machine and in every version (SplitMix64).
#[derive(Debug)]
pub struct SeededRng {
    state: AtomicU64,
}

impl SeededRng {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn next_u64(&self) -> u64 {
        let mut word = self.state.fetch_add(Self::STEP, Ordering::Relaxed).wrapping_add(Self::STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequence_for_ever() {
        // The first outputs of SplitMix64 for seed 0, as published with the algorithm.
        let rng = SeededRng::new(0);
        assert_eq!(rng.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(rng.next_u64(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn a_bounded_number_stays_below_its_bound() {
        let rng = SeededRng::new(7);
        assert_eq!(rng.below(0), 0);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[usize::try_from(rng.below(10)).expect("small")] = true;
        }
        assert_eq!(seen, [true; 10]);
    }

    #[test]
    fn the_machine_does_not_repeat_itself() {
        assert_ne!(SystemRng.next_u64(), SystemRng.next_u64());
    }
}
