//! How far groups have read: committed, looked up, deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{CommittedOffset, OffsetCommit};
use streamhouse_groups::{CommitRequest, OffsetRefusal};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Epoch, Offset, PartitionId, TopicId};

use super::groups::{code_of, member, owned, parse_group};
use super::{AT_ONCE, Caller, answer, partition, text, wire_offset};
use crate::codec::{DecodeError, TopicRef};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// What clients commit that begin at the earliest record, whichever it is by then; KafkaJS resets groups so. It is stored as
/// offset 0 with an epoch that no Kafka client can name: whoever does not know of it begins there.
const EARLIEST: i64 = -2;
const EARLIEST_EPOCH: Epoch = Epoch::new(u32::MAX);

/// A partition that a request names, as far as it is known; `None` where no topic has this name.
type Named = Option<PartitionId>;

impl Kafka {
    /// The topics of these names. Only metadata known to be current say that there is none.
    async fn topics_of<'a>(
        &self,
        names: impl Iterator<Item = &'a KafkaString>,
    ) -> Result<BTreeMap<String, Option<TopicId>>, Code> {
        let mut topics = BTreeMap::new();
        for name in names {
            if topics.contains_key(name.as_str()) {
                continue;
            }
            let found = match self.find(&TopicRef::Name(name.to_string())).await {
                Ok(found) => Some(found.id),
                Err(code) if code == ErrorCode::MetadataUnavailable.into() => {
                    return Err(ErrorCode::CoordinatorUnavailable.into());
                }
                Err(_) => None,
            };
            topics.insert(name.to_string(), found);
        }
        Ok(topics)
    }

    pub(super) async fn offset_commit(
        &self,
        version: i16,
        query: g::OffsetCommitRequestData,
    ) -> Result<Answer, DecodeError> {
        let committed = self.commit(&query).await;
        committed_answer(version, query.topics, &committed)
    }

    /// Commits what can be committed; tells what became of each offset, in the order of the request.
    async fn commit(&self, query: &g::OffsetCommitRequestData) -> Result<Vec<Code>, Code> {
        let group = parse_group(query.group_id.as_str())?;
        let known = self.topics_of(query.topics.iter().map(|topic| &topic.name)).await?;
        let (mut codes, mut places) = (Vec::new(), Vec::new());
        let (mut offsets, mut forget) = (Vec::new(), Vec::new());
        for topic in &query.topics {
            let id = known.get(topic.name.as_str()).copied().flatten();
            for asked in &topic.partitions {
                let id = id.and_then(|id| partition(id, asked.partition_index));
                match id.map(|id| (id, committable(id, asked))) {
                    Some((_, Some(offset))) => {
                        places.push(codes.len());
                        offsets.push(offset);
                    }
                    Some((id, None)) => forget.push(id),
                    None => {
                        codes.push(ErrorCode::PartitionNotFound.into());
                        continue;
                    }
                }
                codes.push(Code::NONE);
            }
        }
        if offsets.is_empty() && forget.is_empty() {
            return Ok(codes);
        }
        let generation = query.generation_id_or_member_epoch;
        let member = member(&query.member_id, query.group_instance_id.clone(), generation);
        let verdicts = self.groups()?.commit(CommitRequest { group, member, offsets, forget }).await?;
        for (place, verdict) in places.into_iter().zip(verdicts) {
            codes[place] = code_of(verdict.map_err(Code::from));
        }
        Ok(codes)
    }

    pub(super) async fn offset_fetch(
        &self,
        version: i16,
        query: g::OffsetFetchRequestData,
        caller: &Caller,
    ) -> Result<Answer, DecodeError> {
        let mut message = g::OffsetFetchResponseData::default();
        let mut codes = Vec::new();
        if version >= 8 {
            let how = (query.require_stable, self.lookup_deadline());
            let lookups = query.groups.into_iter().map(|asked| self.lookup(version, asked, how, caller));
            // Collected first: a stream over the closure itself would not be `Send`.
            let lookups: Vec<_> = lookups.collect();
            message.groups = futures::stream::iter(lookups).buffered(AT_ONCE).collect().await;
            codes.extend(message.groups.iter().map(|group| Code::raw(group.error_code)));
            return answer(&message, version, codes);
        }
        let topics = query.topics.map(|topics| {
            let newer = |topic: g::OffsetFetchRequestTopic| g::OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..Default::default()
            };
            topics.into_iter().map(newer).collect::<Vec<_>>()
        });
        match self.offsets_of(&query.group_id, topics.clone()).await {
            Ok(found) => message.topics = found.into_iter().map(older).collect(),
            Err(code) => {
                codes.push(code);
                message.error_code = code.get();
                if version < 2 {
                    // The first version has a place for errors at partitions only.
                    let topics = topics.unwrap_or_default().into_iter().map(|topic| refused(topic, code));
                    message.topics = topics.map(older).collect();
                }
            }
        }
        answer(&message, version, codes)
    }

    /// What a group has committed, wherever it is looked after.
    async fn lookup(
        &self,
        version: i16,
        asked: g::OffsetFetchRequestGroup,
        how: (bool, Duration),
        caller: &Caller,
    ) -> g::OffsetFetchResponseGroup {
        if let Some(told) = self.offsets_elsewhere(version, &asked, how, caller).await {
            return told;
        }
        let (code, topics) = match self.offsets_of(&asked.group_id, asked.topics).await {
            Ok(topics) => (Code::NONE, topics),
            Err(code) => (code, Vec::new()),
        };
        let (group_id, error_code) = (asked.group_id, code.get());
        g::OffsetFetchResponseGroup { group_id, topics, error_code, ..Default::default() }
    }

    /// What a group has committed, of these topics or of all.
    async fn offsets_of(
        &self,
        group: &KafkaString,
        topics: Option<Vec<g::OffsetFetchRequestTopics>>,
    ) -> Result<Vec<g::OffsetFetchResponseTopics>, Code> {
        let group = parse_group(group.as_str())?;
        let Some(topics) = topics else {
            let all = self.groups()?.offsets(&group, None).await?;
            return Ok(self.by_topic(all));
        };
        let known = self.topics_of(topics.iter().map(|topic| &topic.name)).await?;
        let named = |name: &KafkaString, index: i32| -> Named {
            partition(known.get(name.as_str()).copied().flatten()?, index)
        };
        let wanted = topics
            .iter()
            .flat_map(|topic| topic.partition_indexes.iter().filter_map(|index| named(&topic.name, *index)));
        let wanted: Vec<PartitionId> = wanted.collect();
        let found = self.groups()?.offsets(&group, Some(wanted)).await?;
        let found: BTreeMap<PartitionId, Option<CommittedOffset>> = found.into_iter().collect();
        let told = topics.into_iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let committed = named(&topic.name, *index).and_then(|id| found.get(&id)?.as_ref());
                told_offset(*index, committed)
            });
            let partitions = partitions.collect();
            g::OffsetFetchResponseTopics { name: topic.name, partitions, ..Default::default() }
        });
        Ok(told.collect())
    }

    /// Sorts what was committed by topic. Offsets of topics that are gone by now are left out.
    fn by_topic(
        &self,
        all: Vec<(PartitionId, Option<CommittedOffset>)>,
    ) -> Vec<g::OffsetFetchResponseTopics> {
        let mut topics: BTreeMap<TopicId, Vec<g::OffsetFetchResponsePartitions>> = BTreeMap::new();
        for (id, committed) in all {
            let index = i32::try_from(id.index.get()).unwrap_or(i32::MAX);
            topics.entry(id.topic).or_default().push(told_offset(index, committed.as_ref()));
        }
        let state = self.broker().state();
        let named = topics.into_iter().filter_map(|(id, partitions)| {
            let name = text(state.topic(id)?.name().as_str());
            Some(g::OffsetFetchResponseTopics { name, partitions, ..Default::default() })
        });
        named.collect()
    }

    pub(super) async fn offset_delete(
        &self,
        version: i16,
        query: g::OffsetDeleteRequestData,
    ) -> Result<Answer, DecodeError> {
        let deleted = self.delete_offsets(&query).await;
        deleted_answer(version, query.topics, deleted)
    }

    /// Deletes offsets; tells what became of each, in the order of the request.
    async fn delete_offsets(&self, query: &g::OffsetDeleteRequestData) -> Result<Vec<Code>, Code> {
        let group = parse_group(query.group_id.as_str())?;
        let known = self.topics_of(query.topics.iter().map(|topic| &topic.name)).await?;
        let (mut codes, mut places, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for topic in &query.topics {
            let id = known.get(topic.name.as_str()).copied().flatten();
            for asked in &topic.partitions {
                match id.and_then(|id| partition(id, asked.partition_index)) {
                    Some(id) => {
                        places.push(codes.len());
                        ids.push(id);
                        codes.push(Code::NONE);
                    }
                    None => codes.push(ErrorCode::PartitionNotFound.into()),
                }
            }
        }
        // Asked for also when nothing is left of the request: whether there is such a group is told all the same.
        let verdicts =
            self.groups()?.delete_offsets(&group, ids).await.map_err(|error| Code::from(error.code()))?;
        for (place, verdict) in places.into_iter().zip(verdicts) {
            codes[place] = code_of(verdict.map_err(Code::from));
        }
        Ok(codes)
    }
}

/// The answer to who commits: what became of each offset, or of all.
pub(super) fn committed_answer(
    version: i16,
    topics: Vec<g::OffsetCommitRequestTopic>,
    committed: &Result<Vec<Code>, Code>,
) -> Result<Answer, DecodeError> {
    let mut codes = Vec::new();
    let mut verdicts = committed.as_deref().unwrap_or_default().iter();
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|asked| {
            let code = match committed {
                Ok(_) => verdicts.next().copied().unwrap_or(ErrorCode::Internal.into()),
                Err(code) => *code,
            };
            codes.push(code);
            g::OffsetCommitResponsePartition {
                partition_index: asked.partition_index,
                error_code: code.get(),
                ..Default::default()
            }
        });
        let partitions = partitions.collect();
        g::OffsetCommitResponseTopic { name: topic.name, partitions, ..Default::default() }
    });
    let topics = topics.collect();
    answer(&g::OffsetCommitResponseData { topics, ..Default::default() }, version, codes)
}

/// The answer to who has offsets deleted: what became of each, or of all.
pub(super) fn deleted_answer(
    version: i16,
    topics: Vec<g::OffsetDeleteRequestTopic>,
    deleted: Result<Vec<Code>, Code>,
) -> Result<Answer, DecodeError> {
    let mut message = g::OffsetDeleteResponseData::default();
    let mut codes = Vec::new();
    match deleted {
        Ok(verdicts) => {
            codes.clone_from(&verdicts);
            let mut verdicts = verdicts.into_iter();
            let topics = topics.into_iter().map(|topic| {
                let partitions = topic.partitions.into_iter().zip(&mut verdicts).map(|(asked, code)| {
                    g::OffsetDeleteResponsePartition {
                        partition_index: asked.partition_index,
                        error_code: code.get(),
                        ..Default::default()
                    }
                });
                let partitions = partitions.collect();
                g::OffsetDeleteResponseTopic { name: topic.name, partitions, ..Default::default() }
            });
            message.topics = topics.collect();
        }
        Err(code) => {
            codes.push(code);
            message.error_code = code.get();
        }
    }
    answer(&message, version, codes)
}

impl From<OffsetRefusal> for Code {
    fn from(refusal: OffsetRefusal) -> Self {
        refusal.code().into()
    }
}

/// An offset to commit; `None` for any negative one but [`EARLIEST`], by which clients take back what they committed: KafkaJS
/// does when its offset is out of range, and wants to be told none from then on.
fn committable(id: PartitionId, asked: &g::OffsetCommitRequestPartition) -> Option<OffsetCommit> {
    let (offset, epoch) = match asked.committed_offset {
        EARLIEST => (0, Some(EARLIEST_EPOCH)),
        offset => {
            let epoch = u32::try_from(asked.committed_leader_epoch).ok().map(Epoch::new);
            (u64::try_from(offset).ok()?, epoch)
        }
    };
    Some(OffsetCommit {
        partition: id,
        offset: Offset::new(offset),
        epoch,
        metadata: owned(asked.committed_metadata.clone()),
    })
}

/// What was committed for a partition; −1 and an empty text when nothing was.
fn told_offset(
    partition_index: i32,
    committed: Option<&CommittedOffset>,
) -> g::OffsetFetchResponsePartitions {
    let Some(committed) = committed else {
        return g::OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(KafkaString::default()),
            ..Default::default()
        };
    };
    let epoch = committed.epoch.and_then(|epoch| i32::try_from(epoch.get()).ok());
    let is_earliest = (committed.offset, committed.epoch) == (Offset::ZERO, Some(EARLIEST_EPOCH));
    g::OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: if is_earliest { EARLIEST } else { wire_offset(committed.offset) },
        committed_leader_epoch: epoch.unwrap_or(-1),
        // None and the empty text are one to Kafka.
        metadata: Some(text(committed.metadata.as_deref().unwrap_or_default())),
        ..Default::default()
    }
}

fn refused(topic: g::OffsetFetchRequestTopics, code: Code) -> g::OffsetFetchResponseTopics {
    let partitions = topic
        .partition_indexes
        .into_iter()
        .map(|index| g::OffsetFetchResponsePartitions { error_code: code.get(), ..told_offset(index, None) });
    let partitions = partitions.collect();
    g::OffsetFetchResponseTopics { name: topic.name, partitions, ..Default::default() }
}

/// The same in the form of versions before 8.
fn older(topic: g::OffsetFetchResponseTopics) -> g::OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|newer| g::OffsetFetchResponsePartition {
        partition_index: newer.partition_index,
        committed_offset: newer.committed_offset,
        committed_leader_epoch: newer.committed_leader_epoch,
        metadata: newer.metadata,
        error_code: newer.error_code,
        ..Default::default()
    });
    let partitions = partitions.collect();
    g::OffsetFetchResponseTopic { name: topic.name, partitions, ..Default::default() }
}
