//! Why something was not done.

use std::time::Duration;

use streamhouse_broker::ProposeError;
use streamhouse_broker::ReadIndexError;
use streamhouse_broker::metadata::Refusal;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{GroupId, NodeId};

/// Why a member was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Another node looks after the group.
    #[error("this node does not coordinate the group")]
    NotCoordinator {
        /// Who does, as far as is known here.
        coordinator: Option<NodeId>,
    },
    /// The group cannot be looked after now. Nothing happened.
    #[error("group cannot be coordinated now: {obstacle}")]
    Unavailable {
        /// What is in the way.
        obstacle: GroupObstacle,
    },
    /// The member knows another generation than the group is in.
    #[error("generation is not that of the group")]
    IllegalGeneration,
    /// The member knows no protocol that all others know, or is of another kind.
    #[error("protocols do not fit those of the group")]
    InconsistentProtocol,
    /// The group has no such member.
    #[error("member is unknown to the group")]
    UnknownMember,
    /// The session timeout is too short or too long.
    #[error("session timeout lies between {min:?} and {max:?}")]
    InvalidSessionTimeout {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The members are to join again.
    #[error("group rebalances")]
    RebalanceInProgress,
    /// A new member is to join again under this id.
    #[error("member is to join again under the id it was given")]
    MemberIdRequired {
        /// The id.
        member: String,
    },
    /// The group has as many members as it may.
    #[error("group has {limit} members, more are not allowed")]
    Full {
        /// How many it may have.
        limit: usize,
    },
    /// What members say of themselves and are assigned is too much to be kept.
    #[error("metadata and assignments of the group would take more than {limit} bytes")]
    TooLarge {
        /// The most that is kept, in bytes.
        limit: usize,
    },
    /// Another process has come under the same instance name.
    #[error("static member was replaced by another process of the same name")]
    Fenced,
    /// It may have happened.
    #[error("whether it happened is not known")]
    Unknown,
}

/// What keeps a group from being looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupObstacle {
    /// This node is about to take the group over.
    #[error("the node is taking the group over")]
    Loading,
    /// No node takes groups.
    #[error("no node takes groups")]
    NoNode,
    /// Not all nodes know groups yet.
    #[error("not all nodes of the cluster know groups yet")]
    Feature,
    /// The metadata log does not answer.
    #[error("the metadata log does not answer")]
    Metadata,
    /// More waits to be stored than the node may hold.
    #[error("more waits to be stored than the node may hold")]
    Overloaded,
}

impl GroupError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotCoordinator { .. } => ErrorCode::NotCoordinator,
            Self::Unavailable { obstacle: GroupObstacle::Loading } => ErrorCode::CoordinatorLoading,
            Self::Unavailable { .. } => ErrorCode::CoordinatorUnavailable,
            Self::IllegalGeneration => ErrorCode::IllegalGeneration,
            Self::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            Self::UnknownMember => ErrorCode::UnknownMember,
            Self::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
            Self::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            Self::MemberIdRequired { .. } => ErrorCode::MemberIdRequired,
            Self::Full { .. } | Self::TooLarge { .. } => ErrorCode::GroupFull,
            Self::Fenced => ErrorCode::InstanceFenced,
            Self::Unknown => ErrorCode::CommitUnknown,
        }
    }
}

/// Why an offset was not kept or not deleted, next to others that were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OffsetRefusal {
    /// There is no such partition.
    #[error("partition does not exist")]
    UnknownPartition,
    /// The note is too long.
    #[error("metadata of an offset has at most {limit} bytes")]
    MetadataTooLarge {
        /// The longest, in bytes.
        limit: usize,
    },
    /// A member still reads the topic.
    #[error("group is subscribed to the topic")]
    Subscribed,
}

impl OffsetRefusal {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition => ErrorCode::PartitionNotFound,
            Self::MetadataTooLarge { .. } => ErrorCode::OffsetMetadataTooLarge,
            Self::Subscribed => ErrorCode::GroupSubscribed,
        }
    }
}

/// Why a group was not shown, changed or deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupAdminError {
    /// Only the coordinator can answer, and another node is it, or nobody now.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// There is no such group.
    #[error("group `{group}` does not exist")]
    NotFound {
        /// The group.
        group: GroupId,
    },
    /// The group has members.
    #[error("group `{group}` has members")]
    NotEmpty {
        /// The group.
        group: GroupId,
    },
    /// There is no such partition.
    #[error("a partition does not exist")]
    UnknownPartition,
    /// The metadata says no.
    #[error("request was refused")]
    Refused(#[source] Refusal),
    /// Nothing was changed.
    #[error(transparent)]
    NotHappened(ProposeError),
    /// It may have happened; the same request id gets its answer.
    #[error("outcome of the request is unknown")]
    Unknown(#[source] ProposeError),
    /// Whether the group exists cannot be told now.
    #[error(transparent)]
    NotCurrent(#[from] ReadIndexError),
}

impl From<ProposeError> for GroupAdminError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotHappened { .. } => Self::NotHappened(error),
            ProposeError::Unknown { .. } => Self::Unknown(error),
        }
    }
}

impl GroupAdminError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Group(error) => error.code(),
            Self::NotFound { .. } => ErrorCode::GroupNotFound,
            Self::NotEmpty { .. } => ErrorCode::GroupNotEmpty,
            Self::UnknownPartition => ErrorCode::PartitionNotFound,
            Self::Refused(Refusal::Limit { .. }) => ErrorCode::LimitExceeded,
            Self::Refused(_) => ErrorCode::InvalidArgument,
            Self::NotHappened(_) | Self::NotCurrent(_) => ErrorCode::MetadataUnavailable,
            Self::Unknown(_) => ErrorCode::CommitUnknown,
        }
    }
}
