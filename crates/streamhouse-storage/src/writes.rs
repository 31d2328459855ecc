//! Whether a node can write to the store.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// How writes have gone lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WritesSeen {
    /// For how long none has succeeded, although some were tried; `None` while they succeed.
    pub failing: Option<Duration>,
    /// Since the last one succeeded; `None` when none ever did.
    pub succeeded: Option<Duration>,
}

/// Keeps how writes go. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    failing_since: Option<Duration>,
    succeeded: Option<Duration>,
}

impl Writes {
    /// A write has failed. It counts from now: one that took long says nothing about writes that were not tried.
    pub(crate) fn failed(&self, now: Duration) {
        self.0.lock().failing_since.get_or_insert(now);
    }

    /// A write has succeeded.
    pub(crate) fn succeeded(&self, now: Duration) {
        *self.0.lock() = Seen { failing_since: None, succeeded: Some(now) };
    }

    pub(crate) fn seen(&self, now: Duration) -> WritesSeen {
        let seen = self.0.lock();
        let ago = |then: Duration| now.saturating_sub(then);
        WritesSeen { failing: seen.failing_since.map(ago), succeeded: seen.succeeded.map(ago) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn writes_fail_since_the_first_that_failed_after_the_last_success() {
        let writes = Writes::default();
        assert_eq!(writes.seen(at(9)), WritesSeen::default());
        writes.failed(at(2));
        writes.failed(at(4));
        assert_eq!(writes.seen(at(9)).failing, Some(at(7)));
        writes.succeeded(at(10));
        assert_eq!(writes.seen(at(11)), WritesSeen { failing: None, succeeded: Some(at(1)) });
        writes.failed(at(12));
        assert_eq!(writes.seen(at(13)).failing, Some(at(1)));
    }
}
