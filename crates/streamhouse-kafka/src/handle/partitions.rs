//! The partitions of topics: more of them, and fewer records in them.

use futures::stream::StreamExt as _;
use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_broker::Mode;
use streamhouse_types::Offset;
use streamhouse_types::error_code::ErrorCode;

use super::topics::{late, repeated};
use super::{AT_ONCE, Found, Refusal, answer, parse_name, partition, text, wire_offset};
use crate::codec::{DecodeError, TopicRef};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// Kafka's own brokers judge a trim at once and let the client's timeout, which may be 0, bound only the wait for
/// replicas: so much has a trim here in any case.
const TRIM_PATIENCE_MS: i32 = 5_000;
/// The offset that stands for the high watermark.
const TO_THE_END: i64 = -1;

impl Kafka {
    pub(super) async fn create_partitions(
        &self,
        version: i16,
        query: g::CreatePartitionsRequestData,
    ) -> Result<Answer, DecodeError> {
        let twice = repeated(query.topics.iter().map(|topic| topic.name.as_str()));
        let mode = if query.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let names: Vec<KafkaString> = query.topics.iter().map(|topic| topic.name.clone()).collect();
        let (kafka, topics) = (self.clone(), query.topics);
        let work = async move {
            let mut results = Vec::with_capacity(topics.len());
            for topic in topics {
                let grown = if twice.contains(topic.name.as_str()) {
                    Err(Refusal::request("the topic is named twice in one request"))
                } else {
                    kafka.grow(&topic, mode).await
                };
                results.push(grown_result(topic.name, grown));
            }
            results
        };
        let results = match self.within(query.timeout_ms, work).await {
            Some(results) => results,
            None => names.into_iter().map(|name| grown_result(name, Err(late()))).collect(),
        };
        let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
        let message = g::CreatePartitionsResponseData { results, ..Default::default() };
        answer(&message, version, codes.into_iter().map(Code::raw))
    }

    async fn grow(&self, topic: &g::CreatePartitionsTopic, mode: Mode) -> Result<(), Refusal> {
        self.refuse_when_draining()?;
        let name = parse_name(topic.name.as_str())
            .map_err(|_| Refusal::new(ErrorCode::TopicNotFound, "no topic has such a name"))?;
        let info = self.broker().topic(&name).await?;
        let current = self.broker().partitions_now(&info).await?;
        let Some(total) = u32::try_from(topic.count).ok().filter(|total| *total > current) else {
            let message =
                format!("the topic has {current} partitions already, {} would be no more", topic.count);
            return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
        };
        // Where replicas are to be is checked and then not obeyed: every node has everything.
        if let Some(assignments) = &topic.assignments {
            let added = usize::try_from(total - current).unwrap_or(usize::MAX);
            let sound = assignments.iter().all(|assigned| self.can_place(&assigned.broker_ids));
            if assignments.len() != added || !sound {
                let message =
                    format!("an assignment names nodes that there are for each of {added} new ones");
                return Err(Refusal::new(Code::INVALID_REPLICA_ASSIGNMENT, message));
            }
        }
        self.broker().add_partitions(&name, total, None, mode).await?;
        Ok(())
    }

    pub(super) async fn delete_records(
        &self,
        version: i16,
        query: g::DeleteRecordsRequestData,
    ) -> Result<Answer, DecodeError> {
        let asked = query.topics.clone();
        let kafka = self.clone();
        let work = async move {
            let mut topics = Vec::with_capacity(query.topics.len());
            // What any node has acknowledged lies below the high watermark that −1 stands for.
            let current = kafka.broker().confirm_current().await;
            for topic in query.topics {
                let found = match &current {
                    Ok(()) => kafka.find(&TopicRef::Name(topic.name.to_string())).await,
                    Err(_) => Err(Code::from(ErrorCode::MetadataUnavailable)),
                };
                topics.push(kafka.trimmed(topic, &found).await);
            }
            topics
        };
        let topics = match self.within(query.timeout_ms.max(TRIM_PATIENCE_MS), work).await {
            Some(topics) => topics,
            None => asked.into_iter().map(late_trim).collect(),
        };
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<i16> = partitions.map(|partition| partition.error_code).collect();
        let message = g::DeleteRecordsResponseData { topics, ..Default::default() };
        answer(&message, version, codes.into_iter().map(Code::raw))
    }

    async fn trimmed(
        &self,
        topic: g::DeleteRecordsTopic,
        found: &Result<Found, Code>,
    ) -> g::DeleteRecordsTopicResult {
        let trims: Vec<_> = topic
            .partitions
            .into_iter()
            .map(|asked| async move {
                let trimmed = match found {
                    Ok(found) => self.trim(found, asked.partition_index, asked.offset).await,
                    Err(code) => Err(*code),
                };
                trim_result(asked.partition_index, trimmed)
            })
            .collect();
        let partitions = futures::stream::iter(trims).buffered(AT_ONCE).collect().await;
        g::DeleteRecordsTopicResult { name: topic.name, partitions, ..Default::default() }
    }

    /// Drops the records before `offset`; returns the first that is left.
    async fn trim(&self, found: &Found, index: i32, offset: i64) -> Result<i64, Code> {
        if self.is_draining() {
            return Err(Code::NOT_LEADER);
        }
        // What is only compacted is not dropped by its age or on request, as at Kafka's own brokers. Where nothing is done
        // by itself, it is.
        if found.settings.compacts() && !found.settings.deletes() {
            return Err(Code::POLICY_VIOLATION);
        }
        let no_such = Code::from(ErrorCode::PartitionNotFound);
        let id = partition(found.id, index).ok_or(no_such)?;
        let end = self.broker().look(|state| state.partition(id).map(|found| found.high_watermark()));
        let end = end.ok_or(no_such)?;
        let before = match offset {
            TO_THE_END => end,
            offset => {
                let offset = u64::try_from(offset).map_err(|_| Code::from(ErrorCode::OffsetOutOfRange))?;
                Offset::new(offset)
            }
        };
        let start = self.broker().trim(id, before).await.map_err(|error| Code::from(error.code()))?;
        Ok(wire_offset(start))
    }
}

fn grown_result(name: KafkaString, grown: Result<(), Refusal>) -> g::CreatePartitionsTopicResult {
    let mut result = g::CreatePartitionsTopicResult { name, ..Default::default() };
    if let Err(Refusal { code, message }) = grown {
        result.error_code = code.get();
        result.error_message = Some(text(&message));
    }
    result
}

fn trim_result(partition_index: i32, trimmed: Result<i64, Code>) -> g::DeleteRecordsPartitionResult {
    let (code, low_watermark) = match trimmed {
        Ok(start) => (Code::NONE, start),
        Err(code) => (code, -1),
    };
    g::DeleteRecordsPartitionResult {
        partition_index,
        low_watermark,
        error_code: code.get(),
        ..Default::default()
    }
}

/// It was not done in time, and may yet be.
fn late_trim(topic: g::DeleteRecordsTopic) -> g::DeleteRecordsTopicResult {
    let unknown = Code::from(ErrorCode::CommitUnknown);
    let partitions = topic.partitions.iter().map(|asked| trim_result(asked.partition_index, Err(unknown)));
    let partitions = partitions.collect();
    g::DeleteRecordsTopicResult { name: topic.name, partitions, ..Default::default() }
}
