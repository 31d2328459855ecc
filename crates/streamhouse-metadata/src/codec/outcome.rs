//! An outcome: version, payload.

use bytes::Bytes;

use super::{CodecError, from_postcard};
use crate::Outcome;

const VERSION: u8 = 1;

/// Encodes an outcome, for an answer that crosses nodes.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    postcard::to_extend(outcome, vec![VERSION]).expect("an outcome is plain data").into()
}

/// Decodes an outcome. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no outcome of a known version.
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, CodecError> {
    let (version, payload) = bytes.split_first().ok_or(CodecError::Truncated)?;
    if *version != VERSION {
        return Err(CodecError::Version { version: *version });
    }
    from_postcard(payload, "outcome")
}
