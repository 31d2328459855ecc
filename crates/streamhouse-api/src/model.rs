//! What the server tells about topics, storage and itself.

pub(crate) mod cluster;
pub(crate) mod groups;

use streamhouse_proto::v1;
use streamhouse_types::{Epoch, NodeId, Offset, PartitionIndex, Timestamp, TopicId};

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id: a deleted and recreated name has another one.
    pub id: TopicId,
    /// How many partitions it has.
    pub partition_count: u32,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// All settings with where they come from. Empty in a list.
    pub settings: Vec<Setting>,
    /// The partitions in order. Empty in a list.
    pub partitions: Vec<PartitionInfo>,
    /// Readable records.
    pub records: u64,
    /// Bytes in the object store.
    pub stored_bytes: u64,
}

/// A setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Kafka's name, such as `max.message.bytes`.
    pub name: String,
    /// The value in effect.
    pub value: String,
    /// Where it comes from.
    pub source: SettingSource,
}

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingSource {
    /// Nobody set it.
    Default,
    /// The topic sets it.
    Topic,
    /// This client does not know.
    Unknown,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Its place in the topic.
    pub index: PartitionIndex,
    /// The node that the placement prefers for it; `None` when it has none.
    pub home: Option<NodeId>,
    /// Counts the changes of home.
    pub epoch: Epoch,
    /// First readable offset.
    pub log_start: Offset,
    /// First offset that is not readable.
    pub high_watermark: Offset,
    /// Bytes in the object store.
    pub stored_bytes: u64,
    /// How many runs of batches it consists of.
    pub extents: u64,
    /// Append time of the newest record; `None` in an empty partition.
    pub last_append: Option<Timestamp>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Of the server's binary.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The cluster.
    pub cluster_id: String,
    /// The node.
    pub node: NodeId,
    /// Counts the node's starts.
    pub incarnation: u64,
    /// Up to where its metadata is.
    pub applied_index: u64,
    /// Hash of its metadata at that index, to compare nodes.
    pub state_hash: String,
}

/// What lies in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageSummary {
    /// The store, without secrets.
    pub url: String,
    /// The cluster whose objects they are.
    pub cluster_id: String,
    /// Objects by kind.
    pub classes: Vec<ObjectClass>,
    /// Objects that wait for their deletion.
    pub garbage_objects: u64,
}

/// A kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectClass {
    /// `wal`, `segment`, `snapshot`.
    pub name: String,
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its key in the store.
    pub key: String,
    /// Its bytes.
    pub length: u64,
    /// Its id.
    pub object_id: String,
    /// 0 for a WAL object, 1 and up for segments.
    pub level: u32,
    /// When it was written.
    pub created: Option<Timestamp>,
    /// What it holds.
    pub extents: Vec<ObjectExtent>,
    /// `referenced`, `garbage`, `orphan` or `in flight`.
    pub state: String,
}

/// A run of batches of one partition in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectExtent {
    /// The topic.
    pub topic_id: TopicId,
    /// The topic's name; empty when the topic is gone.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where in the object.
    pub position: u64,
    /// How many bytes.
    pub length: u64,
    /// How many records.
    pub records: u32,
    /// Checksum of the bytes.
    pub crc32c: u32,
    /// The parts of it that were committed.
    pub runs: Vec<CommittedRun>,
}

/// A committed part of an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedRun {
    /// First offset.
    pub base: Offset,
    /// One past the last offset.
    pub end: Offset,
    /// Where in the object.
    pub position: u64,
    /// How many bytes.
    pub length: u64,
}

/// How far a verification is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Objects looked at.
    pub objects_checked: u64,
    /// Objects to look at.
    pub objects_total: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Records whose checksums hold.
    pub records_checked: u64,
    /// Faults since the last message.
    pub faults: Vec<VerifyFault>,
    /// Objects that nothing references.
    pub orphans: u64,
    /// Objects that wait for their deletion.
    pub garbage: u64,
    /// True in the last message.
    pub done: bool,
}

/// Something that is not as metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyFault {
    /// The object.
    pub object_id: String,
    /// The topic whose records suffer; empty when none do.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offsets that suffer.
    pub offsets: std::ops::Range<Offset>,
    /// What is wrong.
    pub what: String,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepResult {
    /// Objects deleted that were never committed.
    pub orphans_deleted: u64,
    /// Objects deleted that nothing references any more.
    pub garbage_deleted: u64,
    /// Objects that must wait for their grace.
    pub waiting: u64,
}

/// How new an answer is. A read that presents it, on any node, sees everything that the answer knew of. Tokens of one
/// cluster are ordered: the larger one is newer and stands for the smaller one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReadToken(u64);

impl ReadToken {
    /// The token of this number, as another process got it from [`get`](Self::get). 0 is as new as nothing.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// Its number, to be handed to another process.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Milliseconds from a protobuf time, rounded down.
#[must_use]
pub fn timestamp(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    let millis = time.seconds.checked_mul(1_000)?.checked_add(i64::from(time.nanos / 1_000_000))?;
    Some(Timestamp::from_millis(millis))
}

/// The protobuf form of a time.
#[must_use]
pub fn proto_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).expect("less than a second");
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

impl From<v1::Topic> for TopicInfo {
    fn from(topic: v1::Topic) -> Self {
        Self {
            name: topic.name,
            id: TopicId::new(topic.id),
            partition_count: topic.partition_count,
            created: timestamp(topic.created),
            settings: topic.settings.into_iter().map(Setting::from).collect(),
            partitions: topic.partitions.into_iter().map(PartitionInfo::from).collect(),
            records: topic.records,
            stored_bytes: topic.stored_bytes,
        }
    }
}

impl From<v1::Setting> for Setting {
    fn from(setting: v1::Setting) -> Self {
        let source = match setting.source() {
            v1::SettingSource::Default => SettingSource::Default,
            v1::SettingSource::Topic => SettingSource::Topic,
            v1::SettingSource::Unspecified => SettingSource::Unknown,
        };
        Self { name: setting.name, value: setting.value, source }
    }
}

impl From<v1::Partition> for PartitionInfo {
    fn from(partition: v1::Partition) -> Self {
        Self {
            index: PartitionIndex::new(partition.index),
            home: cluster::node_id(partition.home_node),
            epoch: Epoch::new(partition.epoch),
            log_start: Offset::new(partition.log_start),
            high_watermark: Offset::new(partition.high_watermark),
            stored_bytes: partition.stored_bytes,
            extents: partition.extents,
            last_append: timestamp(partition.last_append),
        }
    }
}

impl From<v1::GetInfoResponse> for ServerInfo {
    fn from(info: v1::GetInfoResponse) -> Self {
        Self {
            version: info.version,
            commit: info.commit,
            cluster_id: info.cluster_id,
            node: NodeId::new(info.node_id),
            incarnation: info.incarnation,
            applied_index: info.applied_index,
            state_hash: info.state_hash,
        }
    }
}

impl From<v1::StorageSummaryResponse> for StorageSummary {
    fn from(summary: v1::StorageSummaryResponse) -> Self {
        let class = |class: v1::ObjectClass| ObjectClass {
            name: class.name,
            objects: class.objects,
            bytes: class.bytes,
        };
        Self {
            url: summary.url,
            cluster_id: summary.cluster_id,
            classes: summary.classes.into_iter().map(class).collect(),
            garbage_objects: summary.garbage_objects,
        }
    }
}

impl From<v1::InspectObjectResponse> for ObjectInfo {
    fn from(object: v1::InspectObjectResponse) -> Self {
        Self {
            key: object.key,
            length: object.length,
            object_id: object.object_id,
            level: object.level,
            created: timestamp(object.created),
            extents: object.extents.into_iter().map(ObjectExtent::from).collect(),
            state: object.state,
        }
    }
}

impl From<v1::ObjectExtent> for ObjectExtent {
    fn from(extent: v1::ObjectExtent) -> Self {
        let run = |run: v1::CommittedRun| CommittedRun {
            base: Offset::new(run.base_offset),
            end: Offset::new(run.end_offset),
            position: run.position,
            length: run.length,
        };
        Self {
            topic_id: TopicId::new(extent.topic_id),
            topic: extent.topic,
            partition: PartitionIndex::new(extent.partition),
            position: extent.position,
            length: extent.length,
            records: extent.records,
            crc32c: extent.crc32c,
            runs: extent.runs.into_iter().map(run).collect(),
        }
    }
}

impl From<v1::VerifyResponse> for VerifyProgress {
    fn from(progress: v1::VerifyResponse) -> Self {
        let fault = |fault: v1::VerifyFault| VerifyFault {
            object_id: fault.object_id,
            topic: fault.topic,
            partition: PartitionIndex::new(fault.partition),
            offsets: Offset::new(fault.base_offset)..Offset::new(fault.end_offset),
            what: fault.what,
        };
        Self {
            objects_checked: progress.objects_checked,
            objects_total: progress.objects_total,
            bytes_read: progress.bytes_read,
            records_checked: progress.records_checked,
            faults: progress.faults.into_iter().map(fault).collect(),
            orphans: progress.orphans,
            garbage: progress.garbage,
            done: progress.done,
        }
    }
}

impl From<v1::SweepResponse> for SweepResult {
    fn from(sweep: v1::SweepResponse) -> Self {
        Self {
            orphans_deleted: sweep.orphans_deleted,
            garbage_deleted: sweep.garbage_deleted,
            waiting: sweep.waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_cross_the_wire_to_the_millisecond() {
        for millis in [0, 1, -1, 1_700_000_000_123, -62_000] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(timestamp(Some(proto_timestamp(time))), Some(time));
        }
    }
}
