//! Opens compressed records under a cap, without believing any length that they announce.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::compress::XERIAL_HEADER;
use super::{BatchError, Compression};

/// Most bytes that any block of records decompresses to.
const CAP_BYTES: usize = 64 * 1024 * 1024;
/// How much larger than its input the output may be, beyond [`ALLOWANCE_BYTES`].
const RATIO_MAX: usize = 100;
const ALLOWANCE_BYTES: usize = 1024 * 1024;

/// Largest zstd window, as a power of two: 8 MiB. Larger ones are refused before their buffer is made.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Snappy's densest element makes 64 bytes out of 3.
const SNAPPY_RATIO_MAX: usize = 22;

const LZ4_FRAME_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// Most bytes that `input` compressed bytes may decompress to.
pub(super) fn cap_bytes(input: usize) -> usize {
    input.saturating_mul(RATIO_MAX).saturating_add(ALLOWANCE_BYTES).min(CAP_BYTES)
}

/// The records inside `input`, which is compressed by anything but [`Compression::None`].
pub(super) fn decompress(compression: Compression, input: &[u8]) -> Result<Bytes, BatchError> {
    let limit = cap_bytes(input.len());
    let opened = match compression {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => read_capped(flate2::bufread::MultiGzDecoder::new(input), input.len(), limit),
        Compression::Snappy => snappy(input, limit),
        Compression::Lz4 => lz4(input, limit),
        Compression::Zstd => zstd(input, limit),
    };
    let records = opened.map_err(|cause| BatchError::Compressed { compression, cause: Arc::new(cause) })?;
    if records.len() > limit {
        return Err(BatchError::Bomb { compression, limit });
    }
    Ok(Bytes::from(records))
}

/// Reads to the end, but at most one byte beyond the limit. The buffer grows with what comes out.
fn read_capped(reader: impl Read, input: usize, limit: usize) -> io::Result<Vec<u8>> {
    let mut records = Vec::with_capacity(input.saturating_mul(2).min(limit));
    reader.take(limit as u64 + 1).read_to_end(&mut records)?;
    Ok(records)
}

fn lz4(input: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    // The codec would also take the legacy frame, which no Kafka client writes.
    if !input.starts_with(&LZ4_FRAME_MAGIC) {
        return Err(invalid("no lz4 frame"));
    }
    read_capped(lz4_flex::frame::FrameDecoder::new(input), input.len(), limit)
}

fn zstd(input: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut decoder = ::zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    read_capped(decoder, input.len(), limit)
}

/// Either the framing of the Java library, block after block, or one bare block.
fn snappy(input: &[u8], limit: usize) -> io::Result<Vec<u8>> {
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
        if records.len() > limit {
            return Ok(records);
        }
        rest = &after[length..];
    }
    if rest.is_empty() { Ok(records) } else { Err(invalid("bytes follow the last snappy block")) }
}

fn snappy_block(block: &[u8], limit: usize, records: &mut Vec<u8>) -> io::Result<()> {
    let announced = snap::raw::decompress_len(block)?;
    if announced > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(invalid("a snappy block announces more than it can hold"));
    }
    let start = records.len();
    if start + announced > limit {
        // What would be too much is not even opened.
        records.resize(limit + 1, 0);
        return Ok(());
    }
    records.resize(start + announced, 0);
    snap::raw::Decoder::new().decompress(block, &mut records[start..])?;
    Ok(())
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
