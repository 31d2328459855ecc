//! What changes groups, and what is answered.

use serde::{Deserialize, Serialize};
use streamhouse_types::{Epoch, GroupId, Incarnation, NodeId, Offset, PartitionId};

use super::GroupRecord;

/// Changes of groups that one node coordinates.
///
/// A node proposes one at a time, and the next with the next number once it has the answer. So a copy that comes late
/// is known by its number and changes nothing: a committed offset never goes back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeGroups {
    /// Who proposes.
    pub node: NodeId,
    /// Its incarnation, which must be open.
    pub incarnation: Incarnation,
    /// 1, 2, … in each incarnation.
    pub sequence: u64,
    /// Carried out in order, each with its own verdict.
    pub changes: Vec<GroupChange>,
}

/// One change of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupChange {
    /// The proposer becomes the owner; the group is made when it is not there.
    Claim {
        /// The group.
        group: GroupId,
    },
    /// The owner replaces the members and what they agreed on. Refused when the generation is lower than what is
    /// stored.
    Store {
        /// The group.
        group: GroupId,
        /// The new record.
        record: GroupRecord,
    },
    /// The owner notes how far the group has read.
    Commit {
        /// The group.
        group: GroupId,
        /// On whose word.
        by: Committer,
        /// The offsets; of two for one partition the later counts.
        offsets: Vec<OffsetCommit>,
    },
    /// The owner forgets how far the group has read; a partition of which nothing is known is passed over.
    DeleteOffsets {
        /// The group.
        group: GroupId,
        /// The partitions.
        partitions: Vec<PartitionId>,
    },
}

impl GroupChange {
    /// The group that is changed.
    #[must_use]
    pub fn group(&self) -> &GroupId {
        match self {
            Self::Claim { group }
            | Self::Store { group, .. }
            | Self::Commit { group, .. }
            | Self::DeleteOffsets { group, .. } => group,
        }
    }
}

/// On whose word offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Committer {
    /// A member of the group; stale unless the group has members and is at this generation.
    Member {
        /// The generation that the member is of.
        generation: u32,
    },
    /// Somebody who is no member; only for a group without members.
    Outside,
}

/// How far a partition was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// The partition.
    pub partition: PartitionId,
    /// The next record to read.
    pub offset: Offset,
    /// The epoch of the last record that was read, when the consumer said so.
    pub epoch: Option<Epoch>,
    /// A note of the consumer, at most [`crate::OFFSET_METADATA_BYTES_MAX`] bytes; `None` is not "".
    pub metadata: Option<String>,
}

/// The answer to one change. All but the first two changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupVerdict {
    /// Done.
    Done,
    /// Committed, but for these: the partitions do not exist (any more).
    Committed {
        /// In the order of the commit.
        unknown: Vec<PartitionId>,
    },
    /// Another node or incarnation owns the group.
    NotOwner,
    /// There is no such group: it was deleted, has expired, or was never claimed.
    UnknownGroup,
    /// The generation is not the newest, or the group has no members any more.
    StaleGeneration,
    /// The group has members, so nobody else may commit.
    HasMembers,
    /// Something is over its limit.
    Limit {
        /// Of what, such as "bytes in the note of an offset".
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The record's parts do not fit each other. Only a broken node sends this.
    Malformed,
}
