//! Commands, outcomes and snapshots as bytes. `docs/formats/command.md` and `docs/formats/snapshot.md` describe them.
//!
//! Whatever the bytes, decoding never panics and never allocates by an announced length.

mod command;
mod commit;
mod outcome;
mod snapshot;
mod varint;

pub use command::{decode_command, encode_command};
pub use outcome::{decode_outcome, encode_outcome};
pub(crate) use snapshot::digest;
pub use snapshot::{decode_snapshot, encode_snapshot};

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
    /// They do not decode, or go on behind the end.
    #[error("the bytes hold no {expected}")]
    Malformed {
        /// What they should hold.
        expected: &'static str,
    },
    /// They belong to a feature level of a later release: what that means is not known here.
    #[error(
        "they are of feature level {level}, this release knows up to {}: start the release that raised it",
        crate::FeatureLevel::NEWEST
    )]
    Level {
        /// The level found.
        level: crate::FeatureLevel,
    },
    /// They decode to a state that breaks an invariant.
    #[error("the snapshot breaks an invariant")]
    Inconsistent(#[source] crate::invariants::Violation),
}

/// Whether this release knows the feature level of a state. One that it does not know changes what later commands mean.
///
/// # Errors
/// [`CodecError::Level`].
pub fn check_level(state: &crate::State) -> Result<(), CodecError> {
    let level = state.feature_level();
    if level > crate::FeatureLevel::NEWEST { Err(CodecError::Level { level }) } else { Ok(()) }
}

/// Decodes a value that fills `bytes`.
fn from_postcard<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    expected: &'static str,
) -> Result<T, CodecError> {
    match take_from_postcard(bytes, expected)? {
        (value, []) => Ok(value),
        _ => Err(CodecError::Malformed { expected }),
    }
}

/// Decodes a value from the front of `bytes`, and gives back what lies behind it.
fn take_from_postcard<'a, T: serde::Deserialize<'a>>(
    bytes: &'a [u8],
    expected: &'static str,
) -> Result<(T, &'a [u8]), CodecError> {
    postcard::take_from_bytes(bytes).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => CodecError::Truncated,
        _ => CodecError::Malformed { expected },
    })
}

#[cfg(test)]
mod tests;
