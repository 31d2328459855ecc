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

/// Whether so few calendars are shown, or they differ so much, that it cannot be said which of them are right.
pub(crate) fn is_open(mut calendars: Vec<Calendar>) -> bool {
    calendars.sort_unstable();
    let half = calendars.len() / 2;
    // With an odd number more than half are on one side of the middle one or at it.
    calendars.len().is_multiple_of(2) && half > 0 && !is_near(calendars[half].ahead_of(calendars[half - 1]))
}

/// Time as the nodes agree on it, on the node that leads. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct AgreedTime(Arc<Mutex<Known>>);

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Known {
    /// Too few calendars are shown yet.
    #[default]
    Nothing,
    /// It goes by this one, though nobody can say whether that is right.
    Unsure(Option<Calendar>),
    /// Most calendars are like this one.
    Sure(Calendar),
}

impl Known {
    fn calendar(self) -> Option<Calendar> {
        match self {
            Self::Nothing => None,
            Self::Unsure(calendar) => calendar,
            Self::Sure(calendar) => Some(calendar),
        }
    }
}

impl AgreedTime {
    /// From now on so much is known.
    pub(crate) fn set(&self, known: Known) {
        *self.0.lock() = known;
    }

    /// Whether a node whose calendar shows this time may come in; `None` while that cannot be judged yet. Where nobody can
    /// say which calendars are right, every one may.
    pub(crate) fn bears(&self, theirs: Timestamp, clock: &dyn Clock) -> Option<Result<(), i64>> {
        let known = *self.0.lock();
        match known {
            Known::Nothing => None,
            Known::Unsure(_) => Some(Ok(())),
            Known::Sure(calendar) => {
                let ahead = Calendar::of(theirs, clock.now()).ahead_of(calendar);
                Some(if is_near(ahead) { Ok(()) } else { Err(ahead) })
            }
        }
    }

    /// The time by this machine's calendar or, when that is more than five minutes away from those of most nodes, by
    /// theirs. `None` while too few are known, which is always so on nodes that do not lead.
    #[must_use]
    pub fn now(&self, clock: &dyn Clock) -> Option<Timestamp> {
        let agreed = self.0.lock().calendar()?;
        let (now, own) = (clock.now(), clock.wall());
        let near = is_near(Calendar::of(own, now).ahead_of(agreed));
        Some(if near { own } else { agreed.at(now) })
    }

    /// How far a calendar is ahead of those of most nodes, in milliseconds; below zero when it is behind.
    pub(crate) fn ahead(&self, calendar: Calendar) -> Option<i64> {
        Some(calendar.ahead_of(self.0.lock().calendar()?))
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
    fn two_halves_that_differ_leave_it_open_which_is_right() {
        let open = |ahead_ms: &[i64]| is_open(ahead_ms.iter().map(|ahead| calendar(*ahead)).collect());
        assert!(open(&[0, HOUR_MS]) && open(&[0, 1, HOUR_MS, HOUR_MS]));
        assert!(!open(&[]) && !open(&[0]) && !open(&[0, 20]) && !open(&[0, 1, 2, HOUR_MS]));
        assert!(!open(&[0, HOUR_MS, 1]));
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
        time.set(Known::Sure(calendar(20)));
        let now = |ahead: i64| {
            clock.0.store(ahead, Ordering::Relaxed);
            time.now(&clock).map(|now| now.as_millis() - EPOCH_MS)
        };
        for (own, told) in [(0, 0), (299_000, 299_000), (-299_000, -299_000), (HOUR_MS, 20), (-HOUR_MS, 20)] {
            assert_eq!(now(own), Some(told));
        }
        assert_eq!(time.ahead(calendar(HOUR_MS + 20)), Some(HOUR_MS));
        let borne = |ahead: i64| time.bears(Timestamp::from_millis(EPOCH_MS + 20 + ahead), &clock);
        assert_eq!((borne(299_000), borne(-299_000)), (Some(Ok(())), Some(Ok(()))));
        assert_eq!((borne(HOUR_MS), borne(-HOUR_MS)), (Some(Err(HOUR_MS)), Some(Err(-HOUR_MS))));
        time.set(Known::Unsure(Some(calendar(20))));
        assert_eq!(borne(HOUR_MS), Some(Ok(())), "who knows which is right?");
        time.set(Known::Nothing);
        assert_eq!(borne(0), None);
        assert!(is_near(300_000) && !is_near(300_001) && !is_near(-300_001));
    }
}
