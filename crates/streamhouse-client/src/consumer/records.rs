//! Records out of batches.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use streamhouse_types::batch::{BatchError, RecordBatch, RecordHeader, RecordIter};
use streamhouse_types::{Offset, PartitionIndex, Timestamp};

use super::PartitionProgress;
use super::reader::Reader;
use crate::error::ReadError;
use streamhouse_api::ReadToken;

/// A batch of a partition, with the part of it that was asked for.
#[derive(Debug, Clone)]
pub struct ConsumedBatch {
    pub(super) partition: PartitionIndex,
    pub(super) batch: RecordBatch,
    pub(super) base: Offset,
    pub(super) offsets: Range<Offset>,
    pub(super) trimmed_before: u64,
    pub(super) read_token: ReadToken,
}

/// A record that was read. Its bytes are slices of the batch, or of its decompressed records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumedRecord {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its offset.
    pub offset: Offset,
    /// The producer's timestamp, or the append time where the topic says so.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<RecordHeader>,
}

impl ConsumedBatch {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// The whole batch, as it is stored: it may begin before and end after what was asked for.
    #[must_use]
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// The offsets of it that were asked for.
    #[must_use]
    pub fn offsets(&self) -> Range<Offset> {
        self.offsets.clone()
    }

    /// How many records in front of it were trimmed away before they could be read.
    #[must_use]
    pub fn trimmed_before(&self) -> u64 {
        self.trimmed_before
    }

    /// A read that presents it, on any node, is at least as new as the one that brought this batch.
    #[must_use]
    pub fn read_token(&self) -> ReadToken {
        self.read_token
    }

    /// The records that were asked for. Compressed batches are opened here.
    ///
    /// # Errors
    /// When the batch cannot be opened. The iterator gives an error for a malformed record, and ends there.
    pub fn records(&self) -> Result<BatchRecords, ReadError> {
        let corrupt = corrupt(self.partition, self.offsets.start);
        let records = self.batch.records().map_err(corrupt)?;
        Ok(BatchRecords {
            partition: self.partition,
            base: self.base,
            offsets: self.offsets.clone(),
            records,
        })
    }
}

fn corrupt(partition: PartitionIndex, offset: Offset) -> impl Fn(BatchError) -> ReadError {
    move |source| ReadError::Corrupt { partition, offset, source: Arc::new(source) }
}

/// The records of one batch.
#[derive(Debug)]
pub struct BatchRecords {
    partition: PartitionIndex,
    base: Offset,
    offsets: Range<Offset>,
    records: RecordIter,
}

impl Iterator for BatchRecords {
    type Item = Result<ConsumedRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(corrupt(self.partition, self.offsets.start)(error))),
            };
            let offset = self.base.after(record.offset_delta);
            if offset >= self.offsets.end {
                return None;
            }
            if offset >= self.offsets.start {
                return Some(Ok(ConsumedRecord {
                    partition: self.partition,
                    offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                }));
            }
        }
    }
}

/// The records of a reader, one by one. Ends after the first error.
#[derive(Debug)]
pub struct RecordStream {
    reader: Reader,
    current: Option<BatchRecords>,
    failed: bool,
}

impl RecordStream {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, current: None, failed: false }
    }

    /// How far the reader is, by partition, in whole batches: a batch counts when its first record is given.
    #[must_use]
    pub fn progress(&self) -> &BTreeMap<PartitionIndex, PartitionProgress> {
        self.reader.progress()
    }
}

impl Stream for RecordStream {
    type Item = Result<ConsumedRecord, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.failed {
                return Poll::Ready(None);
            }
            if let Some(record) = self.current.as_mut().and_then(Iterator::next) {
                self.failed = record.is_err();
                return Poll::Ready(Some(record));
            }
            self.current = None;
            let batch = match ready!(self.reader.poll_next_unpin(cx)) {
                Some(batch) => batch.and_then(|batch| batch.records()),
                None => return Poll::Ready(None),
            };
            match batch {
                Ok(records) => self.current = Some(records),
                Err(error) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
