//! What is on its way in one session, and how much more may be. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use streamhouse_types::PartitionIndex;

/// Most batches on their way in one session.
pub(super) const BATCHES_IN_FLIGHT_MAX: usize = 1024;
/// A session that nothing was sent in for so long is closed, unless a partition is at home there.
const IDLE: Duration = Duration::from_secs(30);

/// An answer that belongs to no batch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnexpectedAnswer;

/// The flow of batches and answers in an open session.
#[derive(Debug)]
pub(super) struct Flow {
    credit_bytes: u64,
    in_flight_bytes: u64,
    next_sequence: u64,
    /// The partitions of the batches on their way, in the order of sending; `None` when answered out of order.
    expected: VecDeque<Option<PartitionIndex>>,
    /// Partitions that may have something to send here, each once.
    pub(super) sendable: VecDeque<u32>,
    /// The server wants no more.
    pub(super) going_away: bool,
    /// After a refusal nothing is sent before this.
    pub(super) paused_until: Duration,
    /// When something was sent after nothing was on its way, or an answer came.
    stirred_at: Duration,
    /// When to look whether it is needed.
    review_at: Duration,
}

impl Flow {
    pub(super) fn new(credit_bytes: u64, now: Duration) -> Self {
        Self {
            credit_bytes,
            in_flight_bytes: 0,
            next_sequence: 0,
            expected: VecDeque::new(),
            sendable: VecDeque::new(),
            going_away: false,
            paused_until: Duration::ZERO,
            stirred_at: now,
            review_at: now.saturating_add(IDLE),
        }
    }

    pub(super) fn is_paused(&self, now: Duration) -> bool {
        now < self.paused_until
    }

    /// Whether batches may go at all.
    pub(super) fn takes_more(&self, now: Duration) -> bool {
        !self.going_away && !self.is_paused(now) && self.expected.len() < BATCHES_IN_FLIGHT_MAX
    }

    /// Whether the credit allows a batch of this length. One batch is always allowed.
    pub(super) fn has_credit(&self, len: u64) -> bool {
        self.in_flight_bytes == 0 || self.in_flight_bytes + len <= self.credit_bytes
    }

    /// The number that the next batch gets.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The next batch is on its way.
    pub(super) fn sent(&mut self, partition: PartitionIndex, len: u64, now: Duration) {
        if self.is_answered() {
            self.stirred_at = now;
        }
        self.next_sequence += 1;
        self.in_flight_bytes += len;
        self.expected.push_back(Some(partition));
    }

    /// The partition that an answer belongs to.
    pub(super) fn expected(
        &mut self,
        session_sequence: u64,
        now: Duration,
    ) -> Result<PartitionIndex, UnexpectedAnswer> {
        let oldest = self.next_sequence - self.expected.len() as u64;
        let at = session_sequence.checked_sub(oldest).and_then(|at| usize::try_from(at).ok());
        let place = at.and_then(|at| self.expected.get_mut(at)).ok_or(UnexpectedAnswer)?;
        let partition = place.take().ok_or(UnexpectedAnswer)?;
        while self.expected.front().is_some_and(Option::is_none) {
            self.expected.pop_front();
        }
        self.stirred_at = now;
        Ok(partition)
    }

    /// The answered batch was so long.
    pub(super) fn arrived(&mut self, len: u64) {
        self.in_flight_bytes -= len;
    }

    /// Whether nothing is on its way.
    pub(super) fn is_answered(&self) -> bool {
        self.expected.is_empty()
    }

    /// Since when an answer is awaited and none came.
    pub(super) fn silent_since(&self) -> Option<Duration> {
        (!self.is_answered()).then_some(self.stirred_at)
    }

    /// Whether nothing was sent for long. Asked often and rarely true.
    pub(super) fn is_idle(&mut self, now: Duration) -> bool {
        if now < self.review_at {
            return false;
        }
        self.review_at = now.saturating_add(IDLE);
        self.is_answered() && self.sendable.is_empty() && self.stirred_at.saturating_add(IDLE) <= now
    }
}
