//! Topics and their partitions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{NodeId, ObjectId, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};

use crate::objects::Moment;
use crate::producers::ProducerEntry;
use crate::state::{Changes, State};
use crate::{
    CreateTopic, FeatureLevel, Outcome, Partition, Refusal, SettingEdits, TopicSettings, TrimPartition,
    placement,
};

/// Most partitions of one topic.
const TOPIC_PARTITIONS_MAX: u32 = 10_000;

/// Most partitions of all topics together. As each topic has one at least, it bounds the topics and names too.
pub(crate) const CLUSTER_PARTITIONS_MAX: u64 = 100_000;

/// A topic with its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    id: TopicId,
    name: TopicName,
    settings: TopicSettings,
    created: Timestamp,
    /// By index.
    partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// Its id; never reused, also when the name is.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Cluster time when it was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("a topic has at most 10,000 partitions")
    }

    /// Its partitions, by index.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Partition> {
        self.partitions.iter().map(|partition| &**partition)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.get()).ok()?).map(|partition| &**partition)
    }

    pub(crate) fn partition_mut(&mut self, index: PartitionIndex) -> Option<&mut Partition> {
        self.partitions.get_mut(usize::try_from(index.get()).ok()?).map(Arc::make_mut)
    }

    /// Adds a partition for each home.
    fn grow(&mut self, homes: &[NodeId]) {
        for (index, home) in (self.partition_count()..).zip(homes) {
            let id = PartitionId::new(self.id, PartitionIndex::new(index));
            self.partitions.push(Arc::new(Partition::new(id, *home)));
        }
    }
}

impl State {
    pub(crate) fn create_topic(&mut self, create: &CreateTopic, changes: &mut Changes) -> Outcome {
        let homes = match self.judge_creation(create) {
            Ok(homes) => homes,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let id = self.topic_next;
        if create.validate_only {
            return Outcome::TopicCreated { topic: id };
        }
        let settings = create.settings.clone();
        let (name, created) = (create.name.clone(), self.cluster_time());
        let mut topic = Topic { id, name, settings, created, partitions: Vec::new() };
        topic.grow(&homes);
        homes.iter().for_each(|home| self.home_counts.put(*home));
        self.topic_next = id.next();
        self.partition_count += u64::from(create.partitions);
        Arc::make_mut(&mut self.topics).insert(id, Arc::new(topic));
        Arc::make_mut(&mut self.names).insert(create.name.clone(), id);
        changes.topics_changed = true;
        Outcome::TopicCreated { topic: id }
    }

    /// Makes a topic with settings that `create` has no place for.
    pub(crate) fn create_topic_with(
        &mut self,
        create: &CreateTopic,
        (kept, level): (&[(String, String)], FeatureLevel),
        changes: &mut Changes,
    ) -> Outcome {
        let mut create = create.clone();
        for (name, value) in kept {
            if let Err(error) = create.settings.set_at(level, name, Some(value)) {
                return Outcome::Refused(error.into());
            }
        }
        self.create_topic(&create, changes)
    }

    /// Puts back settings that are written apart from their topic; `false` when they cannot be had.
    pub(crate) fn restore_settings(&mut self, topic: TopicId, kept: &[(String, String)]) -> bool {
        let Some(topic) = self.topic_mut(topic) else { return false };
        kept.iter().all(|(name, value)| topic.settings.set(name, Some(value)).is_ok())
    }

    /// The homes of the partitions, when the topic can be made.
    fn judge_creation(&self, create: &CreateTopic) -> Result<Vec<NodeId>, Refusal> {
        if let Some(topic) = self.names.get(&create.name) {
            return Err(Refusal::TopicExists { topic: *topic });
        }
        create.settings.check()?;
        self.judge_growth(self.topic_next, 0, create.partitions)
    }

    /// The homes of the new partitions, when a topic can grow from `current` partitions to `wanted`.
    fn judge_growth(&self, topic: TopicId, current: u32, wanted: u32) -> Result<Vec<NodeId>, Refusal> {
        if wanted <= current || wanted > TOPIC_PARTITIONS_MAX {
            return Err(Refusal::PartitionCount { wanted, current });
        }
        if self.partition_count + u64::from(wanted - current) > CLUSTER_PARTITIONS_MAX {
            return Err(Refusal::Limit { what: "partitions".into(), limit: CLUSTER_PARTITIONS_MAX });
        }
        placement::homes_of_new(self, topic, wanted - current).ok_or(Refusal::NoLiveNode)
    }

    /// Judges the change, and makes it when `commit` is set.
    pub(crate) fn alter_topic(
        &mut self,
        topic: TopicId,
        (edits, level): (&[(String, Option<String>)], FeatureLevel),
        intent: Intent,
        changes: &mut Changes,
    ) -> Outcome {
        let Some(current) = self.topics.get(&topic) else {
            return Outcome::Refused(Refusal::UnknownTopic);
        };
        let mut settings = current.settings.clone();
        for (name, value) in edits {
            if let Err(error) = settings.set_at(level, name, value.as_deref()) {
                return Outcome::Refused(error.into());
            }
        }
        if intent == Intent::Change {
            self.topic_mut(topic).expect("the topic was found above").settings = settings;
            changes.topics_changed = true;
        }
        Outcome::Done
    }

    /// The same, going by what is set now.
    pub(crate) fn edit_topic(
        &mut self,
        topic: TopicId,
        (edits, level): (&SettingEdits, FeatureLevel),
        intent: Intent,
        changes: &mut Changes,
    ) -> Outcome {
        let Some(current) = self.topics.get(&topic) else {
            return Outcome::Refused(Refusal::UnknownTopic);
        };
        match edits.resolve(current.settings()) {
            Ok(resolved) => self.alter_topic(topic, (&resolved, level), intent, changes),
            Err(error) => Outcome::Refused(error.into()),
        }
    }

    pub(crate) fn delete_topic(
        &mut self,
        topic: TopicId,
        intent: Intent,
        at: Moment,
        changes: &mut Changes,
    ) -> Outcome {
        if !self.topics.contains_key(&topic) {
            return Outcome::Refused(Refusal::UnknownTopic);
        }
        if intent == Intent::Check {
            return Outcome::Done;
        }
        let gone = Arc::make_mut(&mut self.topics).remove(&topic).expect("the topic was found above");
        Arc::make_mut(&mut self.names).remove(&gone.name);
        self.partition_count -= u64::from(gone.partition_count());
        for partition in gone.partitions() {
            self.producer_bytes -= partition.producer_table().bytes();
            for extent in partition.extents_from(partition.log_start()) {
                changes.garbage_added |= self.objects.release(&extent.object, at);
            }
            self.home_counts.take(partition.home());
            changes.deleted.push(partition.id());
        }
        self.groups.topic_deleted(topic);
        changes.topics_changed = true;
        Outcome::Done
    }

    pub(crate) fn add_partitions(
        &mut self,
        topic: TopicId,
        total: u32,
        intent: Intent,
        changes: &mut Changes,
    ) -> Outcome {
        let Some(current) = self.topics.get(&topic).map(|topic| topic.partition_count()) else {
            return Outcome::Refused(Refusal::UnknownTopic);
        };
        let homes = match self.judge_growth(topic, current, total) {
            Ok(homes) => homes,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if intent == Intent::Change {
            self.topic_mut(topic).expect("the topic was found above").grow(&homes);
            homes.iter().for_each(|home| self.home_counts.put(*home));
            self.partition_count += u64::from(total - current);
            changes.topics_changed = true;
        }
        Outcome::Done
    }

    pub(crate) fn trim_partition(
        &mut self,
        trim: &TrimPartition,
        at: Moment,
        changes: &mut Changes,
    ) -> Outcome {
        let Some(partition) = self.partition_mut(trim.partition) else {
            return Outcome::Refused(Refusal::UnknownPartition);
        };
        let before = partition.log_start();
        let mut released: Vec<ObjectId> = Vec::new();
        let log_start = partition.trim(trim.before, |object| released.push(object));
        for object in &released {
            changes.garbage_added |= self.objects.release(object, at);
        }
        if log_start > before {
            changes.trimmed.push(trim.partition);
        }
        Outcome::Trimmed { log_start }
    }

    /// Forgets the producers for which `forget` holds. Copies no partition that has none of them.
    pub(crate) fn forget_producers(&mut self, forget: impl Fn(&ProducerEntry) -> bool) {
        let hit = |partition: &&Partition| partition.producer_table().any(&forget);
        let ids: Vec<PartitionId> = self.partitions().filter(hit).map(Partition::id).collect();
        for id in ids {
            let table = self.partition_mut(id).expect("the partition was found").producer_table_mut();
            let before = table.bytes();
            table.forget(&forget);
            let after = table.bytes();
            self.producer_bytes -= before - after;
        }
    }

    fn topic_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        Arc::make_mut(&mut self.topics).get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn partition_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.topic_mut(id.topic)?.partition_mut(id.index)
    }
}

/// Whether a request is to be carried out or only judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Change,
    Check,
}

impl From<bool> for Intent {
    fn from(validate_only: bool) -> Self {
        if validate_only { Self::Check } else { Self::Change }
    }
}
