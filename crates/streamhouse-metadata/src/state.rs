//! The state and the way in: [`State::apply`].

use std::collections::BTreeMap;
use std::sync::Arc;

use streamhouse_types::{
    ClusterId, Incarnation, Lane, LogIndex, NodeId, ObjectId, Offset, PartitionId, Timestamp, TopicId,
    TopicName,
};

use crate::{Command, GarbageEntry, LaneEntry, NodeEntry, ObjectEntry, Outcome, Partition, Refusal, Topic};

/// What one command answered and changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer for the proposer.
    pub outcome: Outcome,
    /// What others on this node wait for.
    pub changes: Changes,
}

/// What a command changed, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Partitions that got records, each once, with their new high watermarks.
    pub appended: Vec<(PartitionId, Offset)>,
    /// Partitions whose log start moved.
    pub trimmed: Vec<PartitionId>,
    /// Partitions that are gone (their topic was deleted).
    pub deleted: Vec<PartitionId>,
    /// Partitions whose home moved.
    pub moved: Vec<PartitionId>,
    /// A topic was made, altered or deleted, or got partitions.
    pub topics_changed: bool,
    /// A node registered or was closed.
    pub nodes_changed: bool,
    /// The garbage list grew.
    pub garbage_added: bool,
}

/// The whole metadata of a cluster. A clone is cheap and serves as a snapshot: it shares what neither side changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    applied: LogIndex,
    cluster: Option<ClusterId>,
    time: Timestamp,
    topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    names: Arc<BTreeMap<TopicName, TopicId>>,
    nodes: BTreeMap<NodeId, Arc<NodeEntry>>,
    objects: BTreeMap<ObjectId, ObjectEntry>,
    garbage: Arc<BTreeMap<ObjectId, GarbageEntry>>,
}

impl State {
    /// Nothing applied yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one committed command. Reads no clock and no random source, so every replica that applies the same
    /// log reaches the same state.
    ///
    /// # Panics
    /// When `index` is not above [`Self::applied`], or an invariant is broken: a node that disagrees must not go on.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Applied {
        self.skip_to(index);
        let _ = command;
        Applied { outcome: Outcome::Refused(Refusal::NotBootstrapped), changes: Changes::default() }
    }

    /// Notes that the log went on to `index` by entries that carry no command.
    ///
    /// # Panics
    /// When `index` is not above [`Self::applied`].
    pub fn skip_to(&mut self, index: LogIndex) {
        assert!(index > self.applied, "log index {index} applied after {}", self.applied);
        self.applied = index;
    }

    /// The index of the last command applied; 0 when none was.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// A digest of the whole state, equal on replicas that applied the same log. Costs as much as a snapshot.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.applied.get()
    }

    /// The cluster's identity, once bootstrapped.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Cluster time: the leader's ticks, monotone.
    #[must_use]
    pub fn cluster_time(&self) -> Timestamp {
        self.time
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic_by_name(&self, name: &TopicName) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topic(*id))
    }

    /// The topic of this id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id).map(|topic| &**topic)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().filter_map(|id| self.topic(*id))
    }

    /// All topics whose names come after `after`, by name (for paging).
    pub fn topics_after(&self, after: &TopicName) -> impl Iterator<Item = &Topic> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.names.range((Excluded(after.clone()), Unbounded)).filter_map(|(_, id)| self.topic(*id))
    }

    /// A partition.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        let index = usize::try_from(id.index.get()).ok()?;
        self.topic(id.topic)?.partitions.get(index).map(|partition| &**partition)
    }

    /// All partitions, by id.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.topics.values().flat_map(|topic| topic.partitions())
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.nodes.get(&id).map(|node| &**node)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeEntry> {
        self.nodes.values().map(|node| &**node)
    }

    /// A lane of an open incarnation; `None` when the incarnation is closed or never was.
    #[must_use]
    pub fn lane(&self, node: NodeId, incarnation: Incarnation, lane: Lane) -> Option<&LaneEntry> {
        self.node(node).filter(|node| node.incarnation() == incarnation)?.lane(lane)
    }

    /// An object that extents refer to.
    #[must_use]
    pub fn object(&self, id: &ObjectId) -> Option<&ObjectEntry> {
        self.objects.get(id)
    }

    /// All objects that extents refer to, by id.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &ObjectEntry)> {
        self.objects.iter().map(|(id, entry)| (*id, entry))
    }

    /// The garbage list, by id.
    pub fn garbage(&self) -> impl Iterator<Item = (ObjectId, &GarbageEntry)> {
        self.garbage.iter().map(|(id, entry)| (*id, entry))
    }

    /// Whether the object, found in the store, was never committed and never can be: neither referenced nor on the
    /// garbage list, and its incarnation is closed, its slot below its lane's `lo`, or its slot decided by another
    /// attempt. Such an object may be deleted at once.
    #[must_use]
    pub fn is_orphan(&self, _id: &ObjectId) -> bool {
        false
    }
}
