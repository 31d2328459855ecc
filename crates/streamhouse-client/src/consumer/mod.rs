//! Readers: batches and records as streams.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use streamhouse_types::batch::{RecordBatch, RecordHeader};
use streamhouse_types::{Offset, PartitionIndex, Timestamp};

use crate::error::ReadError;
use crate::position::Position;
use crate::topic::Topic;

/// What to read. Made by [`Topic::read`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ReadBuilder {
    topic: Topic,
    from: Position,
    until: Option<Position>,
    partitions: Vec<PartitionIndex>,
    from_offsets: BTreeMap<PartitionIndex, Offset>,
    follow: bool,
    max_bytes: u32,
}

impl ReadBuilder {
    pub(crate) fn new(topic: Topic, from: Position) -> Self {
        Self {
            topic,
            from,
            until: None,
            partitions: Vec::new(),
            from_offsets: BTreeMap::new(),
            follow: false,
            max_bytes: 0,
        }
    }

    /// Where to end, exclusive. Looked up once, when the reader is opened. Without it a reader ends where the
    /// partitions end when it is opened, or never with [`follow`](Self::follow).
    pub fn until(mut self, until: Position) -> Self {
        self.until = Some(until);
        self
    }

    /// Only these partitions; all by default.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = PartitionIndex>) -> Self {
        self.partitions.extend(partitions);
        self
    }

    /// Starts a partition at an offset of its own, whatever `from` says: to go on where another reader stopped.
    pub fn resume(mut self, partition: PartitionIndex, offset: Offset) -> Self {
        self.from_offsets.insert(partition, offset);
        self
    }

    /// Whether to go on when the end is reached; `false` by default.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// At most this many bytes in one answer of the server; 1 MiB by default. A larger batch comes alone.
    pub fn max_bytes(mut self, bytes: u32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Looks the positions up. Cancel-safe.
    ///
    /// # Errors
    /// When the topic or a partition does not exist, or no server answers within the request timeout.
    pub async fn open(self) -> Result<Reader, ReadError> {
        let _ = (&self.topic, self.from, self.until, self.max_bytes, self.follow);
        Err(ReadError::BadAnswer { what: "not built yet" })
    }
}

/// How far a reader is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The next offset it will give.
    pub next_offset: Offset,
    /// Where it ends, exclusive; `None` when it never does.
    pub until: Option<Offset>,
    /// First offset that was not readable, when the server last told.
    pub high_watermark: Offset,
    /// First readable offset, when the server last told.
    pub log_start: Offset,
    /// Whether everything readable had been given, when the server last told.
    pub caught_up: bool,
}

/// What a reader gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReadEvent {
    /// Records.
    Batch(ConsumedBatch),
    /// Everything that is readable in this partition has been given.
    CaughtUp {
        /// The partition.
        partition: PartitionIndex,
        /// The next offset.
        next_offset: Offset,
    },
}

/// A batch of a partition, with the part of it that was asked for.
#[derive(Debug, Clone)]
pub struct ConsumedBatch {
    partition: PartitionIndex,
    batch: RecordBatch,
    wanted: Range<Offset>,
    trimmed_before: u64,
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

/// Reads partitions, merged in the order of arrival; each partition in the order of its offsets. A stream of batches.
///
/// Lost connections and restarts of the server are ridden out: the reader goes on where it was. It ends when every
/// partition has reached its end, and after the first error. Dropping it ends the reading.
#[derive(Debug)]
pub struct Reader {
    progress: BTreeMap<PartitionIndex, PartitionProgress>,
}

impl Reader {
    /// The next batch or mark; `None` at the end. Cancel-safe.
    pub async fn next_event(&mut self) -> Option<Result<ReadEvent, ReadError>> {
        None
    }

    /// The next batch; `None` at the end. Cancel-safe.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumedBatch, ReadError>> {
        None
    }

    /// How far it is, by partition.
    #[must_use]
    pub fn progress(&self) -> &BTreeMap<PartitionIndex, PartitionProgress> {
        &self.progress
    }

    /// Record by record.
    #[must_use]
    pub fn records(self) -> RecordStream {
        RecordStream { reader: self }
    }
}

impl Stream for Reader {
    type Item = Result<ConsumedBatch, ReadError>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

/// The records of a reader, one by one.
#[derive(Debug)]
pub struct RecordStream {
    reader: Reader,
}

impl RecordStream {
    /// How far it is, by partition, in whole batches.
    #[must_use]
    pub fn progress(&self) -> &BTreeMap<PartitionIndex, PartitionProgress> {
        self.reader.progress()
    }
}

impl Stream for RecordStream {
    type Item = Result<ConsumedRecord, ReadError>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
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
        self.wanted.clone()
    }

    /// How many records in front of it were trimmed away before they could be read.
    #[must_use]
    pub fn trimmed_before(&self) -> u64 {
        self.trimmed_before
    }
}
