//! What a command answered. A refusal is an outcome: it was applied, and every node saw it the same way.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{
    Attempt, ClusterId, Epoch, Incarnation, NodeId, Offset, ProducerEpoch, ProducerId, SlotSequence,
    Timestamp, TopicId,
};

use crate::{FeatureLevel, FeatureRange, GroupVerdict};

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, and there is nothing to say.
    Done,
    /// The node's new incarnation.
    Registered {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// The object was judged: one verdict per unit, in order. A repeated proposal of the slot gets this again.
    Committed {
        /// The attempt that decided the slot. When it is not the proposed one, the proposed object is an orphan;
        /// the verdicts hold all the same, as all attempts at a slot carry the same units.
        attempt: Attempt,
        /// In the order of the units.
        verdicts: Arc<[Verdict]>,
        /// The append time that the accepted rows got (clamped; per partition it may be later still).
        append_time: Timestamp,
    },
    /// The slot named by `prev`, or the changes numbered before, are not decided yet: nothing was changed, propose again.
    NotYet,
    /// The object, or the changes of groups, were refused as a whole: whether an earlier copy of the proposal was applied is *unknown*.
    SlotRefused(SlotRefusal),
    /// The topic was made (or would be, when only validated: then `topic` is the id it would get).
    TopicCreated {
        /// Its id.
        topic: TopicId,
    },
    /// A block of producer ids: `first..first + count`.
    ProducerIds {
        /// The first id.
        first: ProducerId,
        /// How many.
        count: u32,
    },
    /// The trimmed partition's log start now.
    Trimmed {
        /// The log start.
        log_start: Offset,
    },
    /// Refused; nothing was changed.
    Refused(Refusal),
    /// Homes moved; those that had moved since they were planned, or whose new home has gone, were passed over.
    HomesMoved {
        /// How many moved.
        moved: u32,
    },
    /// Refused because of what the members of the cluster are; nothing was changed.
    MemberRefused(MemberRefusal),
    /// The groups were changed, each change by its own verdict. A repeated proposal gets this again.
    GroupsChanged {
        /// In the order of the changes.
        verdicts: Vec<GroupVerdict>,
    },
    /// Refused because of what consumer groups are there; nothing was changed.
    GroupRefused(GroupRefusal),
}

/// The answer to one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Appended: the base offset of each row, in order.
    Appended {
        /// One per row.
        bases: Vec<Offset>,
    },
    /// Every batch of the unit is in the log already: its first answer.
    Duplicate {
        /// The base offset each row got then, in order.
        bases: Vec<Offset>,
    },
    /// Nothing of the unit was appended.
    Refused(UnitRefusal),
}

/// Why a unit was not appended. Every one of these *did not happen*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitRefusal {
    /// The partition does not exist (any more).
    UnknownPartition,
    /// The sequence does not continue what the producer sent before (Kafka 45): a gap, or older than what is
    /// remembered.
    OutOfOrderSequence {
        /// What would continue.
        expected: streamhouse_types::Sequence,
    },
    /// Nothing is known of this producer here, and the batch is not its first (Kafka 59).
    UnknownProducer,
    /// A newer epoch of the producer has written (Kafka 47/90).
    ProducerFenced {
        /// The newer epoch.
        current: ProducerEpoch,
    },
    /// The producer id was never given out.
    ProducerIdNotGranted,
    /// A precondition did not hold.
    PreconditionFailed {
        /// The high watermark found.
        actual: Offset,
    },
    /// Some batches of the unit are in the log already and others are not, so it can be neither answered as a
    /// duplicate nor appended wholly.
    PartlyDuplicate,
    /// The row describes no batches: no record, no byte, more batches than records, bytes past the end of the
    /// object, more than one batch of an idempotent producer. Only a broken node sends this.
    Malformed,
}

/// Why an object, or changes of groups, were refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotRefusal {
    /// The incarnation is closed or never was: the node must register anew.
    IncarnationClosed {
        /// The open incarnation, if there is one.
        current: Option<Incarnation>,
    },
    /// The slot lies below the lane's `lo`; of changes of groups, the number below the next.
    BelowLo {
        /// The lane's `lo`, or the next number.
        lo: SlotSequence,
    },
}

/// Why a command other than a commit was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The cluster has its identity already.
    #[error("the cluster is bootstrapped already as {cluster}")]
    AlreadyBootstrapped {
        /// Its identity.
        cluster: ClusterId,
    },
    /// There is a topic of this name.
    #[error("the topic exists already")]
    TopicExists {
        /// Its id.
        topic: TopicId,
    },
    /// There is no such topic.
    #[error("there is no such topic")]
    UnknownTopic,
    /// There is no such partition.
    #[error("there is no such partition")]
    UnknownPartition,
    /// There is no such node, or its incarnation is closed.
    #[error("the node is not registered under this incarnation")]
    UnknownNode,
    /// A number of partitions outside 1 to 10,000, or fewer than the topic has.
    #[error("{wanted} partitions cannot be had: the topic has {current}, and 1 to 10,000 are possible")]
    PartitionCount {
        /// What was asked for.
        wanted: u32,
        /// What there is; 0 for a new topic.
        current: u32,
    },
    /// The cluster has no identity yet.
    #[error("the cluster is not bootstrapped")]
    NotBootstrapped,
    /// No node is there to be the home of a partition.
    #[error("no live node can be the home of a partition")]
    NoLiveNode,
    /// The request id stands for another request already.
    #[error("the request id was used for another request")]
    RequestReused,
    /// A setting that is unknown, not supported or out of range.
    #[error(transparent)]
    Setting(#[from] crate::SettingError),
    /// A home move that is not a move, or that came too late.
    #[error("the home did not change, the epoch stays {epoch}")]
    HomeUnchanged {
        /// The epoch now.
        epoch: Epoch,
    },
    /// A limit of the cluster.
    #[error("the cluster's limit of {limit} {what} is reached")]
    Limit {
        /// Of what, such as "partitions".
        what: String,
        /// The limit.
        limit: u64,
    },
}

/// Why a node cannot be or do what was asked, or cannot go. Every text names the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MemberRefusal {
    /// The id is taken.
    #[error("this node id, {node}, belongs to another data directory; a wiped node joins under a new id")]
    OtherDirectory {
        /// The id.
        node: NodeId,
    },
    /// The node was removed.
    #[error(
        "node {node} was removed, and node ids are never reused; join under a new id, with an empty directory"
    )]
    Removed {
        /// The id.
        node: NodeId,
    },
    /// The node's release does not know the cluster's feature level.
    #[error(
        "the cluster is at feature level {level}, but node {node} knows {features}; start it with another release"
    )]
    LevelUnknown {
        /// The node.
        node: NodeId,
        /// The cluster's level.
        level: FeatureLevel,
        /// The node's levels.
        features: FeatureRange,
    },
    /// There is no such member.
    #[error("node {node} is not a member of the cluster; `streamhouse node list` shows who is")]
    Unknown {
        /// The id.
        node: NodeId,
    },
    /// Nobody else could be the home of the partitions.
    #[error(
        "no node but {node} can be the home of {partitions} partitions; add or undrain another before it goes"
    )]
    LastHome {
        /// The node that is to go.
        node: NodeId,
        /// How many partitions there are.
        partitions: u64,
    },
    /// A member does not know the wanted feature level.
    #[error("feature level {level} cannot be had: node {node} knows {features}; upgrade or remove it first")]
    LevelNotEverywhere {
        /// The wanted level.
        level: FeatureLevel,
        /// The first member that does not know it.
        node: NodeId,
        /// The member's levels.
        features: FeatureRange,
    },
    /// The feature level is above the wanted one.
    #[error("the feature level is {current} and never goes down, so it cannot be {wanted}")]
    LevelGoesDown {
        /// The level.
        current: FeatureLevel,
        /// The wanted one.
        wanted: FeatureLevel,
    },
    /// Not every member knows the command: it may come once all run a release that does.
    #[error(
        "this needs feature level {needed}, and the cluster is at {level}; upgrade or remove the nodes of the release \
         before"
    )]
    LevelTooLow {
        /// The level that is needed.
        needed: FeatureLevel,
        /// The cluster's level.
        level: FeatureLevel,
    },
}

/// Why a consumer group cannot be changed as was asked. Every text names the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GroupRefusal {
    /// There is no such group.
    #[error("there is no such consumer group; `streamhouse group list` shows all")]
    UnknownGroup,
    /// The group has members.
    #[error("the consumer group has members, and they alone may change it; stop them first")]
    HasMembers,
}
