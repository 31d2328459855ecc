//! Topics: made, listed, described, altered, deleted.

use streamhouse_broker::metadata::{OtherSettings, SettingEdits, SettingSource, State, Topic, TopicSettings};
use streamhouse_broker::{Mode, NewTopic, TopicError};
use streamhouse_proto::v1;
use streamhouse_proto::v1::topic_service_server::TopicService;
use streamhouse_types::{Timestamp, TopicId, TopicName};
use tonic::{Request, Response, Status};

use crate::Services;
use crate::authorize::{Resource, check};
use crate::convert::{offset, request_id, timestamp, topic_name};
use crate::status::Fault;

/// Most topics on a page.
const PAGE_MAX: u32 = 1_000;
/// Topics on a page when the caller does not say.
const PAGE_DEFAULT: u32 = 100;
/// Most settings in one request.
const SETTINGS_MAX: usize = 100;

#[tonic::async_trait]
impl TopicService for Services {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().name))?;
        self.admit()?;
        let request = request.into_inner();
        let name = self.name("name", &request.name)?;
        limited("settings", request.settings.len())?;
        let new = NewTopic {
            name: name.clone(),
            partitions: request.partitions,
            settings: request.settings.into_iter().collect(),
            request: request_id(&request.request_id)?,
            validate_only: request.validate_only,
        };
        let made = self.broker.create_topic(new).await.map_err(Fault::from)?;
        let topic = match self.describe(made.id) {
            Some(topic) => topic,
            // Only checked: this is what it would be.
            None => v1::Topic {
                name: name.to_string(),
                id: made.id.get(),
                partition_count: made.partitions,
                settings: settings(&made.settings),
                ..v1::Topic::default()
            },
        };
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(topic) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let request = request.into_inner();
        let size = match request.page_size {
            0 => PAGE_DEFAULT,
            size if size <= PAGE_MAX => size,
            _ => {
                return Err(
                    Fault::argument("page_size", format!("a page has at most {PAGE_MAX} topics")).into()
                );
            }
        };
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(topic_name("page_token", token)?),
        };
        if request.name_prefix.len() > 249 {
            return Err(Fault::argument("name_prefix", "no topic has a name that long").into());
        }
        let page = page_of(&self.broker.state(), after, &request.name_prefix, size);
        Ok(Response::new(page))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().name))?;
        let found = self.topic("name", &request.get_ref().name).await?;
        let gone = || Fault::from(TopicError::NotFound { name: found.name.clone() });
        let topic = self.describe(found.id).ok_or_else(gone)?;
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(topic) }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().name))?;
        self.admit()?;
        let request = request.into_inner();
        let name = self.name("name", &request.name)?;
        limited("changes", request.changes.len())?;
        let steps = request.changes.into_iter().map(|change| (change.name, change.value.into())).collect();
        let edits = SettingEdits { steps, others: OtherSettings::Keep };
        let id = request_id(&request.request_id)?;
        let mode = if request.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let altered = self.broker.alter_topic(&name, edits, id, mode).await;
        let altered = altered.map_err(Fault::from)?;
        let mut topic = self.describe(altered.id).unwrap_or_default();
        topic.settings = settings(&altered.settings);
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(topic) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().name))?;
        self.admit()?;
        let request = request.into_inner();
        let name = self.name("name", &request.name)?;
        let id = request_id(&request.request_id)?;
        let mode = if request.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        self.broker.delete_topic(&name, id, mode).await.map_err(Fault::from)?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().name))?;
        self.admit()?;
        let request = request.into_inner();
        let name = self.name("name", &request.name)?;
        let id = request_id(&request.request_id)?;
        let mode = if request.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let grown = self.broker.add_partitions(&name, request.total, id, mode).await;
        let grown = grown.map_err(Fault::from)?;
        let mut topic = self.describe(grown.id).unwrap_or_default();
        topic.partition_count = grown.partitions;
        Ok(Response::new(v1::AddPartitionsResponse { topic: Some(topic) }))
    }

    async fn trim_partition(
        &self,
        request: Request<v1::TrimPartitionRequest>,
    ) -> Result<Response<v1::TrimPartitionResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().topic))?;
        self.admit()?;
        let request = request.into_inner();
        let topic = self.topic("topic", &request.topic).await?;
        let partition = self.partition_of(&topic, request.partition).await?;
        let before = offset("before_offset", request.before_offset)?;
        let log_start = self.broker.trim(partition, before).await.map_err(Fault::from)?;
        Ok(Response::new(v1::TrimPartitionResponse { log_start: log_start.get() }))
    }
}

impl Services {
    fn describe(&self, id: TopicId) -> Option<v1::Topic> {
        let state = self.broker.state();
        let topic = state.topic(id)?;
        let mut described = summary_of(topic);
        described.partitions = topic.partitions().map(partition).collect();
        Some(described)
    }
}

fn limited(field: &str, count: usize) -> Result<(), Fault> {
    if count > SETTINGS_MAX {
        return Err(Fault::argument(field, format!("at most {SETTINGS_MAX} settings in one request")));
    }
    Ok(())
}

fn page_of(state: &State, after: Option<TopicName>, prefix: &str, size: u32) -> v1::ListTopicsResponse {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut topics: Vec<&Topic> = match &after {
        Some(name) => matching(state.topics_after(name), prefix).take(size.saturating_add(1)).collect(),
        None => matching(state.topics(), prefix).take(size.saturating_add(1)).collect(),
    };
    let more = topics.len() > size;
    topics.truncate(size);
    let last = topics.last().filter(|_| more);
    let next_page_token = last.map_or_else(String::new, |topic| topic.name().to_string());
    v1::ListTopicsResponse { topics: topics.into_iter().map(summary_of).collect(), next_page_token }
}

/// Names are in order, so those with a prefix lie side by side.
fn matching<'a>(topics: impl Iterator<Item = &'a Topic>, prefix: &str) -> impl Iterator<Item = &'a Topic> {
    topics
        .skip_while(move |topic| topic.name().as_str() < prefix)
        .take_while(move |topic| topic.name().as_str().starts_with(prefix))
}

fn summary_of(topic: &Topic) -> v1::Topic {
    let records =
        topic.partitions().map(|partition| partition.high_watermark().since(partition.log_start())).sum();
    v1::Topic {
        name: topic.name().to_string(),
        id: topic.id().get(),
        partition_count: topic.partition_count(),
        created: Some(timestamp(topic.created())),
        settings: settings(topic.settings()),
        partitions: Vec::new(),
        records,
        stored_bytes: topic.partitions().map(|partition| partition.stored_bytes()).sum(),
    }
}

fn partition(partition: &streamhouse_broker::metadata::Partition) -> v1::Partition {
    let empty = partition.last_append() <= Timestamp::from_millis(0);
    v1::Partition {
        index: partition.id().index.get(),
        home_node: partition.home().get(),
        epoch: partition.epoch().get(),
        log_start: partition.log_start().get(),
        high_watermark: partition.high_watermark().get(),
        stored_bytes: partition.stored_bytes(),
        extents: u64::try_from(partition.extent_count()).unwrap_or(u64::MAX),
        last_append: (!empty).then(|| timestamp(partition.last_append())),
    }
}

fn settings(settings: &TopicSettings) -> Vec<v1::Setting> {
    let source = |source| match source {
        SettingSource::Default => v1::SettingSource::Default,
        SettingSource::Topic => v1::SettingSource::Topic,
    };
    let told = settings.list().into_iter().map(|setting| v1::Setting {
        name: setting.name.to_owned(),
        source: source(setting.source).into(),
        value: setting.value,
    });
    told.collect()
}
