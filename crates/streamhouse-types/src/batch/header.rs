//! The 61 bytes in front of the records.

use super::{BatchError, Compression};
use crate::{ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Where each field of the header starts.
pub(super) mod at {
    pub(crate) const BASE_OFFSET: usize = 0;
    pub(crate) const LENGTH: usize = 8;
    pub(crate) const LEADER_EPOCH: usize = 12;
    pub(crate) const MAGIC: usize = 16;
    pub(crate) const CRC: usize = 17;
    pub(crate) const ATTRIBUTES: usize = 21;
    pub(crate) const LAST_OFFSET_DELTA: usize = 23;
    pub(crate) const BASE_TIMESTAMP: usize = 27;
    pub(crate) const MAX_TIMESTAMP: usize = 35;
    pub(crate) const PRODUCER_ID: usize = 43;
    pub(crate) const PRODUCER_EPOCH: usize = 51;
    pub(crate) const BASE_SEQUENCE: usize = 53;
    pub(crate) const RECORD_COUNT: usize = 57;
    pub(crate) const RECORDS: usize = 61;
}

/// Length of a batch header in bytes: where the records start.
pub const HEADER_BYTES: usize = at::RECORDS;

/// Length of what the batch's own length field does not count: the base offset and that field.
pub(super) const PREFIX_BYTES: u32 = 12;

/// [`HEADER_BYTES`] as lengths are stored.
const LENGTH_BYTES_MIN: u32 = 61;

/// The version of the format.
pub(super) const MAGIC: u8 = 2;

/// The attribute bits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(u16);

impl Attributes {
    pub(super) const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;
    const UNUSED: u16 = !0x7f;

    pub(super) const fn new(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits as they are stored.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] for a code that was never given out.
    pub const fn compression(self) -> Result<Compression, BatchError> {
        let code = (self.0 & 0b111) as u8;
        match Compression::from_code(code) {
            Some(compression) => Ok(compression),
            None => Err(BatchError::UnknownCompression { code }),
        }
    }

    /// Every record has the batch's max timestamp, which the log gave it.
    #[must_use]
    pub const fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// Part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// A marker of the log, not data.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// The base timestamp holds a delete horizon instead (compacted batches).
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// Bits that no version of the format has given a meaning.
    pub(super) const fn has_unused_bits(self) -> bool {
        self.0 & Self::UNUSED != 0
    }
}

/// Who sent an idempotent batch, and where it stands in what they sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence of the batch's first record.
    pub first_sequence: Sequence,
}

/// The header of a batch, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. Producers send 0; the log patches it, so the CRC does not cover it.
    pub base_offset: i64,
    /// Length of the whole batch in bytes, with its 12-byte prefix; at least [`HEADER_BYTES`].
    pub length_bytes: u32,
    /// Leader epoch. Producers send −1; the log patches it, so the CRC does not cover it.
    pub leader_epoch: i32,
    /// Compression and kind.
    pub attributes: Attributes,
    /// Offset of the last record, counted from the first; at most `i32::MAX`.
    pub last_offset_delta: u32,
    /// Timestamp of the first record; the others are stored relative to it.
    pub base_timestamp: Timestamp,
    /// Greatest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// Set for an idempotent batch.
    pub producer: Option<BatchProducer>,
    /// How many records.
    pub record_count: u32,
    /// CRC-32C of everything from the attributes to the end.
    pub crc: u32,
}

impl BatchHeader {
    /// How many offsets the batch takes: its record count, except in compacted batches.
    #[must_use]
    pub const fn offset_count(&self) -> u32 {
        self.last_offset_delta + 1
    }
}

/// Reads a header and checks that its fields are possible. It looks neither at the CRC nor at the records, and does
/// not ask that the whole batch is at hand: it is for walking batches that were checked when they came in.
///
/// # Errors
/// [`BatchError`] when there are fewer than [`HEADER_BYTES`] bytes, on another magic, and on values that no batch has.
pub fn read_header(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(BatchError::Length { announced: HEADER_BYTES, actual: bytes.len() });
    };
    let length = i32::from_be_bytes(field(header, at::LENGTH));
    if header[at::MAGIC] != MAGIC {
        return Err(BatchError::Magic { magic: header[at::MAGIC].cast_signed() });
    }
    let length_bytes = u32::try_from(length)
        .ok()
        .map(|length| length + PREFIX_BYTES)
        .filter(|whole| *whole >= LENGTH_BYTES_MIN)
        .ok_or(BatchError::Field { field: "length", value: i64::from(length) })?;
    let delta = i32::from_be_bytes(field(header, at::LAST_OFFSET_DELTA));
    let count = i32::from_be_bytes(field(header, at::RECORD_COUNT));
    Ok(BatchHeader {
        base_offset: i64::from_be_bytes(field(header, at::BASE_OFFSET)),
        length_bytes,
        leader_epoch: i32::from_be_bytes(field(header, at::LEADER_EPOCH)),
        attributes: Attributes::new(u16::from_be_bytes(field(header, at::ATTRIBUTES))),
        last_offset_delta: not_negative(delta, "last offset delta")?,
        base_timestamp: Timestamp::from_millis(i64::from_be_bytes(field(header, at::BASE_TIMESTAMP))),
        max_timestamp: Timestamp::from_millis(i64::from_be_bytes(field(header, at::MAX_TIMESTAMP))),
        producer: read_producer(header)?,
        record_count: not_negative(count, "record count")?,
        crc: u32::from_be_bytes(field(header, at::CRC)),
    })
}

/// With id −1 there is no producer, and clients differ in what they leave in the other two fields.
fn read_producer(header: &[u8; HEADER_BYTES]) -> Result<Option<BatchProducer>, BatchError> {
    let id = i64::from_be_bytes(field(header, at::PRODUCER_ID));
    if id == -1 {
        return Ok(None);
    }
    let epoch = i16::from_be_bytes(field(header, at::PRODUCER_EPOCH));
    let sequence = i32::from_be_bytes(field(header, at::BASE_SEQUENCE));
    let bad = |field, value| BatchError::Field { field, value };
    let id = u64::try_from(id).map_err(|_| bad("producer id", id))?;
    let epoch = u16::try_from(epoch).map_err(|_| bad("producer epoch", epoch.into()))?;
    let sequence = u32::try_from(sequence).map_err(|_| bad("base sequence", sequence.into()))?;
    Ok(Some(BatchProducer {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(epoch),
        first_sequence: Sequence::new(sequence),
    }))
}

fn not_negative(value: i32, field: &'static str) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| BatchError::Field { field, value: i64::from(value) })
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], start: usize) -> [u8; N] {
    header[start..start + N].try_into().expect("every field lies inside the header")
}
