//! How often a failed actor is started again, and when. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// The failures of one actor in the last minute.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    recent: VecDeque<Duration>,
}

impl Failures {
    const SPAN: Duration = Duration::from_secs(60);
    const PAUSE: Duration = Duration::from_millis(100);
    const PAUSE_MAX: Duration = Duration::from_secs(5);

    /// Notes a failure; returns how long to wait before the actor is started again.
    pub(crate) fn note(&mut self, now: Duration) -> Duration {
        self.forget(now);
        self.recent.push_back(now);
        let before = u32::try_from(self.recent.len() - 1).unwrap_or(u32::MAX);
        match before {
            0 => Duration::ZERO,
            _ => Self::PAUSE.saturating_mul(1 << (before - 1).min(10)).min(Self::PAUSE_MAX),
        }
    }

    /// Failures in the last minute.
    pub(crate) fn count(&mut self, now: Duration) -> usize {
        self.forget(now);
        self.recent.len()
    }

    fn forget(&mut self, now: Duration) {
        while self.recent.front().is_some_and(|at| *at + Self::SPAN <= now) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_mended_at_once_and_later_ones_with_growing_pauses() {
        let mut failures = Failures::default();
        let second = Duration::from_secs(1);
        let pauses: Vec<_> = (0..4).map(|i| failures.note(second * i).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400]);
        assert_eq!(failures.count(second * 4), 4);
        assert_eq!(failures.note(second * 120), Duration::ZERO);
    }
}
