//! What is asked of the broker, and what it answers.

use std::time::Duration;

use bytes::Bytes;
use streamhouse_metadata::{RequestId, TopicSettings};
use streamhouse_types::batch::RecordBatch;
use streamhouse_types::{Offset, PartitionId, Timestamp, TopicId, TopicName};

use crate::BytePermit;

/// One batch for one partition.
#[derive(Debug)]
pub struct AppendRequest {
    /// Where to.
    pub partition: PartitionId,
    /// The batch, parsed with the topic's limits. With a producer in its header it is judged by its sequence.
    pub batch: RecordBatch,
    /// The share of the in-flight budget, when the caller took it before it read the batch. Absent: the broker takes
    /// it, and waits for it.
    pub permit: Option<BytePermit>,
}

/// Batches that are appended wholly or not at all.
#[derive(Debug)]
pub struct UnitAppend {
    /// In order; several may be for one partition.
    pub batches: Vec<(PartitionId, RecordBatch)>,
    /// High watermarks that must hold when the unit is judged.
    pub expected: Vec<(PartitionId, Offset)>,
    /// As in [`AppendRequest`].
    pub permit: Option<BytePermit>,
}

/// Where a batch was appended. It is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base: Offset,
    /// One past the offset of its last record.
    pub end: Offset,
    /// The append time of the log.
    pub append_time: Timestamp,
    /// The batch was in the log already, from an earlier try.
    pub duplicate: bool,
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRequest {
    /// From where.
    pub partition: PartitionId,
    /// The first wanted offset.
    pub offset: Offset,
    /// About how many bytes of batches to return; a first batch larger than this comes alone.
    pub max_bytes: u32,
    /// Fewer bytes than this are waited for; 0 never waits.
    pub min_bytes: u32,
    /// How long to wait for `min_bytes`.
    pub max_wait: Duration,
}

/// Whole batches from the one that holds the wanted offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Their bytes in order, base offsets and leader epochs final; a batch may be spread over pieces.
    pub bytes: Vec<Bytes>,
    /// Where to go on: one past the last record returned; the wanted offset when nothing is.
    pub next_offset: Offset,
    /// First offset that is not readable yet, here and now.
    pub high_watermark: Offset,
    /// First offset that is still readable.
    pub log_start: Offset,
    /// How many records the batches hold, also those before the wanted offset.
    pub records: u64,
}

impl Fetched {
    /// Length of all batches in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.iter().map(Bytes::len).sum()
    }

    /// Whether there is no batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(Bytes::is_empty)
    }
}

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record there is.
    Start,
    /// The high watermark now.
    End,
    /// This offset; must lie in `log_start..=high_watermark`.
    Offset(Offset),
    /// The first record whose timestamp is at or after this; the high watermark when there is none.
    Time(Timestamp),
    /// So many records before the high watermark, at least the log start.
    BeforeEnd(u64),
}

/// Where a [`Position`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// Timestamp of the record found by time; `None` otherwise.
    pub timestamp: Option<Timestamp>,
}

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; 0 for the default.
    pub partitions: u32,
    /// Its settings, by Kafka's names.
    pub settings: Vec<(String, String)>,
    /// Names the request, so that a repeated one gets its first answer; `None`: made here.
    pub request: Option<RequestId>,
    /// Check only.
    pub validate_only: bool,
}

/// What writers and readers of a topic need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has.
    pub partitions: u32,
    /// Its settings.
    pub settings: TopicSettings,
}
