//! What a producer sends.

use bytes::Bytes;
use streamhouse_types::batch::{RecordHeader, RecordRef};
use streamhouse_types::{PartitionIndex, Timestamp};

/// A record to send: a value, and what belongs to it.
///
/// ```
/// use streamhouse_client::Record;
/// let record = Record::new("{\"total\": 12}").key("order-7").header("source", "web");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<RecordHeader>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) partition: Option<PartitionIndex>,
}

impl Record {
    /// A record with this value.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record without a value: on a compacted topic it deletes its key.
    #[must_use]
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Sets the key. Records of one key go to one partition, in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header. Names may repeat.
    #[must_use]
    pub fn header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(RecordHeader { key: name.into(), value: Some(value.into()) });
        self
    }

    /// Sets the time of the event; else it is the time of sending.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Names the partition, whatever the key.
    #[must_use]
    pub fn partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Key, value and header bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|header| header.key.len() + len(&header.value)).sum();
        len(&self.key) + len(&self.value) + headers
    }

    /// At least as many bytes as the record takes in a batch before compression.
    pub(crate) fn encoded_len_max(&self) -> usize {
        // Length, attributes, timestamp and offset deltas, key, value and header counts: varints of at most 5 or 10.
        const FIXED: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        self.payload_bytes() + FIXED + self.headers.len() * 10
    }

    /// The record as it is encoded, with `now` where it has no time of its own.
    pub(crate) fn encode_at(&self, now: Timestamp) -> RecordRef<'_> {
        RecordRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp.unwrap_or(now),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Record {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
