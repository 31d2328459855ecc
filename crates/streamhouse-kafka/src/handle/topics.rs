//! Topics: made and deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use kacrab_protocol::generated as g;
use kacrab_protocol::{KafkaString, KafkaUuid};
use streamhouse_broker::{Mode, NewTopic, TopicInfo};
use streamhouse_types::error_code::ErrorCode;

use super::configs::source_of;
use super::{Refusal, answer, parse_name, text, topic_name, uuid};
use crate::codec::{DecodeError, TopicUuid};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// Most settings of one topic in one request, as in the gRPC API.
pub(super) const SETTINGS_MAX: usize = 100;

impl Kafka {
    pub(super) async fn create_topics(
        &self,
        version: i16,
        query: g::CreateTopicsRequestData,
    ) -> Result<Answer, DecodeError> {
        let twice = repeated(query.topics.iter().map(|topic| topic.name.as_str()));
        let kafka = self.clone();
        let names: Vec<KafkaString> = query.topics.iter().map(|topic| topic.name.clone()).collect();
        let mode = if query.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let topics = query.topics;
        let work = async move {
            let mut results = Vec::with_capacity(topics.len());
            for topic in topics {
                let name = topic.name.clone();
                let made = if twice.contains(name.as_str()) {
                    Err(Refusal::request("the topic is named twice in one request"))
                } else {
                    kafka.create_topic(topic, mode).await
                };
                results.push(kafka.created(name, made, mode));
            }
            results
        };
        let topics = match self.within(query.timeout_ms, work).await {
            Some(topics) => topics,
            None => names.into_iter().map(|name| self.created(name, Err(late()), mode)).collect(),
        };
        let codes: Vec<i16> = topics.iter().map(|topic| topic.error_code).collect();
        let message = g::CreateTopicsResponseData { topics, ..Default::default() };
        answer(&message, version, codes.into_iter().map(Code::raw))
    }

    async fn create_topic(&self, topic: g::CreatableTopic, mode: Mode) -> Result<TopicInfo, Refusal> {
        let name = topic_name(topic.name.as_str())?;
        self.refuse_when_draining()?;
        let partitions = self.wanted_partitions(&topic)?;
        if topic.configs.len() > SETTINGS_MAX {
            return Err(Refusal::request(format!("at most {SETTINGS_MAX} settings in one request")));
        }
        // Null stands for the default.
        let given = topic.configs.iter().filter_map(|config| Some((&config.name, config.value.as_ref()?)));
        let settings = given.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let validate_only = mode == Mode::ValidateOnly;
        let new = NewTopic { name, partitions, settings, request: None, validate_only };
        Ok(self.broker().create_topic(new).await?)
    }

    /// How many partitions are asked for; 0 for the default. Where their replicas are to be is not obeyed as there are
    /// none to place: every node has everything.
    fn wanted_partitions(&self, topic: &g::CreatableTopic) -> Result<u32, Refusal> {
        if !topic.assignments.is_empty() {
            return self.assigned_partitions(topic);
        }
        if topic.replication_factor < 1 && topic.replication_factor != -1 {
            let message = format!("a replication factor of {} cannot be had", topic.replication_factor);
            return Err(Refusal::new(Code::INVALID_REPLICATION_FACTOR, message));
        }
        match topic.num_partitions {
            -1 => Ok(0),
            count if count > 0 => Ok(count.unsigned_abs()),
            count => {
                let message = format!("{count} partitions cannot be had");
                Err(Refusal::new(ErrorCode::InvalidPartitions, message))
            }
        }
    }

    fn assigned_partitions(&self, topic: &g::CreatableTopic) -> Result<u32, Refusal> {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            return Err(Refusal::request(
                "with an assignment, partitions and replication factor are both -1",
            ));
        }
        let indices: BTreeSet<i32> =
            topic.assignments.iter().map(|assigned| assigned.partition_index).collect();
        let whole = indices.iter().copied().eq(0..i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX));
        let sound = topic.assignments.iter().all(|assigned| self.can_place(&assigned.broker_ids));
        if !whole || !sound {
            let message = "an assignment names each partition from 0 once, and nodes that there are";
            return Err(Refusal::new(Code::INVALID_REPLICA_ASSIGNMENT, message));
        }
        Ok(u32::try_from(topic.assignments.len()).unwrap_or(u32::MAX))
    }

    /// Whether replicas can be at these nodes: one at least, each once, and all there.
    pub(super) fn can_place(&self, ids: &[i32]) -> bool {
        let nodes = self.broker().look(|state| self.nodes(state));
        let once: BTreeSet<i32> = ids.iter().copied().collect();
        let known = |id: &i32| nodes.iter().any(|node| node.id == *id);
        !ids.is_empty() && once.len() == ids.len() && once.iter().all(known)
    }

    pub(super) fn refuse_when_draining(&self) -> Result<(), Refusal> {
        if self.is_draining() {
            return Err(Refusal::new(ErrorCode::MetadataUnavailable, "the node is stopping"));
        }
        Ok(())
    }

    fn created(
        &self,
        name: KafkaString,
        made: Result<TopicInfo, Refusal>,
        mode: Mode,
    ) -> g::CreatableTopicResult {
        let mut result = g::CreatableTopicResult {
            name,
            num_partitions: -1,
            replication_factor: -1,
            configs: Some(Vec::new()),
            ..Default::default()
        };
        match made {
            Ok(info) => {
                if mode == Mode::Apply {
                    result.topic_id = uuid(self.uuid_of(info.id));
                }
                result.num_partitions = i32::try_from(info.partitions).unwrap_or(i32::MAX);
                let nodes = self.broker().look(|state| self.nodes(state).len());
                result.replication_factor = i16::try_from(nodes).unwrap_or(i16::MAX).max(1);
                let configs = info.settings.list().into_iter().map(|setting| g::CreatableTopicConfigs {
                    name: text(setting.name),
                    value: Some(text(&setting.value)),
                    config_source: source_of(setting.source),
                    ..Default::default()
                });
                result.configs = Some(configs.collect());
            }
            Err(Refusal { code, message }) => {
                result.error_code = code.get();
                result.error_message = Some(text(&message));
            }
        }
        result
    }

    pub(super) async fn delete_topics(
        &self,
        version: i16,
        query: g::DeleteTopicsRequestData,
    ) -> Result<Answer, DecodeError> {
        let by_name = |name| g::DeleteTopicState { name: Some(name), ..Default::default() };
        let asked: Vec<g::DeleteTopicState> =
            if version >= 6 { query.topics } else { query.topic_names.into_iter().map(by_name).collect() };
        let kafka = self.clone();
        let all = asked.clone();
        let work = async move {
            let mut results = Vec::with_capacity(all.len());
            for topic in all {
                let deleted = kafka.delete_topic(&topic).await;
                results.push(deleted_result(topic, deleted));
            }
            results
        };
        let responses = match self.within(query.timeout_ms, work).await {
            Some(responses) => responses,
            None => asked.into_iter().map(|topic| deleted_result(topic, Err(late()))).collect(),
        };
        let codes: Vec<i16> = responses.iter().map(|response| response.error_code).collect();
        let message = g::DeleteTopicsResponseData { responses, ..Default::default() };
        answer(&message, version, codes.into_iter().map(Code::raw))
    }

    /// Deletes a topic; returns its name and id.
    async fn delete_topic(&self, topic: &g::DeleteTopicState) -> Result<(KafkaString, KafkaUuid), Refusal> {
        self.refuse_when_draining()?;
        let name = match &topic.name {
            Some(name) => parse_name(name.as_str())
                .map_err(|_| Refusal::new(ErrorCode::TopicNotFound, "no topic has such a name"))?,
            None => {
                let found = self.find_by_id(TopicUuid(topic.topic_id.to_bytes())).await;
                found.map_err(|code| Refusal::new(code, "there is no topic of this id"))?.0
            }
        };
        let info = self.broker().topic(&name).await?;
        self.broker().delete_topic(&name, None, Mode::Apply).await?;
        Ok((text(name.as_str()), uuid(self.uuid_of(info.id))))
    }

    /// Does `work`, and waits for it at most as long as the client does: it goes on all the same, `None` means that it is
    /// not known what became of it.
    pub(super) async fn within<T: Send + 'static>(
        &self,
        timeout_ms: i32,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let patience = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let work = tokio::spawn(work);
        tokio::select! {
            biased;
            done = work => done.ok(),
            () = self.clock().sleep(patience) => None,
        }
    }
}

/// The answer to what [`Kafka::within`] did not see the end of.
pub(super) fn late() -> Refusal {
    Refusal::new(ErrorCode::CommitUnknown, "it was not done within the client's timeout, and may yet be")
}

fn deleted_result(
    topic: g::DeleteTopicState,
    deleted: Result<(KafkaString, KafkaUuid), Refusal>,
) -> g::DeletableTopicResult {
    match deleted {
        Ok((name, topic_id)) => g::DeletableTopicResult { name: Some(name), topic_id, ..Default::default() },
        Err(Refusal { code, message }) => g::DeletableTopicResult {
            name: topic.name,
            topic_id: topic.topic_id,
            error_code: code.get(),
            error_message: Some(text(&message)),
            ..Default::default()
        },
    }
}

/// The names that come more than once.
pub(super) fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}
