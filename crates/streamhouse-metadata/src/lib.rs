//! What does a command change? The pure metadata state machine.
//!
//! Architecture invariant: no clock, no randomness, no I/O, no async, no iteration over unordered maps.
//! Time, ids and choices arrive in the command; every replica that applies the same log reaches the same state.

mod command;
mod outcome;
mod settings;

pub use command::{
    Command, CommitObject, CreateTopic, ForgetObjects, Precondition, ProducerWindow, RegisterNode, RequestId, Row,
    RowProducer, TrimPartition, Unit,
};
pub use settings::{SettingError, TimestampType, TopicSettings};
pub use outcome::{Outcome, Refusal, SlotRefusal, UnitRefusal, Verdict};
