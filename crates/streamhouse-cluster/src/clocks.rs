//! What time it is, by the clocks of most nodes.
//!
//! Cluster time never goes back, so a leader whose calendar is ahead would take deletion's grace and retention's spans
//! from everybody at once. It may lead all the same: it believes the others rather than itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamhouse_env::Clock;
use streamhouse_types::Timestamp;

/// How far the clock of a machine may be from those of most others.
pub(crate) const SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// A calendar, held against the leader's monotonic clock: what it shows when that shows zero. So a jump of the leader's
/// own calendar changes nothing about the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Calendar {
    zero: Timestamp,
}

impl Calendar {
    /// The calendar that shows `wall` now.
    pub(crate) fn of(wall: Timestamp, now: Duration) -> Self {
        Self { zero: wall.plus_millis(-millis(now)) }
    }

    fn at(self, now: Duration) -> Timestamp {
        self.zero.plus_millis(millis(now))
    }

    /// How far this one is ahead of another, in milliseconds; below zero when it is behind.
    fn ahead_of(self, other: Self) -> i64 {
        self.zero.as_millis().saturating_sub(other.zero.as_millis())
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The calendar in the middle. Of two in the middle it is the one behind: time that stands still harms less than time
/// that runs ahead.
pub(crate) fn middle(mut calendars: Vec<Calendar>) -> Option<Calendar> {
    calendars.sort_unstable();
    let last = calendars.len().checked_sub(1)?;
    calendars.get(last / 2).copied()
}

/// Time as the nodes agree on it, on the node that leads. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct AgreedTime(Arc<Mutex<Option<Calendar>>>);

impl AgreedTime {
    /// From now on the calendars of most nodes are like this one; `None` while too few are known.
    pub(crate) fn set(&self, agreed: Option<Calendar>) {
        *self.0.lock() = agreed;
    }

    /// The time by this machine's calendar or, when that is more than five minutes away from those of most nodes, by
    /// theirs. `None` while too few are known, which is always so on nodes that do not lead.
    #[must_use]
    pub fn now(&self, clock: &dyn Clock) -> Option<Timestamp> {
        let agreed = (*self.0.lock())?;
        let (now, own) = (clock.now(), clock.wall());
        let near = is_near(Calendar::of(own, now).ahead_of(agreed));
        Some(if near { own } else { agreed.at(now) })
    }

    /// How far a calendar is ahead of those of most nodes, in milliseconds; below zero when it is behind.
    pub(crate) fn ahead(&self, calendar: Calendar) -> Option<i64> {
        Some(calendar.ahead_of((*self.0.lock())?))
    }
}

/// Whether a calendar that is so many milliseconds ahead is borne.
#[must_use]
pub fn is_near(ahead_ms: i64) -> bool {
    u128::from(ahead_ms.unsigned_abs()) <= SKEW_MAX.as_millis()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use async_trait::async_trait;

    use super::*;

    const EPOCH_MS: i64 = 1_800_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    /// A clock whose calendar can be set.
    #[derive(Debug, Default)]
    struct Jumping(AtomicI64);

    #[async_trait]
    impl Clock for Jumping {
        fn now(&self) -> Duration {
            Duration::from_secs(7)
        }

        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(EPOCH_MS + self.0.load(Ordering::Relaxed))
        }

        async fn sleep_until(&self, _deadline: Duration) {}
    }

    fn calendar(ahead_ms: i64) -> Calendar {
        Calendar::of(Timestamp::from_millis(EPOCH_MS + ahead_ms), Duration::from_secs(7))
    }

    #[track_caller]
    fn agree(ahead_ms: &[i64], expected: Option<i64>) {
        let calendars = ahead_ms.iter().map(|ahead| calendar(*ahead)).collect();
        assert_eq!(middle(calendars), expected.map(calendar), "{ahead_ms:?}");
    }

    #[test]
    fn one_calendar_that_is_wrong_moves_nothing_and_of_two_the_one_behind_counts() {
        agree(&[], None);
        agree(&[5], Some(5));
        agree(&[HOUR_MS, 0], Some(0));
        agree(&[0, -HOUR_MS], Some(-HOUR_MS));
        agree(&[HOUR_MS, 0, 1], Some(1));
        agree(&[0, -HOUR_MS, 1], Some(0));
        agree(&[0, HOUR_MS, 1, HOUR_MS, 2], Some(2));
    }

    #[test]
    fn a_leader_goes_by_its_own_calendar_until_that_leaves_those_of_most() {
        let (clock, time) = (Jumping::default(), AgreedTime::default());
        assert_eq!((time.now(&clock), time.ahead(calendar(0))), (None, None));
        time.set(Some(calendar(20)));
        let now = |ahead: i64| {
            clock.0.store(ahead, Ordering::Relaxed);
            time.now(&clock).map(|now| now.as_millis() - EPOCH_MS)
        };
        for (own, told) in [(0, 0), (299_000, 299_000), (-299_000, -299_000), (HOUR_MS, 20), (-HOUR_MS, 20)] {
            assert_eq!(now(own), Some(told));
        }
        assert_eq!(time.ahead(calendar(HOUR_MS + 20)), Some(HOUR_MS));
        assert!(is_near(300_000) && !is_near(300_001) && !is_near(-300_001));
    }
}
