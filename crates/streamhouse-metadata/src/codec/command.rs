//! A command: version, kind, payload.

use bytes::Bytes;

use super::varint::Reader;
use super::{CodecError, commit, from_postcard};
use crate::{Command, FeatureLevel};

const VERSION: u8 = 1;
/// Hand-coded: one command per flush, with a row per partition.
const KIND_COMMIT_OBJECT: u8 = 0;
/// Any other command.
const KIND_OTHER: u8 = 1;
/// What the kind's payload is called in errors.
const EXPECTED: &str = "command";

/// Encodes a command for the log.
#[must_use]
pub fn encode_command(command: &Command) -> Bytes {
    match command {
        Command::CommitObject(commit) => {
            let mut to = vec![VERSION, KIND_COMMIT_OBJECT];
            commit::encode(commit, &mut to);
            to.into()
        }
        _ => {
            let to = vec![VERSION, KIND_OTHER];
            postcard::to_extend(command, to).expect("a command is plain data").into()
        }
    }
}

/// Decodes a command. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no command of a known version.
pub fn decode_command(bytes: &[u8]) -> Result<Command, CodecError> {
    let [version, kind, payload @ ..] = bytes else {
        return Err(CodecError::Truncated);
    };
    if *version != VERSION {
        return Err(CodecError::Version { version: *version });
    }
    match *kind {
        KIND_COMMIT_OBJECT => {
            let mut reader = Reader::new(payload);
            let commit = commit::decode(&mut reader)?;
            let whole = reader.remaining() == 0;
            whole.then_some(Command::CommitObject(commit)).ok_or(CodecError::Malformed { expected: EXPECTED })
        }
        KIND_OTHER => match from_postcard(payload, EXPECTED)? {
            // It has a form of its own; two would be two texts for one command.
            Command::CommitObject(_) => Err(CodecError::Malformed { expected: EXPECTED }),
            // Of a later release: what it means is not known here.
            Command::CreateTopicAt { level, .. }
            | Command::AlterTopicAt { level, .. }
            | Command::EditTopic { level, .. }
                if level > FeatureLevel::NEWEST =>
            {
                Err(CodecError::Level { level })
            }
            command => Ok(command),
        },
        _ => Err(CodecError::Malformed { expected: EXPECTED }),
    }
}
