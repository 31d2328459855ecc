//! What the fuzz target `command` does with each input.

use streamhouse_metadata::codec::{decode_command, encode_command};

/// What decodes as a command is the same command when it is encoded and decoded again.
pub(crate) fn run(data: &[u8]) {
    if let Ok(command) = decode_command(data) {
        assert_eq!(decode_command(&encode_command(&command)).as_ref(), Ok(&command));
    }
}
