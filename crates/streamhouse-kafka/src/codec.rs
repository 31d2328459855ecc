//! From bodies of requests to messages, and back from answers to bytes.
//!
//! Produce and Fetch, which carry the records, are written by hand; everything else comes from generated code.

mod api_versions;
mod fetch;
mod generated;
mod header;
mod produce;
mod wire;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use kacrab_protocol::generated as g;

pub(crate) use api_versions::ApiVersionsAnswer;
pub(crate) use fetch::{
    FetchAnswer, FetchAnswerPartition, FetchAnswerTopic, FetchPartition, FetchQuery, FetchTopic,
};
pub(crate) use generated::{Outgoing, encode, read_offsets};
pub(crate) use header::{RequestHeader, answer_head};
#[cfg(test)]
pub(crate) use produce::ProduceTopic;
pub(crate) use produce::{
    LeaderHint, NodeEndpoint, ProduceAnswer, ProduceAnswerPartition, ProduceAnswerTopic, ProducePartition,
    ProduceQuery, RecordError,
};
pub(crate) use wire::{Body, TopicUuid};

use crate::Api;

/// Why bytes are not the request that they say they are. The connection ends with it: where the next request begins
/// would be a guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the request is cut short")]
    CutShort,
    /// A length is negative, or more than there are bytes.
    #[error("a length of {length} cannot be")]
    Length {
        /// What was found.
        length: i64,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// Null where something must be.
    #[error("a field that must be there is null")]
    Null,
    /// This request, or this version of it, is not answered.
    #[error("version {version} of request {key} is not answered")]
    Unsupported {
        /// The key of the request.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// What the generated code says.
    #[error("the request cannot be read: {reason}")]
    Malformed {
        /// Why, for a person.
        reason: String,
    },
}

/// A node or a topic that a request names by a text it owns or by an id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef {
    Name(String),
    Id(TopicUuid),
}

/// A request that was read. What it holds is what the schema allows; whether it makes sense is judged later.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// See [`Api::ApiVersions`]; nothing in it matters.
    ApiVersions,
    /// See [`Api::Produce`].
    Produce(ProduceQuery),
    /// See [`Api::Fetch`].
    Fetch(FetchQuery),
    /// See [`Api::ListOffsets`].
    ListOffsets(g::ListOffsetsRequestData),
    /// See [`Api::Metadata`].
    Metadata(g::MetadataRequestData),
    /// See [`Api::OffsetCommit`].
    OffsetCommit(g::OffsetCommitRequestData),
    /// See [`Api::OffsetFetch`].
    OffsetFetch(g::OffsetFetchRequestData),
    /// See [`Api::JoinGroup`].
    JoinGroup(g::JoinGroupRequestData),
    /// See [`Api::Heartbeat`].
    Heartbeat(g::HeartbeatRequestData),
    /// See [`Api::LeaveGroup`].
    LeaveGroup(g::LeaveGroupRequestData),
    /// See [`Api::SyncGroup`].
    SyncGroup(g::SyncGroupRequestData),
    /// See [`Api::DescribeGroups`].
    DescribeGroups(g::DescribeGroupsRequestData),
    /// See [`Api::ListGroups`].
    ListGroups(g::ListGroupsRequestData),
    /// See [`Api::DeleteGroups`].
    DeleteGroups(g::DeleteGroupsRequestData),
    /// See [`Api::OffsetDelete`].
    OffsetDelete(g::OffsetDeleteRequestData),
    /// See [`Api::FindCoordinator`].
    FindCoordinator(g::FindCoordinatorRequestData),
    /// See [`Api::CreateTopics`].
    CreateTopics(g::CreateTopicsRequestData),
    /// See [`Api::DeleteTopics`].
    DeleteTopics(g::DeleteTopicsRequestData),
    /// See [`Api::DeleteRecords`].
    DeleteRecords(g::DeleteRecordsRequestData),
    /// See [`Api::InitProducerId`].
    InitProducerId(g::InitProducerIdRequestData),
    /// See [`Api::OffsetForLeaderEpoch`].
    OffsetForLeaderEpoch(g::OffsetForLeaderEpochRequestData),
    /// See [`Api::DescribeConfigs`].
    DescribeConfigs(g::DescribeConfigsRequestData),
    /// See [`Api::AlterConfigs`].
    AlterConfigs(g::AlterConfigsRequestData),
    /// See [`Api::DescribeLogDirs`].
    DescribeLogDirs(g::DescribeLogDirsRequestData),
    /// See [`Api::CreatePartitions`].
    CreatePartitions(g::CreatePartitionsRequestData),
    /// See [`Api::IncrementalAlterConfigs`].
    IncrementalAlterConfigs(g::IncrementalAlterConfigsRequestData),
    /// See [`Api::DescribeCluster`].
    DescribeCluster(g::DescribeClusterRequestData),
    /// See [`Api::DescribeTopicPartitions`].
    DescribeTopicPartitions(g::DescribeTopicPartitionsRequestData),
}

/// Reads the body of a request: what follows its header. Record batches come out as slices of `body`.
///
/// Allocates no more than a small multiple of the length of `body`, whatever lengths it claims.
///
/// # Errors
/// [`DecodeError`] says what is wrong; bytes after the last field are passed over, as brokers do.
pub fn decode(api: Api, version: i16, body: Bytes) -> Result<Request, DecodeError> {
    if !api.serves(version) {
        return Err(DecodeError::Unsupported { key: api.key(), version });
    }
    Ok(match api {
        Api::ApiVersions => {
            generated::check_api_versions(body, version)?;
            Request::ApiVersions
        }
        Api::Produce => Request::Produce(ProduceQuery::decode(version, body)?),
        Api::Fetch => Request::Fetch(FetchQuery::decode(version, body)?),
        Api::ListOffsets => Request::ListOffsets(generated::read(body, version)?),
        Api::Metadata => Request::Metadata(generated::read(body, version)?),
        Api::OffsetCommit => Request::OffsetCommit(generated::read(body, version)?),
        Api::OffsetFetch => Request::OffsetFetch(generated::read(body, version)?),
        Api::JoinGroup => Request::JoinGroup(generated::read(body, version)?),
        Api::Heartbeat => Request::Heartbeat(generated::read(body, version)?),
        Api::LeaveGroup => Request::LeaveGroup(generated::read(body, version)?),
        Api::SyncGroup => Request::SyncGroup(generated::read(body, version)?),
        Api::DescribeGroups => Request::DescribeGroups(generated::read(body, version)?),
        Api::ListGroups => Request::ListGroups(generated::read(body, version)?),
        Api::DeleteGroups => Request::DeleteGroups(generated::read(body, version)?),
        Api::OffsetDelete => Request::OffsetDelete(generated::read(body, version)?),
        Api::FindCoordinator => Request::FindCoordinator(generated::read(body, version)?),
        Api::CreateTopics => Request::CreateTopics(generated::read(body, version)?),
        Api::DeleteTopics => Request::DeleteTopics(generated::read(body, version)?),
        Api::DeleteRecords => Request::DeleteRecords(generated::read(body, version)?),
        Api::InitProducerId => Request::InitProducerId(generated::read(body, version)?),
        Api::OffsetForLeaderEpoch => Request::OffsetForLeaderEpoch(generated::read(body, version)?),
        Api::DescribeConfigs => Request::DescribeConfigs(generated::read(body, version)?),
        Api::AlterConfigs => Request::AlterConfigs(generated::read(body, version)?),
        Api::DescribeLogDirs => Request::DescribeLogDirs(generated::read(body, version)?),
        Api::CreatePartitions => Request::CreatePartitions(generated::read(body, version)?),
        Api::IncrementalAlterConfigs => Request::IncrementalAlterConfigs(generated::read(body, version)?),
        Api::DescribeCluster => Request::DescribeCluster(generated::read(body, version)?),
        Api::DescribeTopicPartitions => Request::DescribeTopicPartitions(generated::read(body, version)?),
    })
}
