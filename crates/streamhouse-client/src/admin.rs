//! Administration: topics, groups, storage, the cluster.

mod cluster;
pub(crate) mod groups;

use std::collections::BTreeMap;

use futures::stream::{self, Stream, TryStreamExt as _};
use streamhouse_proto::v1;
use streamhouse_types::{Offset, PartitionIndex};
use tonic::{Response, Status};

use crate::call::Repeat;
use crate::connect::StreamHouse;
use crate::error::CallError;
use crate::rejection::Rejection;
use crate::ways::Way;
use streamhouse_api::{ObjectInfo, ServerInfo, StorageSummary, SweepResult, TopicInfo, VerifyProgress};

/// Topics in one answer of a list.
const PAGE_TOPICS: u32 = 500;

/// Whether a change is made or only checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Make the change.
    #[default]
    Apply,
    /// Check everything, change nothing.
    ValidateOnly,
}

impl Mode {
    fn validate_only(self) -> bool {
        self == Self::ValidateOnly
    }

    fn repeat(self) -> Repeat {
        match self {
            Self::Apply => Repeat::Harmless,
            Self::ValidateOnly => Repeat::ChangesNothing,
        }
    }
}

/// How thoroughly storage is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyDepth {
    /// Presence and length of each object.
    #[default]
    Shallow,
    /// Every byte and every checksum.
    Deep,
}

/// A topic to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions, 1 to 10,000; `None` leaves it to the server.
    pub partitions: Option<u32>,
    /// Settings by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with the server's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets a setting by Kafka's name.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }
}

/// Administration. Calls are retried until the request timeout, at other nodes when one does not answer; changes carry
/// a request id, so that a repeated one happens once. Cancelling a call leaves open whether its change was made.
#[derive(Debug, Clone)]
pub struct Admin {
    house: StreamHouse,
}

impl Admin {
    pub(crate) fn new(house: StreamHouse) -> Self {
        Self { house }
    }

    /// A call that changes nothing.
    async fn read<R, T, F, Fut>(&self, request: R, call: F) -> Result<T, CallError>
    where
        R: Clone,
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.house.caller().briskly().call(Repeat::ChangesNothing, request, call).await
    }

    /// A call that changes something, unless it is only checked.
    async fn change<R, T, F, Fut>(&self, mode: Mode, request: R, call: F) -> Result<T, CallError>
    where
        R: Clone,
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.house.caller().briskly().call(mode.repeat(), request, call).await
    }

    /// A [`read`](Self::read) that may take its whole time on one node.
    async fn read_patiently<R, T, F, Fut>(&self, request: R, call: F) -> Result<T, CallError>
    where
        R: Clone,
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.house.caller().call(Repeat::ChangesNothing, request, call).await
    }

    /// A change that may take its whole time on one node.
    async fn change_patiently<R, T, F, Fut>(&self, request: R, call: F) -> Result<T, CallError>
    where
        R: Clone,
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.house.caller().call(Repeat::Harmless, request, call).await
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// When there is one of this name, or the name or a setting is not allowed.
    pub async fn create_topic(&self, topic: NewTopic, mode: Mode) -> Result<TopicInfo, CallError> {
        let request = v1::CreateTopicRequest {
            name: topic.name,
            partitions: topic.partitions.unwrap_or(0),
            settings: topic.settings.into_iter().collect(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.topics().create_topic(request).await };
        described(self.change(mode, request, call).await?.topic)
    }

    /// All topics whose name starts with `prefix`, in the order of their names, without partitions and settings.
    /// Pages are asked for as the stream is read.
    pub fn list_topics(
        &self,
        prefix: &str,
    ) -> impl Stream<Item = Result<TopicInfo, CallError>> + Send + 'static {
        let (admin, prefix) = (self.clone(), prefix.to_owned());
        let pages = stream::try_unfold(Some(String::new()), move |token| {
            let (admin, name_prefix) = (admin.clone(), prefix.clone());
            async move {
                let Some(page_token) = token else { return Ok(None) };
                let request = v1::ListTopicsRequest { page_size: PAGE_TOPICS, page_token, name_prefix };
                let page = admin.topics_page(request).await?;
                let next = Some(page.next_page_token).filter(|token| !token.is_empty());
                let topics = page.topics.into_iter().map(|topic| Ok(TopicInfo::from(topic)));
                Ok::<_, CallError>(Some((stream::iter(topics), next)))
            }
        });
        pages.try_flatten()
    }

    async fn topics_page(&self, request: v1::ListTopicsRequest) -> Result<v1::ListTopicsResponse, CallError> {
        let call = |way: Way, request| async move { way.topics().list_topics(request).await };
        self.read(request, call).await
    }

    /// One topic with its partitions and settings.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicInfo, CallError> {
        let request = v1::DescribeTopicRequest { name: name.to_owned() };
        let call = |way: Way, request| async move { way.topics().describe_topic(request).await };
        described(self.read(request, call).await?.topic)
    }

    /// Changes settings; `None` puts one back to its default.
    ///
    /// # Errors
    /// When there is no such topic, or a setting is unknown or has an illegal value.
    pub async fn alter_topic(
        &self,
        name: &str,
        changes: BTreeMap<String, Option<String>>,
        mode: Mode,
    ) -> Result<TopicInfo, CallError> {
        let changes = changes.into_iter().map(|(name, value)| v1::SettingChange { name, value }).collect();
        let request = v1::AlterTopicRequest {
            name: name.to_owned(),
            changes,
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.topics().alter_topic(request).await };
        described(self.change(mode, request, call).await?.topic)
    }

    /// Deletes a topic and all that it holds.
    ///
    /// # Errors
    /// When there is no such topic.
    pub async fn delete_topic(&self, name: &str, mode: Mode) -> Result<(), CallError> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.topics().delete_topic(request).await };
        self.change(mode, request, call).await.map(|_| ())
    }

    /// Raises the number of partitions to `total`.
    ///
    /// # Errors
    /// When there is no such topic, or it has more already.
    pub async fn add_partitions(&self, name: &str, total: u32, mode: Mode) -> Result<TopicInfo, CallError> {
        let request = v1::AddPartitionsRequest {
            name: name.to_owned(),
            total,
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.topics().add_partitions(request).await };
        described(self.change(mode, request, call).await?.topic)
    }

    /// Drops the records before an offset; returns the log start there is now.
    ///
    /// # Errors
    /// When there is no such partition, or the offset lies beyond its end.
    pub async fn trim(
        &self,
        topic: &str,
        partition: PartitionIndex,
        before: Offset,
    ) -> Result<Offset, CallError> {
        let request = v1::TrimPartitionRequest {
            topic: topic.to_owned(),
            partition: partition.get(),
            before_offset: before.get(),
        };
        let call = |way: Way, request| async move { way.topics().trim_partition(request).await };
        let answer = self.change(Mode::Apply, request, call).await?;
        Ok(Offset::new(answer.log_start))
    }

    /// Who answers, and what it is.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn info(&self) -> Result<ServerInfo, CallError> {
        let request = v1::GetInfoRequest {};
        let call = |way: Way, request| async move { way.cluster().get_info(request).await };
        self.read(request, call).await.map(ServerInfo::from)
    }

    /// What lies in the object store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn storage_summary(&self) -> Result<StorageSummary, CallError> {
        let request = v1::StorageSummaryRequest {};
        let call = |way: Way, request| async move { way.storage().summary(request).await };
        self.read_patiently(request, call).await.map(StorageSummary::from)
    }

    /// One object, by its key or its id.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub async fn inspect_object(&self, key: &str) -> Result<ObjectInfo, CallError> {
        let request = v1::InspectObjectRequest { key: key.to_owned() };
        let call = |way: Way, request| async move { way.storage().inspect(request).await };
        self.read_patiently(request, call).await.map(ObjectInfo::from)
    }

    /// Checks every referenced object; the stream tells how far it is and ends after the message with `done`.
    /// Dropping the stream stops the verification.
    ///
    /// # Errors
    /// When the server refuses. Errors in the stream end it.
    pub async fn verify_storage(
        &self,
        depth: VerifyDepth,
    ) -> Result<impl Stream<Item = Result<VerifyProgress, CallError>> + Send + 'static, CallError> {
        let request = v1::VerifyRequest { deep: depth == VerifyDepth::Deep };
        let call = |way: Way, request| async move {
            let answer = way.storage().verify(request).await?;
            // The way is needed until the last step.
            Ok(answer.map(|steps| steps.inspect_ok(move |_| _ = &way)))
        };
        let progress = self.read_patiently(request, call).await?;
        let progress = progress.map_ok(VerifyProgress::from);
        Ok(progress.map_err(|status| CallError::Rejected(Rejection::from_status(&status))))
    }

    /// Deletes now what the sweep may delete.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn sweep_storage(&self) -> Result<SweepResult, CallError> {
        let request = v1::SweepRequest {};
        let call = |way: Way, request| async move { way.storage().sweep(request).await };
        self.change_patiently(request, call).await.map(SweepResult::from)
    }
}

fn described(topic: Option<v1::Topic>) -> Result<TopicInfo, CallError> {
    topic.map(TopicInfo::from).ok_or(CallError::BadAnswer { what: "no topic in it" })
}
