//! What a batch must be to be taken.

use super::header::{HEADER_BYTES, at};
use super::patch::checksum;
use super::record::{RECORD_BYTES_MIN, Walked, walk};
use super::{BatchError, BatchHeader, Compression, decompress, read_header};
use crate::Timestamp;

/// Limits on one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most bytes, header included (`max.message.bytes` of the topic).
    pub max_batch_bytes: u32,
    /// Most records.
    pub max_records: u32,
}

impl BatchLimits {
    /// No batch is over these: for reading what was checked when it was written.
    pub const MAX: Self = Self { max_batch_bytes: u32::MAX, max_records: u32::MAX };

    /// The usual limit of records with a topic's limit of bytes.
    #[must_use]
    pub const fn of_topic(max_batch_bytes: u32) -> Self {
        Self { max_batch_bytes, max_records: 100_000 }
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self::of_topic(1_048_588)
    }
}

/// Checks what every batch must satisfy, wherever it comes from: its header, its length, its limits and its CRC.
/// `bytes` may go on after the batch.
pub(super) fn check_sealed(bytes: &[u8], limits: &BatchLimits) -> Result<BatchHeader, BatchError> {
    let header = read_header(bytes)?;
    let length = header.length_bytes as usize;
    if header.length_bytes > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { actual: length, limit: limits.max_batch_bytes });
    }
    if bytes.len() < length {
        return Err(BatchError::Length { announced: length, actual: bytes.len() });
    }
    let computed = checksum(&bytes[..length]);
    if computed != header.crc {
        return Err(BatchError::Crc { stored: header.crc, computed });
    }
    if header.record_count > limits.max_records {
        return Err(BatchError::TooManyRecords { actual: header.record_count, limit: limits.max_records });
    }
    let attributes = header.attributes;
    attributes.compression()?;
    if attributes.is_control() {
        return Err(BatchError::Unsupported { feature: "control batches" });
    }
    if attributes.is_transactional() {
        return Err(BatchError::Unsupported { feature: "transactional batches" });
    }
    Ok(header)
}

/// Checks what only a producer must satisfy: it sends no gaps, and leaves alone what is the log's to write.
pub(super) fn check_produced(header: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader { record_count: count, last_offset_delta, attributes, .. } = *header;
    if count == 0 {
        return Err(BatchError::Field { field: "record count", value: 0 });
    }
    if count - 1 != last_offset_delta {
        return Err(BatchError::RecordCount { count, last_offset_delta });
    }
    if attributes.is_log_append_time() {
        return Err(BatchError::Unsupported { feature: "append times that a producer sets" });
    }
    if attributes.has_delete_horizon() {
        return Err(BatchError::Unsupported { feature: "delete horizons that a producer sets" });
    }
    if attributes.has_unused_bits() {
        return Err(BatchError::Field { field: "attributes", value: i64::from(attributes.bits()) });
    }
    for (field, time) in [("base timestamp", header.base_timestamp), ("max timestamp", header.max_timestamp)]
    {
        if time < Timestamp::NONE {
            return Err(BatchError::Field { field, value: time.as_millis() });
        }
    }
    Ok(())
}

/// What is known of the records of a sound produced batch without opening them: compressed ones have at least the
/// timestamp of the first.
pub(super) fn check_records(batch: &[u8], header: &BatchHeader) -> Result<Walked, BatchError> {
    if header.attributes.compression()? != Compression::None {
        return Ok(Walked {
            max_timestamp: header.max_timestamp.max(header.base_timestamp),
            keyless: Vec::new(),
        });
    }
    let records = &batch[at::RECORDS..];
    if header.record_count as usize > records.len() / RECORD_BYTES_MIN {
        let fault = super::RecordFault::CutShort;
        return Err(BatchError::Record { index: header.record_count - 1, fault });
    }
    walk(records, header)
}

/// Opens compressed records and walks over them, as it is done for uncompressed ones when a batch comes in; `None` for
/// those.
pub(super) fn check_compressed(
    batch: &[u8],
    header: &BatchHeader,
    most: usize,
) -> Result<Option<Walked>, BatchError> {
    let compression = header.attributes.compression()?;
    if compression == Compression::None {
        return Ok(None);
    }
    let records = decompress::decompress(compression, &batch[HEADER_BYTES..], most)?;
    walk(&records, header).map(Some)
}
