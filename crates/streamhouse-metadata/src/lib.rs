//! What does a command change? The pure metadata state machine.
//!
//! Architecture invariant: no clock, no randomness, no I/O, no async, no iteration over unordered maps.
//! Time, ids and choices arrive in the command; every replica that applies the same log reaches the same state.

pub mod codec;
mod command;
mod extents;
pub mod invariants;
mod lanes;
mod nodes;
mod objects;
mod outcome;
mod partition;
mod settings;
mod state;
mod topics;

pub use command::{
    Command, CommitObject, CreateTopic, ForgetObjects, Precondition, ProducerWindow, RegisterNode, RequestId,
    Row, RowProducer, TrimPartition, Unit,
};
pub use extents::Extent;
pub use lanes::{Decision, LaneEntry};
pub use nodes::NodeEntry;
pub use objects::{GarbageEntry, ObjectEntry};
pub use outcome::{Outcome, Refusal, SlotRefusal, UnitRefusal, Verdict};
pub use partition::{EpochStart, Partition};
pub use settings::{SettingError, TimestampType, TopicSettings};
pub use state::{Applied, Changes, State};
pub use topics::Topic;
