//! One connection that writes: how much of it is unanswered, and which of its batches fail together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    /// Batches that were handed over and did not reach the buffer yet.
    on_the_way: AtomicU64,
    holds_still: AtomicBool,
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
            on_the_way: AtomicU64::new(0),
            holds_still: AtomicBool::new(false),
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

    /// Says that the client sends nothing more until it is answered, as was seen of it: a client that counts requests
    /// keeps fewer bytes unanswered than its window. To be said before its last batch is handed over, so that the
    /// buffer is looked at when that one is in it.
    pub fn hold_still(&self) {
        self.0.holds_still.store(true, Ordering::SeqCst);
    }

    /// Says that the client was answered, and may send more.
    pub fn go_on(&self) {
        self.0.holds_still.store(false, Ordering::SeqCst);
    }

    /// Whether the client cannot send more before it gets an answer: it was seen to hold still, or another batch like
    /// its largest does not fit. Not before all that it sent is in the buffer.
    pub(crate) fn is_full(&self) -> bool {
        let largest = self.0.largest.load(Ordering::Relaxed);
        let waits = self.0.holds_still.load(Ordering::SeqCst)
            || self.outstanding().saturating_add(largest) > self.0.window;
        waits && self.0.on_the_way.load(Ordering::SeqCst) == 0
    }

    /// Notes that a batch has reached the buffer, or will not.
    pub(crate) fn arrived(&self) {
        self.0.on_the_way.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts a batch in; returns its number in the session, from 1.
    pub(crate) fn hand_over(&self, bytes: u64) -> u64 {
        self.0.outstanding.fetch_add(bytes, Ordering::Relaxed);
        self.0.largest.fetch_max(bytes, Ordering::Relaxed);
        self.0.on_the_way.fetch_add(1, Ordering::SeqCst);
        self.0.handed_over.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Counts a batch out. Its client will be told, and may send more then: what else it has in the buffer is not all that it
    /// can send before the next answer.
    pub(crate) fn answered(&self, bytes: u64) {
        self.0.outstanding.fetch_sub(bytes, Ordering::Relaxed);
        self.go_on();
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
        let buffered = |session: &Session, bytes| {
            session.hand_over(bytes);
            session.arrived();
        };
        buffered(&session, 40);
        assert!(!session.is_full());
        buffered(&session, 40);
        assert!(session.is_full());
        session.answered(40);
        assert!(!session.is_full());
        let unary = Session::new(2, 0);
        buffered(&unary, 1);
        assert!(unary.is_full());
    }

    #[test]
    fn a_client_that_holds_still_waits_as_soon_as_all_it_sent_is_in_the_buffer() {
        let session = Session::new(1, 100);
        session.hand_over(1);
        session.hand_over(1);
        session.hold_still();
        session.arrived();
        assert!(!session.is_full(), "one is on its way");
        session.arrived();
        assert!(session.is_full());
        session.go_on();
        assert!(!session.is_full());
        session.hold_still();
        session.answered(1);
        assert!(!session.is_full(), "it will be told");
    }
}
