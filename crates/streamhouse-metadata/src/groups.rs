//! Consumer groups: who is in them, who may change them, and how far they have read.

mod apply;
mod changes;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{Epoch, GroupId, Incarnation, NodeId, Offset, PartitionId, Timestamp, TopicId};

use crate::state::State;

pub use changes::{ChangeGroups, Committer, GroupChange, GroupVerdict, OffsetCommit};

/// Largest encoded record of a group's members, in bytes.
pub const GROUP_RECORD_BYTES_MAX: usize = 4 << 20;

/// Longest note that a consumer leaves with an offset, in bytes (Kafka's `offset.metadata.max.bytes`).
pub const OFFSET_METADATA_BYTES_MAX: usize = 4_096;

/// Memory for all groups together: five million offsets of short notes. What would take more is refused.
pub(crate) const GROUPS_BYTES_MAX: u64 = 512 << 20;

/// What a group, a member, a protocol of a member and an offset take in memory apart from their texts and bytes,
/// rounded up.
const GROUP_BYTES: u64 = 512;
const MEMBER_BYTES: u64 = 256;
const PROTOCOL_BYTES: u64 = 64;
const OFFSET_BYTES: u64 = 96;

/// What the members of a group agreed on. The coordinator decides it, the metadata keep it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// What the group is for, "consumer" mostly; empty before the first member.
    pub protocol_type: String,
    /// Counts rebalances. Never goes back while the group exists, and is at most `i32::MAX`.
    pub generation: u32,
    /// How far the generation has come.
    pub phase: GroupPhase,
    /// The protocol that all members know and that was chosen, such as "range".
    pub protocol: Option<String>,
    /// The member that assigns; one of `members`, `None` when there are none.
    pub leader: Option<String>,
    /// The members, each id once.
    pub members: Vec<MemberRecord>,
}

/// How far the newest generation of a group has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupPhase {
    /// There are no members.
    #[default]
    Empty,
    /// The members are known, the leader's assignment is not.
    Completing,
    /// Each member has its assignment.
    Stable,
}

/// One member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its id, given by a coordinator.
    pub id: String,
    /// The name under which a static member comes back.
    pub instance: Option<String>,
    /// How its client calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: u32,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_timeout_ms: u32,
    /// The protocols it knows, most wanted first, each with its metadata.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// What the leader assigned to it; empty until then.
    pub assignment: Vec<u8>,
}

impl MemberRecord {
    fn bytes(&self) -> u64 {
        let protocol =
            |(name, metadata): &(String, Vec<u8>)| PROTOCOL_BYTES + (name.len() + metadata.len()) as u64;
        let texts = self.id.len() + self.instance.as_ref().map_or(0, String::len);
        let texts = texts + self.client.len() + self.host.len() + self.assignment.len();
        MEMBER_BYTES + texts as u64 + self.protocols.iter().map(protocol).sum::<u64>()
    }
}

impl GroupRecord {
    /// A member, by its id.
    #[must_use]
    pub fn member(&self, id: &str) -> Option<&MemberRecord> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether the parts fit each other: each member once, a leader among them, a phase that members can be in.
    pub(crate) fn is_whole(&self) -> bool {
        let mut ids: Vec<&str> = self.members.iter().map(|member| member.id.as_str()).collect();
        ids.sort_unstable();
        let unique = ids.windows(2).all(|pair| pair[0] != pair[1]);
        let led = match &self.leader {
            Some(leader) => ids.binary_search(&leader.as_str()).is_ok(),
            None => ids.is_empty(),
        };
        let phased = (self.phase == GroupPhase::Empty) == ids.is_empty();
        unique && led && phased && i32::try_from(self.generation).is_ok()
    }

    /// What it takes in the log and in a snapshot.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let size = postcard::ser_flavors::Size::default();
        postcard::serialize_with_flavor(self, size).expect("a record is plain data")
    }

    /// What it takes in memory, roughly.
    fn bytes(&self) -> u64 {
        let texts = [Some(&self.protocol_type), self.protocol.as_ref(), self.leader.as_ref()];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        texts as u64 + self.members.iter().map(MemberRecord::bytes).sum::<u64>()
    }
}

/// How far a group has read a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: Offset,
    /// The epoch of the last record that was read, when the consumer said so.
    pub epoch: Option<Epoch>,
    /// What the consumer noted with it; `None` is not "".
    pub metadata: Option<String>,
    /// Cluster time of the commit.
    pub committed: Timestamp,
}

impl CommittedOffset {
    fn bytes(&self) -> u64 {
        offset_bytes(self.metadata.as_deref())
    }
}

fn offset_bytes(metadata: Option<&str>) -> u64 {
    OFFSET_BYTES + metadata.map_or(0, str::len) as u64
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    pub(crate) owner: Option<(NodeId, Incarnation)>,
    pub(crate) record: Arc<GroupRecord>,
    pub(crate) since: Timestamp,
    pub(crate) offsets: Arc<BTreeMap<PartitionId, CommittedOffset>>,
}

impl GroupEntry {
    fn new(since: Timestamp) -> Self {
        Self { owner: None, record: Arc::default(), since, offsets: Arc::default() }
    }

    /// The node, in its incarnation, that alone may change the group; `None` before the first claim.
    #[must_use]
    pub fn owner(&self) -> Option<(NodeId, Incarnation)> {
        self.owner
    }

    /// Its members and what they agreed on.
    #[must_use]
    pub fn record(&self) -> &Arc<GroupRecord> {
        &self.record
    }

    /// Cluster time when the last member went, or when the group was made.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Whether there are members.
    #[must_use]
    pub fn has_members(&self) -> bool {
        !self.record.members.is_empty()
    }

    /// How far the group has read a partition.
    #[must_use]
    pub fn offset(&self, partition: PartitionId) -> Option<&CommittedOffset> {
        self.offsets.get(&partition)
    }

    /// How far the group has read each partition, by partition.
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = (PartitionId, &CommittedOffset)> {
        self.offsets.iter().map(|(partition, offset)| (*partition, offset))
    }

    /// Whether an offset, or the group itself, is older than `cutoff` and nobody is there to need it.
    #[must_use]
    pub fn has_expired(&self, cutoff: Timestamp) -> bool {
        let unused = !self.has_members() && self.since < cutoff;
        unused && (self.offsets.is_empty() || self.offsets.values().any(|offset| offset.committed < cutoff))
    }

    /// What it takes in memory, roughly.
    fn bytes(&self) -> u64 {
        self.record.bytes() + self.offsets.values().map(CommittedOffset::bytes).sum::<u64>()
    }

    /// Forgets the offsets for which `forget` holds; says how much memory they took. Copies nothing when there are none.
    fn forget_offsets(&mut self, forget: impl Fn(PartitionId, &CommittedOffset) -> bool) -> u64 {
        if !self.offsets().any(|(partition, offset)| forget(partition, offset)) {
            return 0;
        }
        let mut freed = 0;
        Arc::make_mut(&mut self.offsets).retain(|partition, offset| {
            let gone = forget(*partition, offset);
            freed += if gone { offset.bytes() } else { 0 };
            !gone
        });
        freed
    }
}

/// What was answered last to an incarnation that changes groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Writer {
    pub(crate) incarnation: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) verdicts: Arc<[GroupVerdict]>,
}

/// All groups, and who changes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    pub(crate) by_id: Arc<BTreeMap<GroupId, Arc<GroupEntry>>>,
    /// Of open incarnations only.
    pub(crate) writers: BTreeMap<NodeId, Writer>,
    /// What the groups take in memory; derived.
    #[serde(skip)]
    pub(crate) bytes: u64,
}

impl Groups {
    /// Whether there is no group, and nobody who changes any.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.writers.is_empty()
    }

    /// What the groups take in memory, counted anew.
    pub(crate) fn count_bytes(&self) -> u64 {
        let group = |(id, entry): (&GroupId, &Arc<GroupEntry>)| group_bytes(id) + entry.bytes();
        self.by_id.iter().map(group).sum()
    }

    /// An incarnation was closed: it changes no group any more.
    pub(crate) fn writer_closed(&mut self, node: NodeId) {
        self.writers.remove(&node);
    }

    /// A topic was deleted, so nobody has read of it.
    pub(crate) fn topic_deleted(&mut self, topic: TopicId) {
        let read = |entry: &GroupEntry| entry.offsets().any(|(partition, _)| partition.topic == topic);
        self.change_where(read, |entry| entry.forget_offsets(|partition, _| partition.topic == topic));
    }

    /// Changes the groups for which `affects` holds; `change` says how much memory it freed. Copies no other group.
    fn change_where(
        &mut self,
        affects: impl Fn(&GroupEntry) -> bool,
        change: impl Fn(&mut GroupEntry) -> u64,
    ) {
        if !self.by_id.values().any(|entry| affects(entry)) {
            return;
        }
        for entry in Arc::make_mut(&mut self.by_id).values_mut().filter(|entry| affects(entry)) {
            self.bytes -= change(Arc::make_mut(entry));
        }
    }
}

fn group_bytes(id: &GroupId) -> u64 {
    GROUP_BYTES + id.as_str().len() as u64
}

impl State {
    /// A consumer group.
    #[must_use]
    pub fn group(&self, id: &GroupId) -> Option<&GroupEntry> {
        self.groups.by_id.get(id).map(|entry| &**entry)
    }

    /// All consumer groups, by id.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&GroupId, &GroupEntry)> {
        self.groups.by_id.iter().map(|(id, entry)| (id, &**entry))
    }
}
