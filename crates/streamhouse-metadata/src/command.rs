//! The commands of the metadata log.

use serde::{Deserialize, Serialize};
use streamhouse_types::{
    Attempt, ClusterId, Epoch, GroupId, Incarnation, NodeId, ObjectId, Offset, PartitionId, ProducerEpoch,
    ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId, TopicName,
};

use crate::{
    ChangeGroups, DirectoryId, Drain, FeatureLevel, FeatureRange, Liveness, SettingEdits, TopicSettings,
    VoterCount,
};

/// Names one request of a client, so that a repeated proposal gets its first answer.
pub type RequestId = [u8; 16];

/// Everything that can change the metadata.
///
/// A command may be proposed more than once (a lost answer, a change of leader), so each is idempotent by slot,
/// by request id or by its nature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First command of a cluster: gives it its identity. A second one is refused.
    Bootstrap {
        /// The identity.
        cluster: ClusterId,
        /// The time at the proposer.
        now: Timestamp,
    },
    /// A node starts: opens a new incarnation and closes the one before.
    RegisterNode(RegisterNode),
    /// Closes an incarnation (drain, removal, silence). Refused nodes register anew.
    CloseIncarnation {
        /// The node.
        node: NodeId,
        /// The incarnation to close; a later one stays open.
        incarnation: Incarnation,
    },
    /// The leader's clock. Cluster time only moves forward.
    Tick {
        /// The leader's time.
        now: Timestamp,
    },
    /// Every write: gives extents of one object their offsets.
    CommitObject(CommitObject),
    /// An idle node gives up its undecided slots below `lo`.
    AdvanceLo {
        /// The lane is `slot.lane`; `slot.sequence` is the new `lo`.
        slot: Slot,
    },
    /// Makes a topic.
    CreateTopic(CreateTopic),
    /// Changes settings of a topic. `None` puts a setting back to its default.
    AlterTopic {
        /// Which request.
        request: RequestId,
        /// The topic.
        topic: TopicId,
        /// Kafka's setting names and their new values.
        changes: Vec<(String, Option<String>)>,
        /// Check only.
        validate_only: bool,
    },
    /// Deletes a topic and all it holds; its objects go to the garbage list when nothing else refers to them.
    DeleteTopic {
        /// Which request.
        request: RequestId,
        /// The topic.
        topic: TopicId,
        /// Check only.
        validate_only: bool,
    },
    /// Raises the number of partitions.
    AddPartitions {
        /// Which request.
        request: RequestId,
        /// The topic.
        topic: TopicId,
        /// The wanted number in all.
        total: u32,
        /// Check only.
        validate_only: bool,
    },
    /// Moves the home of a partition; its epoch goes up by one.
    MoveHome {
        /// The partition.
        partition: PartitionId,
        /// The new home.
        home: NodeId,
        /// Its registered incarnation, so a late command moves nothing to a node that has gone.
        incarnation: Incarnation,
    },
    /// Drops records before an offset (retention, DeleteRecords).
    TrimPartition(TrimPartition),
    /// The sweep deleted these objects from the store: the garbage list forgets them.
    ForgetObjects(ForgetObjects),
    /// Gives a node a block of producer ids. Always new ids: a repeated proposal wastes a block.
    GrantProducerIds {
        /// Who asks.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// How many, at most 10,000.
        count: u32,
        /// How many batches the producer table keeps for each of these ids and a partition.
        window: ProducerWindow,
    },
    /// Producer state whose last append is older than `cutoff` (cluster time) goes.
    ExpireProducers {
        /// Oldest append time that stays.
        cutoff: Timestamp,
    },
    /// A node asks to be a member, before it registers. From the same data directory it may ask again and again.
    AdmitNode {
        /// The id that it wants.
        node: NodeId,
        /// Its data directory, to which the id belongs from now on.
        directory: DirectoryId,
        /// The feature levels that its release knows.
        features: FeatureRange,
        /// Its release, as people call it; at most 512 bytes.
        version: String,
    },
    /// The leader's judgement of a node, by its lease. Passed over unless this incarnation is the open one.
    JudgeNode {
        /// The node.
        node: NodeId,
        /// The incarnation that beats or is silent.
        incarnation: Incarnation,
        /// The judgement.
        liveness: Liveness,
    },
    /// Begins or ends the emptying of a node. Leaving does not take the place of what an operator wants.
    SetDrain {
        /// Which request.
        request: RequestId,
        /// The node.
        node: NodeId,
        /// Whether and why.
        drain: Drain,
    },
    /// Closes the incarnation of a node and takes it out of the cluster for ever.
    RemoveNode {
        /// Which request.
        request: RequestId,
        /// The node.
        node: NodeId,
    },
    /// Moves many homes; each epoch goes up by one. What is not as the planner saw it is passed over.
    MoveHomes {
        /// The moves, at most [`HOME_MOVES_MAX`].
        moves: Vec<HomeMove>,
    },
    /// Says how many nodes are to have a vote.
    SetWantedVoters {
        /// Which request.
        request: RequestId,
        /// How many.
        voters: VoterCount,
    },
    /// Raises the feature level, once every member knows it. Never lowers it.
    RaiseFeatureLevel {
        /// The new level.
        level: FeatureLevel,
    },
    /// A coordinator changes groups: who is in them, and how far they have read.
    ChangeGroups(ChangeGroups),
    /// Deletes a group without members, and how far it has read.
    DeleteGroup {
        /// Which request.
        request: RequestId,
        /// The group.
        group: GroupId,
    },
    /// Says from where a group without members goes on. The group is made when it is not there.
    SeekGroup {
        /// Which request.
        request: RequestId,
        /// The group.
        group: GroupId,
        /// The next record of each partition; `None` forgets how far it was read. Of two for one partition the later
        /// counts.
        offsets: Vec<(PartitionId, Option<Offset>)>,
        /// Check only.
        validate_only: bool,
    },
    /// Of groups without members, offsets go that were committed before `cutoff`, and then groups that have none, each
    /// unless the group lost its last member or was made since.
    ExpireGroups {
        /// Oldest time that stays (cluster time).
        cutoff: Timestamp,
    },
    /// Makes a topic with settings that [`CreateTopic`] does not carry.
    CreateTopicWith {
        /// The topic, without those settings.
        create: CreateTopic,
        /// The names and values of [`crate::KeptSettings`].
        kept: Vec<(String, String)>,
    },
    /// A [`Command::CreateTopicWith`] some settings of which came with a later feature level. It is a command of its own,
    /// so that a release that does not know them stops instead of refusing what the others carry out.
    CreateTopicAt {
        /// The level that the settings are judged by.
        level: FeatureLevel,
        /// The topic, without those settings.
        create: CreateTopic,
        /// The names and values of [`crate::KeptSettings`].
        kept: Vec<(String, String)>,
    },
    /// A [`Command::AlterTopic`] some settings of which came with a later feature level.
    AlterTopicAt {
        /// The level that the settings are judged by.
        level: FeatureLevel,
        /// The request.
        request: RequestId,
        /// The topic.
        topic: TopicId,
        /// The settings and their new values; `None` puts one back to its default.
        changes: Vec<(String, Option<String>)>,
        /// Check only.
        validate_only: bool,
    },
    /// Changes settings of a topic, going by what is set when it is applied, so that of two at a time none undoes the
    /// other.
    EditTopic {
        /// The level that the settings are judged by.
        level: FeatureLevel,
        /// Which request.
        request: RequestId,
        /// The topic.
        topic: TopicId,
        /// What is to be done.
        edits: SettingEdits,
        /// Check only.
        validate_only: bool,
    },
}

/// Most moves in one [`Command::MoveHomes`].
pub const HOME_MOVES_MAX: usize = 10_000;

/// One home that is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeMove {
    /// The partition.
    pub partition: PartitionId,
    /// The new home.
    pub home: NodeId,
    /// Its registered incarnation, so a late command moves nothing to a node that has gone.
    pub incarnation: Incarnation,
    /// The partition's epoch that the planner saw, so a late command does not undo a newer move.
    pub epoch: Epoch,
}

/// How many of its last batches the producer table remembers for each producer and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProducerWindow {
    /// Five, as Kafka clients have at most five requests in flight.
    Kafka,
    /// 64, for native sessions.
    Native,
}

/// A node opens a new incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// Which request: a repeated proposal gets the incarnation it got first.
    pub request: RequestId,
    /// The node.
    pub node: NodeId,
    /// Its zone, may be empty.
    pub zone: String,
    /// Addresses by listener name ("kafka", "grpc", "internal").
    pub addresses: Vec<(String, String)>,
}

/// Gives the extents of one object their offsets and makes them visible. See `docs/design.md`, section 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitObject {
    /// The slot that this object fills.
    pub slot: Slot,
    /// Which attempt at the slot; the object's name is `(slot, attempt)`.
    pub attempt: Attempt,
    /// The slot that was proposed before this one in this lane; 0 when none was.
    pub prev: SlotSequence,
    /// The lowest slot the node may still commit.
    pub lo: SlotSequence,
    /// Length of the object in bytes.
    pub length: u64,
    /// CRC-32C of the object's body.
    pub crc: u32,
    /// When the node closed the buffer, by its clock; apply clamps it.
    pub append_time: Timestamp,
    /// Judged in order, each wholly or not at all.
    pub units: Vec<Unit>,
}

impl CommitObject {
    /// The name of the object.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        ObjectId { slot: self.slot, attempt: self.attempt }
    }
}

/// What is appended wholly or not at all, under its preconditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// All must hold, else the unit is refused.
    pub preconditions: Vec<Precondition>,
    /// In the order of appending.
    pub rows: Vec<Row>,
}

/// What must hold for a unit to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The next record of the partition gets exactly this offset.
    NextOffset {
        /// The partition.
        partition: PartitionId,
        /// The expected high watermark.
        offset: Offset,
    },
}

/// A run of batches of one partition that lie side by side in the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The partition.
    pub partition: PartitionId,
    /// Where the run starts in the object.
    pub position: u64,
    /// Its length in bytes.
    pub length: u32,
    /// How many batches; 1 for an idempotent batch.
    pub batches: u32,
    /// How many records.
    pub records: u32,
    /// Greatest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// Set for an idempotent batch.
    pub producer: Option<RowProducer>,
}

/// Who sent an idempotent batch, and where it stands in what they sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the batch's first record.
    pub first_sequence: Sequence,
}

/// Makes a topic. Its id and its partitions' homes are given in apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Which request: a repeated proposal gets its first answer.
    pub request: RequestId,
    /// The name.
    pub name: TopicName,
    /// How many partitions, 1 to 10,000.
    pub partitions: u32,
    /// Its settings, all resolved; see [`Command::CreateTopicWith`] for those that are kept.
    pub settings: TopicSettings,
    /// Check only.
    pub validate_only: bool,
}

/// Moves the log start of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimPartition {
    /// The partition.
    pub partition: PartitionId,
    /// The new log start; clamped to the high watermark, never moves back.
    pub before: Offset,
}

/// Objects that the sweep has deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetObjects {
    /// Their names; one that is not on the garbage list is passed over.
    pub objects: Vec<ObjectId>,
}
