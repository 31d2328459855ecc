//! Opens compressed records under a cap, without believing any length that they announce.

use std::io::{self, Read};
use std::sync::Arc;

use ::zstd::zstd_safe;
use bytes::Bytes;

use super::compress::XERIAL_HEADER;
use super::{BatchError, Compression};

/// Most bytes that any block of records decompresses to.
pub(super) const CAP_BYTES: usize = 64 * 1024 * 1024;
/// How much larger than its input the output is but rarely, beyond [`ALLOWANCE_BYTES`].
const RATIO: usize = 100;
const ALLOWANCE_BYTES: usize = 1024 * 1024;

/// Largest zstd window, 128 MiB: what the Java client's highest level announces, and what decoders take unless they are told
/// to take more.
const ZSTD_WINDOW_MAX: u64 = 1 << 27;
const ZSTD_FRAME_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Frames whose content nobody reads (RFC 8878, section 3.1.2).
const ZSTD_SKIPPED: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
/// Room for what zstd data decompress to is made for so many times their length at first, and then so many times as much.
const ZSTD_GROWTH: usize = 8;
const ZSTD_ROOM_MIN: usize = 64 * 1024;
/// What zstd says when what it decompresses does not fit (`ZSTD_error_dstSize_tooSmall`); the numbers of its errors are not
/// stable.
const ZSTD_NO_ROOM: &str = "Destination buffer is too small";

/// Snappy's densest element makes 64 bytes out of 3.
const SNAPPY_RATIO_MAX: usize = 22;

const LZ4_FRAME_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// What `input` compressed bytes hardly ever decompress to more than.
pub(super) fn likely_bytes(input: usize) -> usize {
    input.saturating_mul(RATIO).saturating_add(ALLOWANCE_BYTES).min(CAP_BYTES)
}

/// Why compressed records cannot be opened.
#[derive(Debug)]
enum Fault {
    /// They are broken.
    Broken(io::Error),
    /// They become more than is allowed.
    TooMuch,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<snap::Error> for Fault {
    fn from(error: snap::Error) -> Self {
        Self::Broken(error.into())
    }
}

/// The records inside `input`, which is compressed by anything but [`Compression::None`]; at most `limit` bytes.
pub(super) fn decompress(compression: Compression, input: &[u8], limit: usize) -> Result<Bytes, BatchError> {
    let opened = match compression {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => read_capped(flate2::bufread::MultiGzDecoder::new(input), input.len(), limit),
        Compression::Snappy => snappy(input, limit),
        Compression::Lz4 => lz4(input, limit),
        Compression::Zstd => zstd(input, limit),
    };
    opened.map(Bytes::from).map_err(|fault| match fault {
        Fault::Broken(cause) => BatchError::Compressed { compression, cause: Arc::new(cause) },
        Fault::TooMuch => BatchError::Bomb { compression, limit },
    })
}

/// Reads to the end, but at most one byte beyond the limit. The buffer grows with what comes out.
fn read_capped(reader: impl Read, input: usize, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut records = Vec::with_capacity(input.saturating_mul(2).min(limit));
    reader.take(limit as u64 + 1).read_to_end(&mut records)?;
    if records.len() > limit { Err(Fault::TooMuch) } else { Ok(records) }
}

fn lz4(input: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    // The codec would also take the legacy frame, which no Kafka client writes.
    if !input.starts_with(&LZ4_FRAME_MAGIC) {
        return Err(invalid("no lz4 frame"));
    }
    read_capped(lz4_flex::frame::FrameDecoder::new(input), input.len(), limit)
}

/// Whether each frame is one that consumers read: not of the formats before the first release, which the library would take, and
/// without a window that needs to be allowed.
fn judge_zstd_frames(mut input: &[u8]) -> Result<(), Fault> {
    while let Some((magic, header)) = input.split_first_chunk::<4>() {
        if !ZSTD_SKIPPED.contains(&u32::from_le_bytes(*magic)) {
            let [descriptor, window, ..] = header else { return Err(invalid("a zstd frame is cut short")) };
            // A frame of a single segment has no window: it is as large as what comes out.
            let windowed = *magic == ZSTD_FRAME_MAGIC && descriptor & 0x20 == 0;
            if *magic != ZSTD_FRAME_MAGIC || windowed && zstd_window(*window) > ZSTD_WINDOW_MAX {
                return Err(invalid("no zstd frame, or one with a window over 128 MiB"));
            }
        }
        let length = zstd_safe::find_frame_compressed_size(input).map_err(zstd_safe::get_error_name);
        input = input.get(length.map_err(invalid)?..).unwrap_or_default();
    }
    if input.is_empty() { Ok(()) } else { Err(invalid("bytes follow the last zstd frame")) }
}

/// The size of a window by its descriptor (RFC 8878, section 3.1.1.1.2).
fn zstd_window(descriptor: u8) -> u64 {
    let base = 1_u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

/// In one go, so that no window is kept beside what comes out: clients announce up to 128 MiB, however little they send.
fn zstd(input: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    judge_zstd_frames(input)?;
    let mut decoder = zstd_safe::DCtx::create();
    let mut room = input.len().saturating_mul(ZSTD_GROWTH).max(ZSTD_ROOM_MIN).min(limit);
    loop {
        let mut records = Vec::with_capacity(room);
        match decoder.decompress(&mut records, input).map_err(zstd_safe::get_error_name) {
            // It may have had more room than it was given.
            Ok(length) if length > limit => return Err(Fault::TooMuch),
            Ok(_) => return Ok(records),
            Err(ZSTD_NO_ROOM) if room >= limit => return Err(Fault::TooMuch),
            Err(ZSTD_NO_ROOM) => room = room.saturating_mul(ZSTD_GROWTH).min(limit),
            Err(error) => return Err(invalid(error)),
        }
    }
}

/// Either the framing of the Java library, block after block, or one bare block.
fn snappy(input: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    let mut records = Vec::new();
    // The framing's versions are not looked at: all that ever were written are read alike.
    if !input.starts_with(&XERIAL_HEADER[..8]) {
        snappy_block(input, limit, &mut records)?;
        return Ok(records);
    }
    let mut rest =
        input.get(XERIAL_HEADER.len()..).ok_or_else(|| invalid("the snappy framing is cut short"))?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let block = after.get(..length).ok_or_else(|| invalid("a snappy block is cut short"))?;
        snappy_block(block, limit, &mut records)?;
        rest = &after[length..];
    }
    if rest.is_empty() { Ok(records) } else { Err(invalid("bytes follow the last snappy block")) }
}

fn snappy_block(block: &[u8], limit: usize, records: &mut Vec<u8>) -> Result<(), Fault> {
    let announced = snap::raw::decompress_len(block)?;
    if announced > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(invalid("a snappy block announces more than it can hold"));
    }
    let start = records.len();
    if start + announced > limit {
        // What would be too much is not even opened.
        return Err(Fault::TooMuch);
    }
    records.resize(start + announced, 0);
    snap::raw::Decoder::new().decompress(block, &mut records[start..])?;
    Ok(())
}

fn invalid(text: &'static str) -> Fault {
    Fault::Broken(io::Error::new(io::ErrorKind::InvalidData, text))
}
