//! A snapshot: magic, version, length, checksum, then the state.

use std::io::Write;

use crc_fast::CrcAlgorithm;

use super::{CodecError, from_postcard};
use crate::{State, invariants};

const MAGIC: [u8; 8] = *b"SHMETA\r\n";
const VERSION: u8 = 1;
/// Magic 8, version 1, zero 3, body length 8, CRC-32C of the body 4; numbers little-endian.
const HEADER_BYTES: usize = 24;

fn body(state: &State) -> Vec<u8> {
    postcard::to_stdvec(state).expect("the state is plain data")
}

fn checksum(body: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body)).expect("a CRC-32 has 32 bits")
}

/// A digest of the whole state.
pub(crate) fn digest(state: &State) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &body(state))
}

/// Writes the whole state: magic, version, length, checksum, body. Holds the body in memory once.
///
/// # Errors
/// Those of `to`.
pub fn encode_snapshot(state: &State, to: &mut impl Write) -> std::io::Result<()> {
    let body = body(state);
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8] = VERSION;
    header[12..20].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[20..].copy_from_slice(&checksum(&body).to_le_bytes());
    to.write_all(&header)?;
    to.write_all(&body)
}

/// Reads a state back. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no whole snapshot of a known version, or its state breaks an invariant.
pub fn decode_snapshot(bytes: &[u8]) -> Result<State, CodecError> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(CodecError::Truncated)?;
    let mut length = [0; 8];
    length.copy_from_slice(&header[12..20]);
    if header[..8] != MAGIC {
        return Err(CodecError::Magic);
    }
    if header[8] != VERSION || header[9..12] != [0; 3] {
        return Err(CodecError::Version { version: header[8] });
    }
    if body.len() as u64 != u64::from_le_bytes(length) {
        return Err(CodecError::Truncated);
    }
    if checksum(body).to_le_bytes() != header[20..] {
        return Err(CodecError::Checksum);
    }
    let mut state: State = from_postcard(body, "metadata state")?;
    state.derive();
    invariants::check(&state).map_err(CodecError::Inconsistent)?;
    Ok(state)
}
