//! What can go wrong, per operation, and what the caller should do about it.

use streamhouse_metadata::{MemberRefusal, Refusal, SettingError};
use streamhouse_storage::{GetError, ListError};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionId, ProducerEpoch, Sequence, TopicName};

use crate::log::{ProposeError, ReadIndexError};

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Change the request; the same one will be refused again.
    Fix,
    /// The same request may succeed later. Nothing happened.
    Retry,
    /// Ask for the state of things (topic, producer, offsets) anew, then decide.
    Refresh,
    /// The write may have happened: retry only where a duplicate is recognised or harmless.
    Unknown,
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The partition does not exist (any more).
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// The batch is over the topic's limit.
    #[error("batch of {actual} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        actual: u32,
        /// The topic's `max.message.bytes`.
        limit: u32,
    },
    /// The topic keeps the newest record of each key, and some records have none.
    #[error("record {} has no key, which a topic with cleanup.policy=compact needs", .records.first().unwrap_or(&0))]
    NoKey {
        /// Those of the batch, the first 256 of them, counted from 0.
        records: Vec<u32>,
    },
    /// The request as a whole makes no sense.
    #[error("{fault}")]
    BadUnit {
        /// What is wrong.
        fault: UnitFault,
    },
    /// The sequence does not continue what the producer sent before.
    #[error("sequence is out of order, {expected} would continue")]
    OutOfOrderSequence {
        /// What would continue.
        expected: Sequence,
    },
    /// Nothing is known of this producer in this partition, and the batch is not its first.
    #[error("producer is unknown in partition {partition}")]
    UnknownProducer {
        /// The partition.
        partition: PartitionId,
    },
    /// A newer epoch of the producer has written.
    #[error("producer is fenced by epoch {current}")]
    ProducerFenced {
        /// The newer epoch.
        current: ProducerEpoch,
    },
    /// The producer id was never given out.
    #[error("producer id was never granted")]
    ProducerNotGranted,
    /// A precondition did not hold.
    #[error("next offset is {actual}, not the expected one")]
    PreconditionFailed {
        /// The high watermark found.
        actual: Offset,
    },
    /// The node is about to stop.
    #[error("node is stopping")]
    Stopping,
    /// The batch was not stored before its deadline, or with a batch before it. It did not happen.
    #[error("batch was not stored: {obstacle}")]
    NotStored {
        /// What was in the way.
        obstacle: Obstacle,
    },
    /// It may have happened.
    #[error("commit outcome is unknown: {cause}")]
    CommitUnknown {
        /// What was lost.
        cause: &'static str,
    },
}

/// What kept a batch from being stored. Nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The object store did not take it before the deadline.
    #[error("the object store does not answer")]
    Store,
    /// The object store answers, and refuses: credentials, permissions, a disk that is mounted read-only.
    #[error("the object store refuses writes, and the log of the node says why")]
    Refused,
    /// The object store does not answer this node, but answers others.
    #[error("this node cannot write to the object store, others can")]
    CutOff,
    /// The disk or the quota of the object store is full.
    #[error("the object store is full")]
    DiskFull,
    /// No room was found in an upload before the deadline.
    #[error("it waited longer than its deadline")]
    Deadline,
    /// The metadata log took no commit before the deadline.
    #[error("the metadata log takes no commits")]
    Metadata,
    /// The node lost its registration and gets a new one.
    #[error("the node registers anew")]
    Registration,
    /// A part of the node failed and was restarted.
    #[error("a part of the node was restarted")]
    Restarted,
    /// The node takes no writes.
    #[error("this node only reads; write to one of the brokers")]
    ReadOnly,
}

impl Obstacle {
    fn code(self) -> ErrorCode {
        match self {
            Self::Store | Self::Refused | Self::CutOff => ErrorCode::StoreUnavailable,
            Self::DiskFull => ErrorCode::DiskFull,
            Self::Deadline | Self::Restarted => ErrorCode::TimedOut,
            Self::Metadata | Self::Registration => ErrorCode::MetadataUnavailable,
            Self::ReadOnly => ErrorCode::ReadOnly,
        }
    }
}

/// What is wrong with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitFault {
    /// Nothing to append.
    #[error("the unit has no batch")]
    Empty,
    /// Some of its batches are in the log already, others are not.
    #[error("some batches of the unit are in the log already, others are not")]
    PartlyDuplicate,
    /// It describes no batches that can be appended.
    #[error("the unit is malformed")]
    Malformed,
}

impl AppendError {
    /// What the caller should do. Exhaustive, so a new variant must choose.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::TooLarge { .. } | Self::NoKey { .. } | Self::BadUnit { .. } | Self::ProducerNotGranted => {
                Advice::Fix
            }
            Self::UnknownPartition { .. }
            | Self::OutOfOrderSequence { .. }
            | Self::UnknownProducer { .. }
            | Self::ProducerFenced { .. }
            | Self::PreconditionFailed { .. } => Advice::Refresh,
            Self::Stopping | Self::NotStored { .. } => Advice::Retry,
            Self::CommitUnknown { .. } => Advice::Unknown,
        }
    }

    /// Whether the batch may be in the log all the same. `false` is a promise.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.advice() == Advice::Unknown
    }

    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition { .. } => ErrorCode::PartitionNotFound,
            Self::TooLarge { .. } => ErrorCode::BatchTooLarge,
            Self::NoKey { .. } => ErrorCode::InvalidBatch,
            Self::BadUnit { .. } => ErrorCode::InvalidArgument,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequence,
            Self::UnknownProducer { .. } => ErrorCode::UnknownProducer,
            Self::ProducerFenced { .. } => ErrorCode::ProducerFenced,
            Self::ProducerNotGranted => ErrorCode::ProducerIdNotGranted,
            Self::PreconditionFailed { .. } => ErrorCode::PreconditionFailed,
            Self::Stopping => ErrorCode::ShuttingDown,
            Self::NotStored { obstacle } => obstacle.code(),
            Self::CommitUnknown { .. } => ErrorCode::CommitUnknown,
        }
    }
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The partition does not exist, by metadata known to be current.
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// The offset is outside the log, by metadata known to be current.
    #[error("offset {offset} is outside {log_start}..{high_watermark}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// First readable offset.
        log_start: Offset,
        /// First offset that is not readable.
        high_watermark: Offset,
    },
    /// The offset is not known here, and whether it exists elsewhere cannot be told now.
    #[error(transparent)]
    NotCurrent(#[from] ReadIndexError),
    /// The store does not answer.
    #[error("bytes of {partition} at {offset} cannot be read from the store")]
    Store {
        /// The partition.
        partition: PartitionId,
        /// Where.
        offset: Offset,
        /// Why.
        #[source]
        source: GetError,
    },
    /// The store answered with bytes that are not what was committed, or says that a referenced object is gone.
    #[error("the store does not have the records of {partition} at {offset} as they were committed: {what}")]
    Corrupt {
        /// The partition.
        partition: PartitionId,
        /// Where.
        offset: Offset,
        /// What was found.
        what: String,
    },
    /// The node is about to stop.
    #[error("node is stopping")]
    Stopping,
}

impl FetchError {
    /// What the caller should do.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::UnknownPartition { .. } | Self::OutOfRange { .. } => Advice::Refresh,
            Self::NotCurrent(_) | Self::Store { .. } | Self::Stopping => Advice::Retry,
            Self::Corrupt { .. } => Advice::Fix,
        }
    }

    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition { .. } => ErrorCode::PartitionNotFound,
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::NotCurrent(_) => ErrorCode::MetadataUnavailable,
            Self::Store { .. } => ErrorCode::StoreUnavailable,
            Self::Corrupt { .. } => ErrorCode::StorageCorrupt,
            Self::Stopping => ErrorCode::ShuttingDown,
        }
    }
}

/// Why a topic was not made, changed or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    /// There is no topic of this name.
    #[error("topic `{name}` does not exist")]
    NotFound {
        /// The name.
        name: TopicName,
    },
    /// There is a topic of this name.
    #[error("topic `{name}` exists already")]
    Exists {
        /// The name.
        name: TopicName,
    },
    /// There is no such partition.
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// The records before an offset were to be dropped that is not reached yet.
    #[error("offset {before} lies past the end of the partition, which is {high_watermark}")]
    PastEnd {
        /// What was asked for.
        before: Offset,
        /// The first offset that no record has.
        high_watermark: Offset,
    },
    /// A setting is not supported or has no such value.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A topic may not allow larger batches than the node that is asked takes.
    #[error("`{value}` is no value for `max.message.bytes`: `limits.max_batch_bytes` of the node is {limit}")]
    BeyondNode {
        /// What was asked for, in bytes.
        value: u64,
        /// The most that the node takes, in bytes.
        limit: u32,
    },
    /// The metadata says no.
    #[error("request was refused")]
    Refused(#[source] Refusal),
    /// Nothing was changed.
    #[error(transparent)]
    NotHappened(ProposeError),
    /// It may have happened; the same request id gets its answer.
    #[error("outcome of the request is unknown")]
    Unknown(#[source] ProposeError),
    /// Whether the topic exists cannot be told now.
    #[error(transparent)]
    NotCurrent(#[from] ReadIndexError),
}

impl From<ProposeError> for TopicError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotHappened { .. } => Self::NotHappened(error),
            ProposeError::Unknown { .. } => Self::Unknown(error),
        }
    }
}

impl TopicError {
    /// What the caller should do.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::PastEnd { .. } | Self::Setting(_) | Self::BeyondNode { .. } | Self::Refused(_) => {
                Advice::Fix
            }
            Self::NotFound { .. } | Self::Exists { .. } | Self::UnknownPartition { .. } => Advice::Refresh,
            Self::NotHappened(_) | Self::NotCurrent(_) => Advice::Retry,
            Self::Unknown(_) => Advice::Unknown,
        }
    }

    /// Whether the change may have been made all the same. `false` is a promise.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.advice() == Advice::Unknown
    }

    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::TopicNotFound,
            Self::Exists { .. } => ErrorCode::TopicExists,
            Self::UnknownPartition { .. } => ErrorCode::PartitionNotFound,
            Self::PastEnd { .. } => ErrorCode::OffsetOutOfRange,
            Self::Setting(_) | Self::BeyondNode { .. } => ErrorCode::InvalidSetting,
            Self::Refused(refusal) => refusal_code(refusal),
            Self::NotHappened(_) | Self::NotCurrent(_) => ErrorCode::MetadataUnavailable,
            Self::Unknown(_) => ErrorCode::CommitUnknown,
        }
    }
}

fn refusal_code(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::TopicExists { .. } => ErrorCode::TopicExists,
        Refusal::UnknownTopic => ErrorCode::TopicNotFound,
        Refusal::UnknownPartition => ErrorCode::PartitionNotFound,
        Refusal::Setting(_) => ErrorCode::InvalidSetting,
        Refusal::Limit { .. } => ErrorCode::LimitExceeded,
        Refusal::PartitionCount { .. } => ErrorCode::InvalidPartitions,
        Refusal::NotBootstrapped | Refusal::NoLiveNode | Refusal::UnknownNode => {
            ErrorCode::MetadataUnavailable
        }
        Refusal::AlreadyBootstrapped { .. } | Refusal::HomeUnchanged { .. } | Refusal::RequestReused => {
            ErrorCode::InvalidArgument
        }
    }
}

/// Why no producer id was given out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProducerError {
    /// More ids than one request may have.
    #[error("{wanted} producer ids were asked for, at most {limit} are given at once")]
    TooMany {
        /// What was asked for.
        wanted: u32,
        /// The limit.
        limit: u32,
    },
    /// The metadata says no.
    #[error("producer ids were refused")]
    Refused(#[source] Refusal),
    /// No block of ids could be had in time.
    #[error("producer ids cannot be had now")]
    Unavailable(#[source] ProposeError),
}

impl ProducerError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooMany { .. } | Self::Refused(_) => ErrorCode::InvalidArgument,
            Self::Unavailable(_) => ErrorCode::MetadataUnavailable,
        }
    }
}

/// Why work on the store as a whole (sweep, verify, summary) ended early.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The listing is not complete.
    #[error(transparent)]
    List(#[from] ListError),
    /// The metadata at hand cannot be shown to be current.
    #[error(transparent)]
    NotCurrent(#[from] ReadIndexError),
    /// The metadata log did not take the result.
    #[error("result was not taken by the metadata log")]
    Propose(#[source] ProposeError),
    /// An object cannot be read.
    #[error("object cannot be read")]
    Read(#[source] GetError),
    /// There is no such object.
    #[error("there is no object `{name}`")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The object's own description of itself is damaged.
    #[error("object `{name}` is damaged: {what}")]
    Damaged {
        /// The object.
        name: String,
        /// What was found.
        what: String,
    },
    /// The node is about to stop.
    #[error("node is stopping")]
    Stopping,
}

impl StorageError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::List(_) | Self::Read(_) => ErrorCode::StoreUnavailable,
            Self::NotCurrent(_) | Self::Propose(_) => ErrorCode::MetadataUnavailable,
            Self::NotFound { .. } => ErrorCode::ObjectNotFound,
            Self::Damaged { .. } => ErrorCode::StorageCorrupt,
            Self::Stopping => ErrorCode::ShuttingDown,
        }
    }
}

/// Why a node is not registered, for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRegistered {
    /// What it says of itself cannot be.
    #[error(transparent)]
    Refused(Refusal),
    /// It is no member (any more).
    #[error(transparent)]
    Member(MemberRefusal),
    /// The cluster says, not through the metadata log, that it is no member any more.
    #[error("{reason}")]
    Expelled {
        /// What the cluster says.
        reason: String,
    },
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metadata log has not been bootstrapped.
    #[error("cluster has no identity yet")]
    NotBootstrapped,
    /// The node could not be registered.
    #[error("node was refused")]
    Refused(#[source] std::sync::Arc<NotRegistered>),
    /// An actor did not start.
    #[error("actor did not start: {reason}")]
    Actor {
        /// Why, for a person.
        reason: String,
    },
    /// A setting cannot be used.
    #[error("`{name}` is out of range: {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What is possible.
        expected: &'static str,
    },
}
