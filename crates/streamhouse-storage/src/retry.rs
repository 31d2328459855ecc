//! When to try again.

use std::time::Duration;

use streamhouse_env::Rng;

/// The pauses between the attempts at one request: three of up to 100, 200 and 400 ms, then 2 s each.
///
/// Each pause is drawn evenly from zero to its bound (full jitter), so that nodes that failed together do not come
/// back together; from the fourth on it is drawn from the upper half, as there is no hurry any more.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    pauses: u32,
}

impl Backoff {
    const FIRST_MS: u64 = 100;
    const QUICK_PAUSES: u32 = 3;
    const STEADY_MS: u64 = 2_000;

    /// Before the first attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self, rng: &dyn Rng) -> Duration {
        let pause = self.pauses;
        self.pauses = pause.saturating_add(1);
        let millis = if pause < Self::QUICK_PAUSES {
            rng.below((Self::FIRST_MS << pause) + 1)
        } else {
            Self::STEADY_MS / 2 + rng.below(Self::STEADY_MS / 2 + 1)
        };
        Duration::from_millis(millis)
    }
}

/// How long one attempt may take: 2 s, and a second more for each 4 MiB; from the fourth attempt on twice that, so
/// that a thin line gets a large object through in the end.
#[must_use]
pub(crate) fn attempt_time(bytes: u64, attempt: u32) -> Duration {
    const BASE: Duration = Duration::from_secs(2);
    const BYTES_PER_SECOND: u64 = 4 << 20;
    const PATIENT_FROM: u32 = 3;
    let scaled = BASE + Duration::from_millis(bytes.saturating_mul(1_000) / BYTES_PER_SECOND);
    if attempt < PATIENT_FROM { scaled } else { scaled * 2 }
}

#[cfg(test)]
mod tests {
    use streamhouse_env::SeededRng;

    use super::*;

    #[test]
    fn pauses_are_short_three_times_and_then_steady() {
        let rng = SeededRng::new(1);
        for _ in 0..200 {
            let mut backoff = Backoff::new();
            for bound in [100, 200, 400] {
                assert!(backoff.next_pause(&rng) <= Duration::from_millis(bound));
            }
            for _ in 0..3 {
                let pause = backoff.next_pause(&rng);
                assert!((1_000..=2_000).contains(&pause.as_millis()), "{pause:?}");
            }
        }
    }

    #[test]
    fn an_attempt_gets_time_for_its_bytes_and_more_when_it_is_late() {
        assert_eq!(attempt_time(0, 0), Duration::from_secs(2));
        assert_eq!(attempt_time(8 << 20, 0), Duration::from_secs(4));
        assert_eq!(attempt_time(8 << 20, 3), Duration::from_secs(8));
    }
}
