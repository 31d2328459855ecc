//! The state and the way in: [`State::apply`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{
    ClusterId, Incarnation, Lane, LogIndex, NodeId, ObjectId, Offset, PartitionId, Timestamp, TopicId,
    TopicName,
};

use crate::fleet::Fleet;
use crate::groups::Groups;
use crate::homes::HomeCounts;
use crate::objects::{Moment, Objects};
use crate::producers::Grants;
use crate::requests::Requests;
use crate::topics::Intent;
use crate::{
    Command, FeatureLevel, GarbageEntry, LaneEntry, MemberRefusal, NodeEntry, ObjectEntry, Outcome,
    Partition, Refusal, RequestId, Topic, codec,
};

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
    /// Partitions that got records, each once and by id, with their new high watermarks.
    pub appended: Vec<(PartitionId, Offset)>,
    /// Partitions whose log start moved.
    pub trimmed: Vec<PartitionId>,
    /// Partitions that are gone (their topic was deleted).
    pub deleted: Vec<PartitionId>,
    /// Partitions whose home moved.
    pub moved: Vec<PartitionId>,
    /// A topic was made, altered or deleted, or got partitions.
    pub topics_changed: bool,
    /// A node registered or was closed, a member or what is wanted of them changed.
    pub nodes_changed: bool,
    /// The garbage list grew.
    pub garbage_added: bool,
}

impl Changes {
    /// Leaves one entry per partition, the newest.
    pub(crate) fn settle_appended(&mut self) {
        self.appended.sort_unstable_by_key(|(id, high_watermark)| (*id, std::cmp::Reverse(*high_watermark)));
        self.appended.dedup_by_key(|(id, _)| *id);
    }
}

/// The whole metadata of a cluster. A clone is cheap and serves as a snapshot: it shares what neither side changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub(crate) applied: LogIndex,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) time: Timestamp,
    pub(crate) topic_next: TopicId,
    pub(crate) topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<NodeEntry>>,
    pub(crate) objects: Objects,
    pub(crate) grants: Grants,
    pub(crate) requests: Requests,
    /// The stamp of the next append: counts the rows ever appended.
    pub(crate) append_next: u64,
    /// Since version 2 of the snapshot.
    pub(crate) fleet: Fleet,
    /// Since version 3 of the snapshot, which writes it after what is above.
    #[serde(skip)]
    pub(crate) groups: Groups,
    /// From here on: derived from the above.
    #[serde(skip)]
    pub(crate) names: Arc<BTreeMap<TopicName, TopicId>>,
    #[serde(skip)]
    pub(crate) partition_count: u64,
    /// What the producers of all partitions take in memory.
    #[serde(skip)]
    pub(crate) producer_bytes: u64,
    /// How many partitions have their home at each node; without those that have none.
    #[serde(skip)]
    pub(crate) home_counts: HomeCounts,
}

impl Default for State {
    fn default() -> Self {
        Self {
            applied: LogIndex::ZERO,
            cluster: None,
            time: Timestamp::default(),
            topic_next: TopicId::new(1),
            topics: Arc::default(),
            nodes: BTreeMap::new(),
            objects: Objects::default(),
            grants: Grants::default(),
            requests: Requests::default(),
            append_next: 0,
            fleet: Fleet::default(),
            groups: Groups::default(),
            names: Arc::default(),
            partition_count: 0,
            producer_bytes: 0,
            home_counts: HomeCounts::default(),
        }
    }
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
        let mut changes = Changes::default();
        let outcome = match command.request() {
            Some(request) => self.answer_once(&request, command, &mut changes),
            None => self.carry_out(command, &mut changes),
        };
        Applied { outcome, changes }
    }

    /// Carries a request out, unless it was: then its first answer stands.
    fn answer_once(&mut self, request: &RequestId, command: &Command, changes: &mut Changes) -> Outcome {
        if self.cluster.is_none() {
            return Outcome::Refused(Refusal::NotBootstrapped);
        }
        if let Some(outcome) = self.requests.answer(request, command) {
            return outcome;
        }
        let outcome = self.carry_out(command, changes);
        self.requests.remember(*request, command, self.applied, &outcome);
        outcome
    }

    fn carry_out(&mut self, command: &Command, changes: &mut Changes) -> Outcome {
        let at = Moment { index: self.applied, time: self.time };
        match command {
            Command::Bootstrap { cluster, now } => self.bootstrap(*cluster, *now),
            _ if self.cluster.is_none() => Outcome::Refused(Refusal::NotBootstrapped),
            _ if command.level() > self.feature_level() => {
                let (needed, level) = (command.level(), self.feature_level());
                Outcome::MemberRefused(MemberRefusal::LevelTooLow { needed, level })
            }
            Command::RegisterNode(register) => self.register_node(register, changes),
            Command::CloseIncarnation { node, incarnation } => {
                self.close_incarnation(*node, *incarnation, changes)
            }
            Command::Tick { now } => self.tick(*now),
            Command::CommitObject(commit) => self.commit_object(commit, at, changes),
            Command::AdvanceLo { slot } => self.advance_lo(slot),
            Command::CreateTopic(create) => self.create_topic(create, changes),
            // Commands that every release can read are judged as by the first that could.
            Command::AlterTopic { topic, changes: edits, validate_only, .. } => {
                let level = self.feature_level().min(FeatureLevel::KEPT_SETTINGS);
                self.alter_topic(*topic, (edits, level), Intent::from(*validate_only), changes)
            }
            Command::AlterTopicAt { level, topic, changes: edits, validate_only, .. } => {
                self.alter_topic(*topic, (edits, *level), Intent::from(*validate_only), changes)
            }
            Command::EditTopic { level, topic, edits, validate_only, .. } => {
                self.edit_topic(*topic, (edits, *level), Intent::from(*validate_only), changes)
            }
            Command::DeleteTopic { topic, validate_only, .. } => {
                self.delete_topic(*topic, Intent::from(*validate_only), at, changes)
            }
            Command::AddPartitions { topic, total, validate_only, .. } => {
                self.add_partitions(*topic, *total, Intent::from(*validate_only), changes)
            }
            Command::MoveHome { partition, home, incarnation } => {
                self.move_home(*partition, *home, *incarnation, changes)
            }
            Command::TrimPartition(trim) => self.trim_partition(trim, at, changes),
            Command::ForgetObjects(forget) => {
                self.objects.forget(&forget.objects);
                Outcome::Done
            }
            Command::GrantProducerIds { node, incarnation, count, window } => {
                self.grant_producer_ids(*node, *incarnation, *count, *window)
            }
            Command::ExpireProducers { cutoff } => self.expire_producers(*cutoff),
            Command::AdmitNode { node, directory, features, version } => {
                self.admit_node(*node, *directory, *features, version, changes)
            }
            Command::JudgeNode { node, incarnation, liveness } => {
                self.judge_node(*node, *incarnation, *liveness, changes)
            }
            Command::SetDrain { node, drain, .. } => self.set_drain(*node, *drain, changes),
            Command::RemoveNode { node, .. } => self.remove_node(*node, changes),
            Command::MoveHomes { moves } => self.move_homes(moves, changes),
            Command::SetWantedVoters { voters, .. } => self.set_wanted_voters(*voters, changes),
            Command::RaiseFeatureLevel { level } => self.raise_feature_level(*level, changes),
            Command::ChangeGroups(change) => self.change_groups(change),
            Command::DeleteGroup { group, .. } => self.delete_group(group),
            Command::SeekGroup { group, offsets, validate_only, .. } => {
                self.seek_group(group, offsets, Intent::from(*validate_only))
            }
            Command::ExpireGroups { cutoff } => self.expire_groups(*cutoff),
            Command::CreateTopicWith { create, kept } => {
                self.create_topic_with(create, (kept, FeatureLevel::KEPT_SETTINGS), changes)
            }
            Command::CreateTopicAt { level, create, kept } => {
                self.create_topic_with(create, (kept, *level), changes)
            }
        }
    }

    /// Notes that the log went on to `index` by entries that carry no command.
    ///
    /// # Panics
    /// When `index` is not above [`Self::applied`].
    pub fn skip_to(&mut self, index: LogIndex) {
        assert!(index > self.applied, "log index {index} applied after {}", self.applied);
        self.applied = index;
    }

    /// Fills in what is derived, after a snapshot was read.
    pub(crate) fn derive(&mut self) {
        let names = self.topics.values().map(|topic| (topic.name().clone(), topic.id())).collect();
        self.names = Arc::new(names);
        self.partition_count = self.topics.values().map(|topic| topic.partitions().len() as u64).sum();
        let bytes = self.partitions().map(|partition| partition.producer_table().bytes());
        self.producer_bytes = bytes.sum();
        self.home_counts = HomeCounts::of(self.partitions());
        self.groups.bytes = self.groups.count_bytes();
    }

    /// The index of the last command applied; 0 when none was.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// A digest of the whole state, equal on replicas that applied the same log. Costs as much as a snapshot.
    #[must_use]
    pub fn hash(&self) -> u64 {
        codec::digest(self)
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
        self.topic(id.topic)?.partition(id.index)
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
        self.objects.live(id)
    }

    /// All objects that extents refer to, by id.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectId, &ObjectEntry)> {
        self.objects.iter_live()
    }

    /// The garbage list, by id.
    pub fn garbage(&self) -> impl Iterator<Item = (ObjectId, &GarbageEntry)> {
        self.objects.iter_garbage()
    }

    /// Whether the object, found in the store, was never committed and never can be: neither referenced nor on the
    /// garbage list, and its incarnation is closed, its slot below its lane's `lo`, or its slot decided by another
    /// attempt. Such an object may be deleted at once.
    ///
    /// Holds on any replica, however far behind: what this state rules out, no later state allows.
    #[must_use]
    pub fn is_orphan(&self, id: &ObjectId) -> bool {
        if self.objects.live(id).is_some() || self.objects.is_garbage(id) {
            return false;
        }
        let slot = id.slot;
        let Some(node) = self.node(slot.node) else {
            // It may register later.
            return false;
        };
        if node.has_closed(slot.incarnation) {
            return true;
        }
        let lost = |lane: &LaneEntry| {
            slot.sequence < lane.lo()
                || lane.decision(slot.sequence).is_some_and(|won| won.attempt != id.attempt)
        };
        self.lane(slot.node, slot.incarnation, slot.lane).is_some_and(lost)
    }
}

impl Command {
    /// The request id of a command that is answered once and must then be remembered.
    fn request(&self) -> Option<RequestId> {
        match self {
            Self::RegisterNode(register) => Some(register.request),
            Self::CreateTopic(create)
            | Self::CreateTopicWith { create, .. }
            | Self::CreateTopicAt { create, .. }
                if !create.validate_only =>
            {
                Some(create.request)
            }
            Self::AlterTopic { request, validate_only: false, .. }
            | Self::AlterTopicAt { request, validate_only: false, .. }
            | Self::EditTopic { request, validate_only: false, .. }
            | Self::DeleteTopic { request, validate_only: false, .. }
            | Self::AddPartitions { request, validate_only: false, .. }
            | Self::SetDrain { request, .. }
            | Self::RemoveNode { request, .. }
            | Self::SetWantedVoters { request, .. }
            | Self::DeleteGroup { request, .. }
            | Self::SeekGroup { request, validate_only: false, .. } => Some(*request),
            _ => None,
        }
    }

    /// The feature level from which on this may be proposed.
    fn level(&self) -> FeatureLevel {
        match self {
            Self::ChangeGroups(_)
            | Self::DeleteGroup { .. }
            | Self::SeekGroup { .. }
            | Self::ExpireGroups { .. } => FeatureLevel::GROUPS,
            Self::CreateTopicWith { .. } => FeatureLevel::KEPT_SETTINGS,
            Self::CreateTopicAt { level, .. } | Self::AlterTopicAt { level, .. } => {
                (*level).max(FeatureLevel::MORE_SETTINGS)
            }
            Self::EditTopic { level, .. } => (*level).max(FeatureLevel::EDITED_SETTINGS),
            _ => FeatureLevel::FIRST,
        }
    }
}
