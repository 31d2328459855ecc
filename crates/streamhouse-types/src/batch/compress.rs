//! The compressions of Kafka, in the frames that Kafka's clients read and write.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

/// How the records of a batch are compressed, as one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, level 6.
    Gzip,
    /// Snappy in the framing of the Java library, which all Kafka clients read.
    Snappy,
    /// LZ4 frame of independent blocks.
    Lz4,
    /// Zstandard, level 1.
    Zstd,
}

/// A text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no compression: it is one of none, gzip, snappy, lz4, zstd")]
pub struct ParseCompressionError {
    /// What was read.
    pub text: String,
}

impl Compression {
    /// All compressions, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number that stands in the attributes of a batch.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The compression of a number in the attributes.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Kafka's name (`compression.type`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|compression| compression.as_str() == text);
        found.ok_or_else(|| ParseCompressionError { text: text.chars().take(128).collect() })
    }
}

/// What the Java library for Snappy writes first: its magic, its version 1, the oldest version that reads it, 1.
pub(super) const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// Bytes of records in one block of that framing, as the Java library's default.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

const GZIP_LEVEL: u32 = 6;

/// The level with the best ratio of those that keep up with a disk.
const ZSTD_LEVEL: i32 = 1;

/// Appends the compressed `records` to `out`.
pub(super) fn compress(compression: Compression, records: &[u8], out: &mut Vec<u8>) {
    match compression {
        Compression::None => out.extend_from_slice(records),
        Compression::Gzip => gzip(records, out),
        Compression::Snappy => snappy(records, out),
        Compression::Lz4 => lz4(records, out),
        Compression::Zstd => zstd(records, out),
    }
}

const IN_MEMORY: &str = "writing to memory does not fail";

fn gzip(records: &[u8], out: &mut Vec<u8>) {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
    encoder.write_all(records).expect(IN_MEMORY);
    encoder.finish().expect(IN_MEMORY);
}

fn snappy(records: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let start = out.len();
        let body = start + size_of::<u32>();
        out.resize(body + snap::raw::max_compress_len(block.len()), 0);
        let length =
            encoder.compress(block, &mut out[body..]).expect("the buffer has the codec's own maximum");
        out.truncate(body + length);
        let announced = u32::try_from(length).expect("a block of 32 KiB compresses to less than 4 GiB");
        out[start..body].copy_from_slice(&announced.to_be_bytes());
    }
}

/// Kafka's Java client refuses blocks that refer to earlier ones.
fn lz4(records: &[u8], out: &mut Vec<u8>) {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(records).expect(IN_MEMORY);
    encoder.finish().expect(IN_MEMORY);
}

fn zstd(records: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + ::zstd::zstd_safe::compress_bound(records.len()), 0);
    let length = ::zstd::bulk::compress_to_buffer(records, &mut out[start..], ZSTD_LEVEL)
        .expect("the buffer has the codec's own maximum");
    out.truncate(start + length);
}
