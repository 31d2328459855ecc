//! How far a reader is, and what an answer adds to it. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use streamhouse_proto::v1;
use streamhouse_types::batch::{BatchLimits, RecordBatch};
use streamhouse_types::{Offset, PartitionIndex};

use super::{ConsumedBatch, PartitionProgress, ReadEvent};
use crate::error::ReadError;
use streamhouse_api::ReadToken;

/// An answer that is not read to its end.
#[derive(Debug)]
struct Unread {
    partition: PartitionIndex,
    batches: Bytes,
    next_offset: Offset,
    log_start: Offset,
    caught_up: bool,
    read_token: ReadToken,
}

/// The positions of a reader in its partitions.
#[derive(Debug)]
pub(super) struct Cursor {
    progress: BTreeMap<PartitionIndex, PartitionProgress>,
    unread: VecDeque<Unread>,
}

impl Cursor {
    pub(super) fn new(progress: BTreeMap<PartitionIndex, PartitionProgress>) -> Self {
        Self { progress, unread: VecDeque::new() }
    }

    pub(super) fn progress(&self) -> &BTreeMap<PartitionIndex, PartitionProgress> {
        &self.progress
    }

    /// The partitions that are not at their end, with where to go on and where to end.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (PartitionIndex, Offset, Option<Offset>)> + '_ {
        let open = self.progress.iter().filter(|(_, at)| !at.is_done());
        open.map(|(partition, at)| (*partition, at.next_offset, at.until))
    }

    /// Whether every partition is at its end and everything was given.
    pub(super) fn is_done(&self) -> bool {
        self.unread.is_empty() && self.progress.values().all(PartitionProgress::is_done)
    }

    /// Whether everything readable has been given, as far as the server has told.
    pub(super) fn is_caught_up(&self) -> bool {
        self.progress.values().all(|at| at.caught_up || at.is_done())
    }

    /// Forgets what a lost connection sent and was not given: it is asked for again.
    pub(super) fn forget_unread(&mut self) {
        self.unread.clear();
    }

    /// Goes on at the new start of a partition whose next records were trimmed. False when they were not.
    pub(super) fn skip_trimmed(&mut self, partition: PartitionIndex, log_start: Offset) -> bool {
        let Some(at) = self.progress.get_mut(&partition) else { return false };
        let trimmed = at.next_offset < log_start;
        if trimmed {
            at.trimmed += log_start.since(at.next_offset);
            at.next_offset = log_start;
            at.log_start = log_start;
        }
        trimmed
    }

    /// Takes an answer of the server.
    pub(super) fn accept(&mut self, answer: v1::ReadResponse) -> Result<(), ReadError> {
        let partition = PartitionIndex::new(answer.partition);
        let unasked = ReadError::BadAnswer { what: "a partition that was not asked for" };
        let at = self.progress.get_mut(&partition).ok_or(unasked)?;
        at.high_watermark = Offset::new(answer.high_watermark);
        at.log_start = Offset::new(answer.log_start);
        at.caught_up = answer.caught_up;
        self.unread.push_back(Unread {
            partition,
            batches: answer.record_batches,
            next_offset: Offset::new(answer.next_offset),
            log_start: at.log_start,
            caught_up: answer.caught_up,
            read_token: ReadToken::new(answer.read_token),
        });
        Ok(())
    }

    /// The next thing to give out of what the server sent; `None` when more has to come.
    pub(super) fn next_event(&mut self) -> Result<Option<ReadEvent>, ReadError> {
        while let Some(mut unread) = self.unread.pop_front() {
            if let Some(batch) = self.next_batch(&mut unread)? {
                self.unread.push_front(unread);
                return Ok(Some(ReadEvent::Batch(batch)));
            }
            let partition = unread.partition;
            let at = self.progress.get_mut(&partition).expect("checked when it was accepted");
            at.skip_to(partition, unread.next_offset, unread.log_start)?;
            if unread.caught_up {
                return Ok(Some(ReadEvent::CaughtUp { partition, next_offset: at.next_offset }));
            }
        }
        Ok(None)
    }

    fn next_batch(&mut self, unread: &mut Unread) -> Result<Option<ConsumedBatch>, ReadError> {
        let partition = unread.partition;
        let at = self.progress.get_mut(&partition).expect("checked when it was accepted");
        loop {
            let offset = at.next_offset;
            let corrupt = |source| ReadError::Corrupt { partition, offset, source: Arc::new(source) };
            let Some(batch) =
                RecordBatch::split_first(&mut unread.batches, &BatchLimits::MAX).map_err(corrupt)?
            else {
                return Ok(None);
            };
            let header = batch.header();
            let base = u64::try_from(header.base_offset).ok().filter(|base| *base < Offset::MAX.get() >> 1);
            let base = base.ok_or(ReadError::BadAnswer { what: "a batch at no possible offset" })?;
            let (base, end) = (Offset::new(base), Offset::new(base).after(header.offset_count()));
            if end <= at.next_offset || at.is_done() {
                continue; // read already, or not asked for
            }
            at.skip_to(partition, base, unread.log_start)?;
            let last = at.until.map_or(end, |until| until.min(end));
            let offsets = at.next_offset..last;
            let trimmed_before = std::mem::take(&mut at.trimmed);
            at.next_offset = last;
            at.may_skip_trimmed = true;
            if offsets.is_empty() {
                continue;
            }
            let read_token = unread.read_token;
            return Ok(Some(ConsumedBatch { partition, batch, base, offsets, trimmed_before, read_token }));
        }
    }
}

impl PartitionProgress {
    /// Whether everything that was asked for has been given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.next_offset >= until)
    }

    /// Goes on at `offset`, if it lies ahead: then what is between must have been trimmed.
    fn skip_to(
        &mut self,
        partition: PartitionIndex,
        offset: Offset,
        log_start: Offset,
    ) -> Result<(), ReadError> {
        let target = self.until.map_or(offset, |until| until.min(offset));
        if target <= self.next_offset {
            return Ok(());
        }
        if log_start < target {
            return Err(ReadError::Gap { partition, expected: self.next_offset, found: offset });
        }
        self.trimmed += target.since(self.next_offset);
        self.next_offset = target;
        Ok(())
    }
}
