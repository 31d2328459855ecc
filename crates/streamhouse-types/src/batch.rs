//! The record batch, version 2 of Kafka's format: the unit from producer to object store to consumer.
//!
//! A batch is checked once, when it comes in, and then carried as it is. Only the base offset and the leader epoch
//! are written later; they lie outside its CRC.

mod builder;
mod compress;
mod decompress;
mod error;
mod header;
mod patch;
mod record;
mod validate;
mod varint;

use bytes::Bytes;

pub use builder::BatchBuilder;
pub use compress::{Compression, ParseCompressionError};
pub use error::{BatchError, RecordFault};
pub use header::{Attributes, BatchHeader, BatchProducer, HEADER_BYTES, read_header};
pub use patch::{patch_base, patch_log_append_time, stamp_producer};
use record::Walked;
pub use record::{HEADERS_MAX, Record, RecordHeader, RecordIter, RecordRef};
pub use validate::BatchLimits;

/// Most bytes that compressed records may take once they are opened.
pub const OPENED_BYTES_MAX: usize = decompress::CAP_BYTES;

/// A batch that was checked. Cloning it copies no bytes.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    bytes: Bytes,
    header: BatchHeader,
    /// The first records without a key, as far as the records were walked over.
    keyless: Vec<u32>,
}

impl RecordBatch {
    /// Takes exactly one batch from a producer: magic, length, limits, CRC-32C, counts, producer fields, timestamps.
    /// Uncompressed records are walked over without copying them; compressed ones stay closed (see
    /// [`Self::check_compressed`]). Base offset and leader epoch may be anything, as the log writes them.
    ///
    /// Some clients leave a max timestamp that their records do not have. Kafka's brokers mend that silently, and so
    /// does this, in a copy of the bytes: time lookups go by that field.
    ///
    /// # Errors
    /// [`BatchError`] says what is wrong; nothing was kept.
    pub fn parse(bytes: Bytes, limits: &BatchLimits) -> Result<Self, BatchError> {
        if bytes.len() > limits.max_batch_bytes as usize {
            return Err(BatchError::TooLarge { actual: bytes.len(), limit: limits.max_batch_bytes });
        }
        let mut header = validate::check_sealed(&bytes, limits)?;
        let announced = header.length_bytes as usize;
        if bytes.len() != announced {
            return Err(BatchError::Length { announced, actual: bytes.len() });
        }
        validate::check_produced(&header)?;
        let Walked { max_timestamp, keyless } = validate::check_records(&bytes, &header)?;
        let bytes = if max_timestamp == header.max_timestamp {
            bytes
        } else {
            let mended = patch::with_max_timestamp(&bytes, max_timestamp);
            header = read_header(&mended)?;
            mended
        };
        Ok(Self { bytes, header, keyless })
    }

    /// Takes the next batch off a run of batches that was read from the log; `None` when nothing is left. Header,
    /// length and CRC are checked; the records are judged while they are read.
    ///
    /// # Errors
    /// [`BatchError`] when what comes next is no sound batch, or is cut short; `bytes` stays as it was.
    pub fn split_first(bytes: &mut Bytes, limits: &BatchLimits) -> Result<Option<Self>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = validate::check_sealed(bytes, limits)?;
        if header.record_count > header.offset_count() {
            let BatchHeader { record_count: count, last_offset_delta, .. } = header;
            return Err(BatchError::RecordCount { count, last_offset_delta });
        }
        let batch = bytes.split_to(header.length_bytes as usize);
        Ok(Some(Self { bytes: batch, header, keyless: Vec::new() }))
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> BatchHeader {
        self.header
    }

    /// The whole batch, as it is sent and stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, as it is sent and stored.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Its records. Uncompressed ones are slices of the batch; compressed ones are opened first, to at most
    /// [`OPENED_BYTES_MAX`].
    ///
    /// # Errors
    /// [`BatchError::Compressed`] and [`BatchError::Bomb`] when they cannot be opened. The iterator itself gives an
    /// error when a record is malformed, and ends there.
    pub fn records(&self) -> Result<RecordIter, BatchError> {
        let records = match self.header.attributes.compression()? {
            Compression::None => self.bytes.slice(HEADER_BYTES..),
            compression => {
                decompress::decompress(compression, &self.bytes[HEADER_BYTES..], OPENED_BYTES_MAX)?
            }
        };
        Ok(RecordIter::new(records, &self.header))
    }

    /// What the records hardly ever take more than once they are opened: 100 times the bytes of the batch and 1 MiB, at most
    /// [`OPENED_BYTES_MAX`].
    #[must_use]
    pub fn opened_bytes_likely(&self) -> usize {
        decompress::likely_bytes(self.bytes.len())
    }

    /// Opens compressed records and walks over them as [`Self::parse`] does with uncompressed ones; there is nothing
    /// to do for those. Takes up to `most` bytes of memory while it runs.
    ///
    /// # Errors
    /// [`BatchError`] says what is wrong with them; [`BatchError::Bomb`] when they take more than `most` bytes.
    pub fn check_compressed(&mut self, most: usize) -> Result<(), BatchError> {
        if let Some(walked) = validate::check_compressed(&self.bytes, &self.header, most)? {
            self.keyless = walked.keyless;
        }
        Ok(())
    }

    /// The records without a key, the first 256 of them, counted from 0. None while compressed records were not opened
    /// by [`Self::check_compressed`], and for what was read from the log.
    #[must_use]
    pub fn without_key(&self) -> &[u32] {
        &self.keyless
    }
}

#[cfg(test)]
mod tests;
