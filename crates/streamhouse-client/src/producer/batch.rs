//! A batch on its way: from the first record pushed into it to its fate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use streamhouse_types::batch::{BatchBuilder, BatchProducer, stamp_producer};
use streamhouse_types::{PartitionIndex, ProducerEpoch, ProducerId, Sequence};
use tokio::sync::OwnedSemaphorePermit;

use super::ticket::{BatchAck, BatchFate};
use crate::error::{Rejected, SendError};
use crate::rejection::Rejection;

/// Who an idempotent producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

impl Identity {
    /// The same producer after its sequences had to begin anew. What was sent under the former epoch and may still be on
    /// its way is refused from the moment on at which a partition has a batch of this one, so nothing that was given up
    /// comes in behind what was sent later. `None` when there are no more epochs.
    pub(super) fn next(self) -> Option<Self> {
        let raw = self.epoch.get().checked_add(1).filter(|raw| i16::try_from(*raw).is_ok())?;
        Some(Self { epoch: ProducerEpoch::new(raw), ..self })
    }
}

/// The right and the duty to decide a batch: whoever drops it undecided says that it was abandoned, so no ticket
/// waits for ever.
#[derive(Debug)]
pub(super) struct Undecided {
    fate: Arc<BatchFate>,
    ever_sent: bool,
}

impl Undecided {
    pub(super) fn new(fate: Arc<BatchFate>) -> Self {
        Self { fate, ever_sent: false }
    }

    pub(super) fn fate(&self) -> &Arc<BatchFate> {
        &self.fate
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.fate.decide(Err(SendError::Abandoned { may_have_happened: self.ever_sent }));
    }
}

/// A batch that takes no more records.
#[derive(Debug)]
pub(super) struct Batch {
    partition: PartitionIndex,
    content: Content,
    records: u32,
    undecided: Undecided,
    /// Room in the producer's memory, given back when the batch is decided.
    room: Option<OwnedSemaphorePermit>,
    /// When it fails if it is not acknowledged.
    deadline: Duration,
    /// An earlier try got no answer, or one that leaves its outcome open.
    uncertain: bool,
    last: Option<Rejection>,
}

#[derive(Debug)]
enum Content {
    /// Not sent yet: it has no sequence, so it can fail without leaving a gap.
    Open(BatchBuilder),
    /// Sent before, or about to be.
    Sealed { bytes: Bytes, stamp: Option<BatchProducer> },
    /// It failed while its answer was outstanding; only its place in the order of answers is kept.
    Gone { len_bytes: u64 },
}

impl Batch {
    pub(super) fn new(
        builder: BatchBuilder,
        undecided: Undecided,
        room: Option<OwnedSemaphorePermit>,
        deadline: Duration,
    ) -> Self {
        let records = builder.records();
        let partition = undecided.fate().partition();
        Self {
            partition,
            content: Content::Open(builder),
            records,
            undecided,
            room,
            deadline,
            uncertain: false,
            last: None,
        }
    }

    pub(super) fn partition(&self) -> PartitionIndex {
        self.partition
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether its outcome is open: then it may only be sent again as it was.
    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Whether it was given a sequence, so that leaving it out leaves a gap.
    pub(super) fn is_stamped(&self) -> bool {
        matches!(self.content, Content::Sealed { stamp: Some(_), .. })
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.content, Content::Gone { .. })
    }

    /// Bytes it takes on the wire; before compression at least as many.
    pub(super) fn len_bytes(&self) -> u64 {
        match &self.content {
            Content::Open(builder) => builder.len_bytes() as u64,
            Content::Sealed { bytes, .. } => bytes.len() as u64,
            Content::Gone { len_bytes } => *len_bytes,
        }
    }

    /// Seals it for `identity` if it is not yet, taking sequences from `next`. What is uncertain stays as it was sent.
    pub(super) fn seal(&mut self, identity: Option<Identity>, next: &mut Sequence) -> Bytes {
        let fresh = identity.map(|identity| BatchProducer {
            id: identity.id,
            epoch: identity.epoch,
            first_sequence: *next,
        });
        let same = |stamp: &Option<BatchProducer>| {
            stamp.map(|stamp| (stamp.id, stamp.epoch)) == fresh.map(|fresh| (fresh.id, fresh.epoch))
        };
        self.undecided.ever_sent = true;
        let content = std::mem::replace(&mut self.content, Content::Gone { len_bytes: 0 });
        let (bytes, stamp) = match content {
            Content::Sealed { bytes, stamp } if self.uncertain || same(&stamp) => (bytes, stamp),
            Content::Sealed { bytes, .. } => (restamp(bytes, fresh), fresh),
            Content::Open(mut builder) => {
                if let Some(fresh) = fresh {
                    builder.set_producer(fresh);
                }
                (builder.build(), fresh)
            }
            Content::Gone { .. } => unreachable!("a batch that is gone is never sent"),
        };
        if let Some(stamp) = stamp.filter(|stamp| Some(*stamp) == fresh) {
            *next = stamp.first_sequence.after(self.records);
        }
        self.content = Content::Sealed { bytes: bytes.clone(), stamp };
        bytes
    }

    /// A try failed; the next may work.
    pub(super) fn note(&mut self, rejection: Rejection) {
        self.uncertain |= rejection.may_have_happened();
        self.last = Some(rejection);
    }

    /// A try got no answer.
    pub(super) fn unanswered(&mut self, rejection: Rejection) {
        self.uncertain = true;
        self.last = Some(rejection);
    }

    /// It is not in the log and will not be, whatever its tries said.
    pub(super) fn made_certain(&mut self) {
        self.uncertain = false;
    }

    pub(super) fn acknowledge(self, ack: BatchAck) {
        self.undecided.fate.decide(Ok(ack));
    }

    pub(super) fn fail(self, error: SendError) {
        self.undecided.fate.decide(Err(error));
    }

    /// It was refused, and what was sent behind it is stored: sent again, it would be out of order.
    pub(super) fn overtaken(self) {
        let rejection = self.last.clone().expect("it was refused");
        self.fail(SendError::Rejected(Rejected { rejection, may_have_happened: false }));
    }

    /// Its time is over while an answer may still come: decides it, and keeps only its place.
    pub(super) fn expire_in_place(&mut self, after: Duration, link: Option<&Rejection>) {
        self.uncertain = true;
        if self.last.is_none() && link.is_none() {
            self.last = Some(Rejection::unacknowledged());
        }
        let error = self.timed_out(after, link);
        self.content = Content::Gone { len_bytes: self.len_bytes() };
        self.room = None;
        self.undecided.fate.decide(Err(error));
    }

    pub(super) fn timed_out(&self, after: Duration, link: Option<&Rejection>) -> SendError {
        let last = self.last.as_ref().or(link).cloned();
        SendError::TimedOut { after, last, may_have_happened: self.uncertain }
    }
}

fn restamp(bytes: Bytes, stamp: Option<BatchProducer>) -> Bytes {
    let Some(stamp) = stamp else { return bytes };
    let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    stamp_producer(&mut bytes, stamp.id, stamp.epoch, stamp.first_sequence);
    bytes.freeze()
}
