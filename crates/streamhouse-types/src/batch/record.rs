//! One record: as it lies in a batch, as it is given to a builder, as it is read.

use std::ops::Range;

use bytes::Bytes;

use super::{BatchError, BatchHeader, RecordFault, varint};
use crate::Timestamp;

/// Most headers that one record may have.
pub const HEADERS_MAX: usize = 1_000;

/// Fewest bytes of a record: its length, and six fields of one byte.
pub(super) const RECORD_BYTES_MIN: usize = 7;

/// A header of a record. Keys are text by custom; they need not be unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its key, UTF-8 by Kafka's rule, which is not checked.
    pub key: Bytes,
    /// Its value; `None` is not the same as empty.
    pub value: Option<Bytes>,
}

/// A record that was read. Its bytes are slices of the batch, or of the batch's decompressed records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key; `None` is not the same as empty.
    pub key: Option<Bytes>,
    /// Its value; `None` deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<RecordHeader>,
    /// The producer's timestamp, or the append time where the topic says so.
    pub timestamp: Timestamp,
    /// Its offset, counted from the batch's base offset.
    pub offset_delta: u32,
}

impl Record {
    /// The record as a builder takes it.
    #[must_use]
    pub fn as_record_ref(&self) -> RecordRef<'_> {
        RecordRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp,
        }
    }
}

/// A record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [RecordHeader],
    /// Its timestamp, at least −1 ("none").
    pub timestamp: Timestamp,
}

/// Where the parts of one record lie.
#[derive(Debug)]
pub(super) struct RawRecord {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers_start: usize,
    pub(super) header_count: usize,
    pub(super) end: usize,
}

/// Reads the record at `start` without allocating, and checks every length in it.
#[inline]
pub(super) fn read_raw(bytes: &[u8], start: usize) -> Result<RawRecord, RecordFault> {
    let mut position = start;
    let length = varint::read_i32(bytes, &mut position)?;
    let length = usize::try_from(length).map_err(|_| RecordFault::Length)?;
    let end = position.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(RecordFault::CutShort)?;
    let bytes = &bytes[..end];
    position += 1; // the attributes of a record have no meaning yet
    let timestamp_delta = varint::read_i64(bytes, &mut position)?;
    let offset_delta = varint::read_i32(bytes, &mut position)?;
    let key = read_nullable(bytes, &mut position)?;
    let value = read_nullable(bytes, &mut position)?;
    let header_count = varint::read_i32(bytes, &mut position)?;
    let header_count = usize::try_from(header_count).map_err(|_| RecordFault::Length)?;
    let headers_start = position;
    for _ in 0..header_count {
        read_header(bytes, &mut position)?;
    }
    if position != end {
        return Err(RecordFault::Leftover);
    }
    Ok(RawRecord { timestamp_delta, offset_delta, key, value, headers_start, header_count, end })
}

type HeaderRanges = (Range<usize>, Option<Range<usize>>);

fn read_header(bytes: &[u8], position: &mut usize) -> Result<HeaderRanges, RecordFault> {
    let key = read_nullable(bytes, position)?.ok_or(RecordFault::Length)?;
    Ok((key, read_nullable(bytes, position)?))
}

/// A length, −1 for none, and that many bytes.
#[inline]
fn read_nullable(bytes: &[u8], position: &mut usize) -> Result<Option<Range<usize>>, RecordFault> {
    let length = varint::read_i32(bytes, position)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| RecordFault::Length)?;
    let start = *position;
    let end = start.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(RecordFault::Length)?;
    *position = end;
    Ok(Some(start..end))
}

/// Checks what spans records: offset deltas that go up to the last, timestamps inside their range.
#[derive(Debug)]
pub(super) struct Sequencer {
    base_timestamp: i64,
    last_offset_delta: u32,
    next_offset_delta: u32,
}

impl Sequencer {
    pub(super) fn new(header: &BatchHeader) -> Self {
        Self {
            base_timestamp: header.base_timestamp.as_millis(),
            last_offset_delta: header.last_offset_delta,
            next_offset_delta: 0,
        }
    }

    /// The offset delta and the timestamp of the next record.
    #[inline]
    pub(super) fn place(&mut self, raw: &RawRecord) -> Result<(u32, i64), RecordFault> {
        let delta = u32::try_from(raw.offset_delta).map_err(|_| RecordFault::OffsetDelta)?;
        if delta < self.next_offset_delta || delta > self.last_offset_delta {
            return Err(RecordFault::OffsetDelta);
        }
        self.next_offset_delta = delta + 1;
        let timestamp = self.base_timestamp.checked_add(raw.timestamp_delta).ok_or(RecordFault::Timestamp)?;
        Ok((delta, timestamp))
    }
}

/// What a walk over records has found.
#[derive(Debug, Clone)]
pub(super) struct Walked {
    /// Their greatest timestamp.
    pub(super) max_timestamp: Timestamp,
    /// The first [`KEYLESS_MAX`] that have no key, counted from 0.
    pub(super) keyless: Vec<u32>,
}

/// How many records without a key are named.
const KEYLESS_MAX: usize = 256;

/// Walks over records without copying them. They must be `header.record_count`, in order, and end with the bytes.
pub(super) fn walk(records: &[u8], header: &BatchHeader) -> Result<Walked, BatchError> {
    let mut sequencer = Sequencer::new(header);
    let mut position = 0;
    let mut max_timestamp = Timestamp::NONE.as_millis();
    let mut keyless = Vec::new();
    for index in 0..header.record_count {
        let (raw, timestamp) = walk_one(records, position, &mut sequencer)
            .map_err(|fault| BatchError::Record { index, fault })?;
        position = raw.end;
        max_timestamp = max_timestamp.max(timestamp);
        if raw.key.is_none() && keyless.len() < KEYLESS_MAX {
            keyless.push(index);
        }
    }
    if position != records.len() {
        return Err(BatchError::Record { index: header.record_count, fault: RecordFault::TrailingBytes });
    }
    Ok(Walked { max_timestamp: Timestamp::from_millis(max_timestamp), keyless })
}

fn walk_one(
    records: &[u8],
    start: usize,
    sequencer: &mut Sequencer,
) -> Result<(RawRecord, i64), RecordFault> {
    let raw = read_raw(records, start)?;
    if raw.header_count > HEADERS_MAX {
        return Err(RecordFault::TooManyHeaders);
    }
    let (_, timestamp) = sequencer.place(&raw)?;
    if timestamp < Timestamp::NONE.as_millis() {
        return Err(RecordFault::Timestamp);
    }
    Ok((raw, timestamp))
}

/// Reads the records of a batch one by one, as they are asked for. After an error it ends.
#[derive(Debug)]
pub struct RecordIter {
    records: Bytes,
    position: usize,
    index: u32,
    count: u32,
    sequencer: Sequencer,
    append_time: Option<Timestamp>,
}

impl RecordIter {
    /// Over records that lie open in `records`.
    pub(super) fn new(records: Bytes, header: &BatchHeader) -> Self {
        Self {
            records,
            position: 0,
            index: 0,
            count: header.record_count,
            sequencer: Sequencer::new(header),
            append_time: header.attributes.is_log_append_time().then_some(header.max_timestamp),
        }
    }

    fn read(&mut self) -> Result<Record, RecordFault> {
        let raw = read_raw(&self.records, self.position)?;
        let (offset_delta, timestamp) = self.sequencer.place(&raw)?;
        let mut headers = Vec::new();
        let mut position = raw.headers_start;
        for _ in 0..raw.header_count {
            let (key, value) = read_header(&self.records, &mut position)?;
            headers.push(RecordHeader {
                key: self.records.slice(key),
                value: value.map(|range| self.records.slice(range)),
            });
        }
        self.position = raw.end;
        Ok(Record {
            key: raw.key.map(|range| self.records.slice(range)),
            value: raw.value.map(|range| self.records.slice(range)),
            headers,
            timestamp: self.append_time.unwrap_or(Timestamp::from_millis(timestamp)),
            offset_delta,
        })
    }

    fn fail(&mut self, index: u32, fault: RecordFault) -> BatchError {
        self.position = self.records.len();
        self.index = self.count;
        BatchError::Record { index, fault }
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            let finished = self.position == self.records.len();
            return (!finished).then(|| Err(self.fail(self.count, RecordFault::TrailingBytes)));
        }
        let index = self.index;
        Some(match self.read() {
            Ok(record) => {
                self.index += 1;
                Ok(record)
            }
            Err(fault) => Err(self.fail(index, fault)),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count is the batch's word: what is left of the bytes bounds it, and one error may follow.
        let left = (self.count - self.index) as usize;
        let possible = (self.records.len() - self.position) / RECORD_BYTES_MIN;
        (0, Some(left.min(possible) + 1))
    }
}

impl std::iter::FusedIterator for RecordIter {}
