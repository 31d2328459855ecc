//! What becomes of a batch, shared by all who wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use streamhouse_types::{Offset, PartitionIndex, Timestamp};

use crate::error::SendError;
use streamhouse_api::ReadToken;

/// A record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ack {
    /// The partition it is in.
    pub partition: PartitionIndex,
    /// Its offset.
    pub offset: Offset,
    /// When the log took it; `None` when the server does not say.
    pub append_time: Option<Timestamp>,
    /// The batch was in the log already: an earlier try had worked although no answer came.
    pub duplicate: bool,
    read_token: ReadToken,
}

impl Ack {
    /// A read that presents it sees the record, on any node.
    #[must_use]
    pub fn read_token(&self) -> ReadToken {
        self.read_token
    }
}

/// An acknowledged batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchAck {
    pub(super) base: Offset,
    pub(super) append_time: Option<Timestamp>,
    pub(super) duplicate: bool,
    pub(super) read_token: ReadToken,
}

/// The fate of one batch. Written once.
#[derive(Debug)]
pub(super) struct BatchFate {
    partition: PartitionIndex,
    outcome: OnceLock<Result<BatchAck, SendError>>,
    waiting: Mutex<Waiting>,
}

/// Wakers by number. Most batches have few: often one task waits for the last ticket only.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Waker>,
}

impl BatchFate {
    pub(super) fn new(partition: PartitionIndex) -> Arc<Self> {
        Arc::new(Self { partition, outcome: OnceLock::new(), waiting: Mutex::default() })
    }

    pub(super) fn partition(&self) -> PartitionIndex {
        self.partition
    }

    pub(super) fn outcome(&self) -> Option<&Result<BatchAck, SendError>> {
        self.outcome.get()
    }

    /// Decides it, unless it is decided; wakes all who wait.
    pub(super) fn decide(&self, outcome: Result<BatchAck, SendError>) {
        if self.outcome.set(outcome).is_ok() {
            let wakers = std::mem::take(&mut self.waiting.lock().wakers);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits for the decision. `place` is where this waiter's waker lies, if it has waited before.
    fn poll_decided(
        &self,
        place: &mut Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<&Result<BatchAck, SendError>> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let mut waiting = self.waiting.lock();
        // Decided in between: `decide` sets the outcome before it takes the wakers.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let known = place.and_then(|place| waiting.wakers.get_mut(place));
        match known {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                *place = Some(waiting.wakers.len());
                waiting.wakers.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }

    /// Waits for the decision. Cancel-safe.
    pub(super) async fn decided(&self) -> &Result<BatchAck, SendError> {
        let mut place = None;
        std::future::poll_fn(|cx| self.poll_decided(&mut place, cx)).await
    }
}

/// Resolves when a record is durable, or has failed for good. Cheap to keep and to drop.
#[derive(Debug)]
#[must_use = "a ticket tells whether the record is durable; drop it only if flush or close is asked instead"]
pub struct Ticket {
    fate: Arc<BatchFate>,
    index: u32,
    place: Option<usize>,
}

impl Ticket {
    pub(super) fn new(fate: Arc<BatchFate>, index: u32) -> Self {
        Self { fate, index, place: None }
    }

    /// The partition the record goes to.
    #[must_use]
    pub fn partition(&self) -> PartitionIndex {
        self.fate.partition
    }

    /// The outcome, if it is decided.
    #[must_use]
    pub fn try_ack(&self) -> Option<Result<Ack, SendError>> {
        self.fate.outcome().map(|outcome| self.read(outcome))
    }

    fn read(&self, outcome: &Result<BatchAck, SendError>) -> Result<Ack, SendError> {
        let ack = outcome.as_ref().map_err(Clone::clone)?;
        Ok(Ack {
            partition: self.fate.partition,
            offset: ack.base.after(self.index),
            append_time: ack.append_time,
            duplicate: ack.duplicate,
            read_token: ack.read_token,
        })
    }
}

impl Future for Ticket {
    type Output = Result<Ack, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { fate, place, .. } = &mut *self;
        let fate = fate.clone();
        fate.poll_decided(place, cx).map(|outcome| self.read(outcome))
    }
}
