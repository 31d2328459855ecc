//! What a node tells about consumer groups.

use std::fmt;
use std::time::Duration;

use streamhouse_proto::v1;
use streamhouse_types::{NodeId, Offset, PartitionIndex, Timestamp};

use super::cluster::{duration, node_id};
use super::timestamp;

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Its id.
    pub id: String,
    /// What its members are doing.
    pub state: GroupState,
    /// What the group is for, `consumer` mostly; empty before the first member.
    pub protocol_type: String,
    /// What the members agreed on, such as `range`; empty before they did.
    pub protocol: String,
    /// Counts its rebalances.
    pub generation: u32,
    /// The node that looks after it.
    pub coordinator: Option<NodeId>,
    /// The member that assigns; empty when there is none.
    pub leader: String,
    /// How many members it has.
    pub member_count: u32,
    /// Topics of which something is committed.
    pub topic_count: u32,
    /// Records that are not read, over all partitions of which something is committed.
    pub lag_records: u64,
    /// How long ago the oldest of them was appended; zero when there is none.
    pub behind: Duration,
    /// The members. Empty in a list.
    pub members: Vec<GroupMember>,
    /// Every partition of which something is committed, or that a member reads, by topic and number. Empty in a list.
    pub partitions: Vec<GroupPartition>,
}

/// What the members of a group are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// There are none.
    Empty,
    /// They are joining.
    Preparing,
    /// All have joined, and the leader is assigning.
    Completing,
    /// Each knows what to read.
    Stable,
    /// This client does not know.
    Unknown,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Preparing => "preparing",
            Self::Completing => "completing",
            Self::Stable => "stable",
            Self::Unknown => "unknown",
        })
    }
}

/// A partition by the name of its topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// The name under which a static member comes back.
    pub instance: Option<String>,
    /// How its client calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// What it subscribes to.
    pub topics: Vec<String>,
    /// What it reads.
    pub assigned: Vec<TopicPartition>,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next record to read; `None` when nothing is committed.
    pub committed: Option<Offset>,
    /// The note that the consumer left with it.
    pub metadata: Option<String>,
    /// When it was committed.
    pub committed_at: Option<Timestamp>,
    /// First readable offset.
    pub log_start: Offset,
    /// First offset that is not readable.
    pub high_watermark: Offset,
    /// Records that are not read; `None` when nothing is committed.
    pub lag_records: Option<u64>,
    /// How long ago the first of them was appended.
    pub behind: Option<Duration>,
    /// The member that reads it; empty when nobody does.
    pub member: String,
}

/// What became of what is committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SoughtPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// What was committed.
    pub from: Option<Offset>,
    /// What is committed now.
    pub to: Option<Offset>,
    /// First readable offset.
    pub log_start: Offset,
    /// First offset that is not readable.
    pub high_watermark: Offset,
}

impl From<v1::Group> for GroupInfo {
    fn from(group: v1::Group) -> Self {
        let state = match group.state() {
            v1::GroupState::Empty => GroupState::Empty,
            v1::GroupState::Preparing => GroupState::Preparing,
            v1::GroupState::Completing => GroupState::Completing,
            v1::GroupState::Stable => GroupState::Stable,
            v1::GroupState::Unspecified => GroupState::Unknown,
        };
        Self {
            id: group.id,
            state,
            protocol_type: group.protocol_type,
            protocol: group.protocol,
            generation: group.generation,
            coordinator: node_id(group.coordinator_id),
            leader: group.leader_id,
            member_count: group.member_count,
            topic_count: group.topic_count,
            lag_records: group.lag_records,
            behind: duration(group.behind).unwrap_or_default(),
            members: group.members.into_iter().map(GroupMember::from).collect(),
            partitions: group.partitions.into_iter().map(GroupPartition::from).collect(),
        }
    }
}

impl From<v1::GroupMember> for GroupMember {
    fn from(member: v1::GroupMember) -> Self {
        Self {
            id: member.id,
            instance: member.instance_id,
            client: member.client_id,
            host: member.host,
            topics: member.topics,
            assigned: member.assigned.into_iter().map(TopicPartition::from).collect(),
        }
    }
}

impl From<v1::TopicPartition> for TopicPartition {
    fn from(place: v1::TopicPartition) -> Self {
        Self { topic: place.topic, partition: PartitionIndex::new(place.partition) }
    }
}

impl From<v1::GroupPartition> for GroupPartition {
    fn from(partition: v1::GroupPartition) -> Self {
        Self {
            topic: partition.topic,
            partition: PartitionIndex::new(partition.partition),
            committed: partition.committed_offset.map(Offset::new),
            metadata: partition.metadata,
            committed_at: timestamp(partition.committed_at),
            log_start: Offset::new(partition.log_start),
            high_watermark: Offset::new(partition.high_watermark),
            lag_records: partition.lag_records,
            behind: duration(partition.behind),
            member: partition.member_id,
        }
    }
}

impl From<v1::SoughtPartition> for SoughtPartition {
    fn from(sought: v1::SoughtPartition) -> Self {
        Self {
            topic: sought.topic,
            partition: PartitionIndex::new(sought.partition),
            from: sought.from_offset.map(Offset::new),
            to: sought.to_offset.map(Offset::new),
            log_start: Offset::new(sought.log_start),
            high_watermark: Offset::new(sought.high_watermark),
        }
    }
}
