//! How nodes agree on the order of commands: openraft over the metadata state machine.
