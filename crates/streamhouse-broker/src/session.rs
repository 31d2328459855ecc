//! One connection that writes: how much of it is unanswered, and which of its batches fail together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use streamhouse_types::PartitionId;

/// A connection that appends. Clones are the same session.
///
/// Batches that are handed over through one session, one call after the other, are stored in that order per
/// partition. When one of them is not stored, those behind it in its partition that were handed over before its
/// answer left are not stored either, so that nothing overtakes.
#[derive(Debug, Clone)]
pub struct Session(Arc<SessionState>);

#[derive(Debug)]
struct SessionState {
    id: u64,
    window: u64,
    outstanding: AtomicU64,
    largest: AtomicU64,
    handed_over: AtomicU64,
    /// For each partition that failed: batches up to this number fail with it.
    failed_until: Mutex<BTreeMap<PartitionId, u64>>,
}

impl Session {
    /// A session whose client keeps at most `window` bytes unanswered; 0 when it waits for each answer.
    pub(crate) fn new(id: u64, window: u64) -> Self {
        Self(Arc::new(SessionState {
            id,
            window,
            outstanding: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            failed_until: Mutex::new(BTreeMap::new()),
        }))
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// Bytes of batches that were handed over and are not answered yet.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.0.outstanding.load(Ordering::Relaxed)
    }

    /// Whether the client cannot send more before it gets an answer: another batch like its largest does not fit.
    pub(crate) fn is_full(&self) -> bool {
        let largest = self.0.largest.load(Ordering::Relaxed);
        self.outstanding().saturating_add(largest) > self.0.window
    }

    /// Counts a batch in; returns its number in the session, from 1.
    pub(crate) fn hand_over(&self, bytes: u64) -> u64 {
        self.0.outstanding.fetch_add(bytes, Ordering::Relaxed);
        self.0.largest.fetch_max(bytes, Ordering::Relaxed);
        self.0.handed_over.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Counts a batch out.
    pub(crate) fn answered(&self, bytes: u64) {
        self.0.outstanding.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Everything that was handed over for `partition` until now, and that is not proposed yet, fails.
    pub(crate) fn fail(&self, partition: PartitionId) {
        let until = self.0.handed_over.load(Ordering::SeqCst);
        self.0.failed_until.lock().insert(partition, until);
    }

    /// Whether a batch of `partition` fails with one that was before it.
    pub(crate) fn fails(&self, partition: PartitionId, number: u64) -> bool {
        self.0.failed_until.lock().get(&partition).is_some_and(|until| number <= *until)
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_types::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn batches_behind_a_failed_one_fail_and_later_ones_do_not() {
        let session = Session::new(1, 100);
        let partition = |index| PartitionId::new(TopicId::new(1), PartitionIndex::new(index));
        let (first, second) = (session.hand_over(10), session.hand_over(10));
        session.fail(partition(0));
        assert!(session.fails(partition(0), first) && session.fails(partition(0), second));
        assert!(!session.fails(partition(1), second));
        assert!(!session.fails(partition(0), session.hand_over(10)));
    }

    #[test]
    fn a_window_is_full_when_another_batch_does_not_fit() {
        let session = Session::new(1, 100);
        session.hand_over(40);
        assert!(!session.is_full());
        session.hand_over(40);
        assert!(session.is_full());
        session.answered(40);
        assert!(!session.is_full());
        let unary = Session::new(2, 0);
        unary.hand_over(1);
        assert!(unary.is_full());
    }
}
