//! The pure metadata state machine.
