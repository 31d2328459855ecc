//! What does a command change? The pure metadata state machine.
//!
//! Architecture invariant: no clock, no randomness, no I/O, no async, no iteration over unordered maps.
//! Time, ids and choices arrive in the command; every replica that applies the same log reaches the same state.

pub mod codec;
mod command;
mod commit;
mod extents;
mod fleet;
mod groups;
mod homes;
pub mod invariants;
mod lanes;
mod nodes;
mod objects;
mod outcome;
mod partition;
pub mod placement;
mod producers;
mod requests;
mod settings;
mod state;
mod time;
mod topics;
pub mod voters;

pub use command::{
    Command, CommitObject, CreateTopic, ForgetObjects, HOME_MOVES_MAX, HomeMove, Precondition,
    ProducerWindow, RegisterNode, RequestId, Row, RowProducer, TrimPartition, Unit,
};
#[doc(hidden)]
pub use commit::SlotJudgement;
pub use extents::Extent;
pub use fleet::{
    DirectoryId, Drain, FeatureLevel, FeatureRange, Liveness, Member, VoterCount, VoterCountError,
};
pub use groups::{
    ChangeGroups, CommittedOffset, Committer, GROUP_RECORD_BYTES_MAX, GroupChange, GroupEntry, GroupPhase,
    GroupRecord, GroupVerdict, MemberRecord, OFFSET_METADATA_BYTES_MAX, OffsetCommit,
};
pub use lanes::{Decision, LaneEntry};
pub use nodes::NodeEntry;
pub use objects::{GarbageEntry, ObjectEntry};
pub use outcome::{GroupRefusal, MemberRefusal, Outcome, Refusal, SlotRefusal, UnitRefusal, Verdict};
pub use partition::{EpochStart, Partition};
pub use placement::{NodeLoad, Placement};
pub use producers::{ProducerEntry, SentBatch};
pub use settings::{
    KeptSettings, MAX_MESSAGE_BYTES, MESSAGE_TIMESTAMP_TYPE, OtherSettings, Setting, SettingEdits,
    SettingError, SettingKind, SettingSource, SettingStep, TimestampType, TopicSettings,
};
pub use state::{Applied, Changes, State};
pub use time::TICK_ADVANCE_MAX_MS;
pub use topics::Topic;
