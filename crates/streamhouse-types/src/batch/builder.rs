//! Writes a batch, record by record.

use bytes::Bytes;

use super::compress::compress;
use super::header::{BatchProducer, HEADER_BYTES, MAGIC, PREFIX_BYTES, at};
use super::patch::{put, seal};
use super::record::HEADERS_MAX;
use super::{BatchError, Compression, RecordFault, RecordHeader, RecordRef, varint};
use crate::Timestamp;

/// Most bytes of a batch before compression: its length field is signed.
const BYTES_MAX: usize = i32::MAX as usize;
/// Most records that any broker of ours takes in one batch.
const RECORDS_MAX: u32 = 100_000;

/// Builds one batch. Records are encoded straight into the buffer that becomes the batch.
#[derive(Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    compression: Compression,
    producer: Option<BatchProducer>,
    records: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, 0)
    }

    /// An empty batch with room for `bytes` in all before compression.
    #[must_use]
    pub fn with_capacity(compression: Compression, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.max(HEADER_BYTES));
        buffer.resize(HEADER_BYTES, 0);
        Self { buffer, compression, producer: None, records: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Makes it an idempotent batch. [`super::stamp_producer`] does the same after it is built.
    pub fn set_producer(&mut self, producer: BatchProducer) {
        self.producer = Some(producer);
    }

    /// Appends a record. The timestamp of the first is the base of the others'.
    ///
    /// # Errors
    /// [`BatchError`] when the batch has 100,000 records or would pass 2 GiB, when the timestamp is less than −1 or
    /// there are over 1,000 headers. The builder is as before then.
    #[inline]
    pub fn push(&mut self, record: &RecordRef<'_>) -> Result<(), BatchError> {
        let shape = self.shape(record)?;
        let total = varint::size(shape.length) + shape.body_bytes;
        self.buffer.reserve(total);
        let out = &mut self.buffer;
        varint::write(out, shape.length);
        out.push(0);
        varint::write(out, shape.timestamp_delta);
        varint::write(out, i64::from(self.records));
        write_nullable(out, record.key);
        write_nullable(out, record.value);
        varint::write(out, record.headers.len().cast_signed() as i64);
        for header in record.headers {
            write_nullable(out, Some(&header.key));
            write_nullable(out, header.value.as_deref());
        }
        let timestamp = record.timestamp.as_millis();
        if self.records == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.records += 1;
        Ok(())
    }

    /// How many bytes the batch has before compression, header included: exactly the length of what [`Self::build`]
    /// gives without compression, and never less with it.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// How many bytes [`Self::len_bytes`] would grow by with this record.
    #[must_use]
    pub fn cost_bytes(&self, record: &RecordRef<'_>) -> usize {
        let shape = self.measure(record);
        varint::size(shape.length) + shape.body_bytes
    }

    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether it has no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The sealed batch, with base offset 0 and no leader epoch. Records that compression does not make smaller are
    /// left as they are.
    ///
    /// # Panics
    /// When it has no records: there are no empty batches.
    #[must_use]
    pub fn build(mut self) -> Bytes {
        assert!(self.records > 0, "a batch has at least one record");
        let mut attributes = Compression::None.code();
        if self.compression != Compression::None {
            let mut packed = Vec::with_capacity(HEADER_BYTES + self.buffer.len() / 2);
            packed.resize(HEADER_BYTES, 0);
            compress(self.compression, &self.buffer[HEADER_BYTES..], &mut packed);
            if packed.len() < self.buffer.len() {
                attributes = self.compression.code();
                self.buffer = packed;
            }
        }
        self.write_header(attributes);
        seal(&mut self.buffer);
        Bytes::from(self.buffer)
    }

    fn write_header(&mut self, attributes: u8) {
        let length = u32::try_from(self.buffer.len()).expect("push keeps it under 2 GiB") - PREFIX_BYTES;
        let (id, epoch, sequence) = match self.producer {
            Some(producer) => (
                producer.id.get().cast_signed(),
                producer.epoch.get().cast_signed(),
                producer.first_sequence.get().cast_signed(),
            ),
            None => (-1, -1, -1),
        };
        let out = &mut self.buffer;
        put(out, at::LENGTH, length.to_be_bytes());
        put(out, at::LEADER_EPOCH, (-1_i32).to_be_bytes());
        put(out, at::MAGIC, [MAGIC]);
        put(out, at::ATTRIBUTES, u16::from(attributes).to_be_bytes());
        put(out, at::LAST_OFFSET_DELTA, (self.records - 1).to_be_bytes());
        put(out, at::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(out, at::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(out, at::PRODUCER_ID, id.to_be_bytes());
        put(out, at::PRODUCER_EPOCH, epoch.to_be_bytes());
        put(out, at::BASE_SEQUENCE, sequence.to_be_bytes());
        put(out, at::RECORD_COUNT, self.records.to_be_bytes());
    }

    fn shape(&self, record: &RecordRef<'_>) -> Result<Shape, BatchError> {
        let index = self.records;
        if index == RECORDS_MAX {
            return Err(BatchError::TooManyRecords { actual: index + 1, limit: RECORDS_MAX });
        }
        if record.timestamp < Timestamp::NONE {
            return Err(BatchError::Record { index, fault: RecordFault::Timestamp });
        }
        if record.headers.len() > HEADERS_MAX {
            return Err(BatchError::Record { index, fault: RecordFault::TooManyHeaders });
        }
        let shape = self.measure(record);
        let actual = self.buffer.len().saturating_add(shape.body_bytes).saturating_add(5);
        if actual > BYTES_MAX {
            return Err(BatchError::TooLarge { actual, limit: i32::MAX.cast_unsigned() });
        }
        Ok(shape)
    }

    #[inline]
    fn measure(&self, record: &RecordRef<'_>) -> Shape {
        let timestamp = record.timestamp.as_millis();
        let base = if self.records == 0 { timestamp } else { self.base_timestamp };
        // Both are at least −1 in what is taken, so the difference fits.
        let timestamp_delta = timestamp.saturating_sub(base);
        let headers = record.headers;
        let body_bytes = 1
            + varint::size(timestamp_delta)
            + varint::size(i64::from(self.records))
            + nullable_size(record.key)
            + nullable_size(record.value)
            + varint::size(headers.len().cast_signed() as i64)
            + headers.iter().map(header_size).sum::<usize>();
        Shape { timestamp_delta, body_bytes, length: body_bytes.cast_signed() as i64 }
    }
}

/// What a record takes.
struct Shape {
    timestamp_delta: i64,
    /// Bytes after the record's own length.
    body_bytes: usize,
    /// The same, as it is written.
    length: i64,
}

fn header_size(header: &RecordHeader) -> usize {
    nullable_size(Some(&header.key)) + nullable_size(header.value.as_deref())
}

#[inline]
fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::size(bytes.len().cast_signed() as i64) + bytes.len())
}

#[inline]
fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::write(out, bytes.len().cast_signed() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::write(out, -1),
    }
}
