//! How long to wait before the next try.

use std::time::Duration;

use crate::Rng;

/// Shortest mean wait.
const FIRST: Duration = Duration::from_millis(50);
/// Longest wait. Short enough that a restarted server is found again within a second.
const LAST: Duration = Duration::from_secs(1);

/// Waits that double from try to try, from 50 ms to a second, each shortened by chance so that those who lost the same
/// server do not come back in step.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: between half and all of 50 ms·2ⁿ, at most a second.
    pub fn next(&mut self, rng: &dyn Rng) -> Duration {
        let full = FIRST.saturating_mul(2_u32.saturating_pow(self.tries)).min(LAST);
        self.tries = self.tries.saturating_add(1);
        let half = u64::try_from(full.as_micros() / 2).expect("at most a second");
        Duration::from_micros(half + rng.below(half + 1))
    }

    /// Something worked: begin anew.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::SeededRng;

    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_no_further() {
        let rng = SeededRng::new(1);
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(&rng)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= LAST));
        assert!(waits[39] >= LAST / 2);
        backoff.reset();
        assert!(backoff.next(&rng) <= FIRST);
    }
}
