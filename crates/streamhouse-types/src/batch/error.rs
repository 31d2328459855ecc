//! Why bytes are not a batch that can be taken.

use std::sync::Arc;

use super::Compression;
use crate::error_code::ErrorCode;

/// Why a record batch was refused. Nothing was kept of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BatchError {
    /// The bytes at hand are fewer or more than the batch announces.
    #[error("the batch announces {announced} bytes, there are {actual}")]
    Length {
        /// The length that the batch gives itself, with its 12-byte prefix; what a header needs when it is cut short.
        announced: usize,
        /// The bytes at hand.
        actual: usize,
    },
    /// Not the version of the format that is spoken here.
    #[error("the batch has magic {magic}, only 2 is supported")]
    Magic {
        /// The version found.
        magic: i8,
    },
    /// The bytes were changed since the producer sealed them.
    #[error("the batch was sealed with crc {stored:#010x}, its bytes have {computed:#010x}")]
    Crc {
        /// What stands in the header.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Over the limit of bytes.
    #[error("the batch of {actual} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        actual: usize,
        /// The limit in bytes.
        limit: u32,
    },
    /// Over the limit of records.
    #[error("the batch of {actual} records is over the limit of {limit}")]
    TooManyRecords {
        /// Its records.
        actual: u32,
        /// The limit.
        limit: u32,
    },
    /// A header field has a value that no producer may write.
    #[error("the {field} of the batch cannot be {value}")]
    Field {
        /// The field in words, such as "record count".
        field: &'static str,
        /// What was found.
        value: i64,
    },
    /// The records do not fill the offsets that the batch claims.
    #[error("the batch has {count} records and a last offset delta of {last_offset_delta}")]
    RecordCount {
        /// The record count.
        count: u32,
        /// The last offset delta; one less than the count in what a producer sends.
        last_offset_delta: u32,
    },
    /// Sound, but of a kind that is not taken here.
    #[error("{feature} are not supported")]
    Unsupported {
        /// The kind in words, such as "transactional batches".
        feature: &'static str,
    },
    /// The attributes name a compression that does not exist.
    #[error("there is no compression with code {code}")]
    UnknownCompression {
        /// The code found, 5 to 7.
        code: u8,
    },
    /// A record inside is not one.
    #[error("record {index} of the batch cannot be read")]
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        #[source]
        fault: RecordFault,
    },
    /// The compressed records cannot be opened.
    #[error("the {compression} data of the batch cannot be decompressed")]
    Compressed {
        /// The compression that the attributes name.
        compression: Compression,
        /// What the codec says.
        #[source]
        cause: Arc<std::io::Error>,
    },
    /// The compressed records grow beyond what is allowed: a decompression bomb.
    #[error("the {compression} data of the batch decompresses to more than {limit} bytes")]
    Bomb {
        /// The compression that the attributes name.
        compression: Compression,
        /// The cap in bytes.
        limit: usize,
    },
}

impl BatchError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Crc { .. } => ErrorCode::CorruptBatch,
            Self::TooLarge { .. } | Self::TooManyRecords { .. } | Self::Bomb { .. } => {
                ErrorCode::BatchTooLarge
            }
            Self::Magic { .. } | Self::Unsupported { .. } => ErrorCode::UnsupportedFormat,
            Self::UnknownCompression { .. } => ErrorCode::UnsupportedCompression,
            Self::Record { fault: RecordFault::Timestamp, .. } => ErrorCode::InvalidTimestamp,
            Self::Length { .. }
            | Self::Field { .. }
            | Self::RecordCount { .. }
            | Self::Record { .. }
            | Self::Compressed { .. } => ErrorCode::InvalidBatch,
        }
    }
}

/// What is wrong with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The bytes end inside the record, or it is longer than what is left.
    #[error("its bytes are cut short")]
    CutShort,
    /// A variable-length number has too many bytes or too great a value.
    #[error("a number in it is malformed")]
    Number,
    /// A length is negative where it may not be, or reaches past the record.
    #[error("a length in it is impossible")]
    Length,
    /// The fields end before or after the record's own length.
    #[error("its fields do not fill its length")]
    Leftover,
    /// The offset deltas do not go up, or pass the batch's last.
    #[error("its offset delta is out of order")]
    OffsetDelta,
    /// Its timestamp lies outside the range.
    #[error("its timestamp is impossible")]
    Timestamp,
    /// Over 1,000 headers.
    #[error("it has more than 1,000 headers")]
    TooManyHeaders,
    /// Bytes follow the last record.
    #[error("bytes follow the last record")]
    TrailingBytes,
}
