//! Where the generated code is met: nothing else names its functions.

use bytes::{Bytes, BytesMut};
use kacrab_protocol::generated as g;

use super::DecodeError;
use super::wire::Body;

/// A message that the generated code reads.
pub(super) trait Incoming: Sized {
    fn read(bytes: &mut Bytes, version: i16) -> kacrab_protocol::Result<Self>;
}

/// A message that the generated code writes.
pub(crate) trait Outgoing {
    fn write(&self, bytes: &mut BytesMut, version: i16) -> kacrab_protocol::Result<()>;
}

macro_rules! incoming {
    ($($message:ident),* $(,)?) => {
        $(impl Incoming for g::$message {
            fn read(bytes: &mut Bytes, version: i16) -> kacrab_protocol::Result<Self> {
                g::$message::read(bytes, version)
            }
        })*
    };
}

macro_rules! outgoing {
    ($($message:ident),* $(,)?) => {
        $(impl Outgoing for g::$message {
            fn write(&self, bytes: &mut BytesMut, version: i16) -> kacrab_protocol::Result<()> {
                g::$message::write(self, bytes, version)
            }
        })*
    };
}

incoming!(
    // What another node answers.
    OffsetFetchResponseData,
    ListOffsetsRequestData,
    MetadataRequestData,
    OffsetCommitRequestData,
    OffsetFetchRequestData,
    JoinGroupRequestData,
    HeartbeatRequestData,
    LeaveGroupRequestData,
    SyncGroupRequestData,
    DescribeGroupsRequestData,
    ListGroupsRequestData,
    DeleteGroupsRequestData,
    OffsetDeleteRequestData,
    FindCoordinatorRequestData,
    CreateTopicsRequestData,
    DeleteTopicsRequestData,
    DeleteRecordsRequestData,
    InitProducerIdRequestData,
    OffsetForLeaderEpochRequestData,
    DescribeConfigsRequestData,
    AlterConfigsRequestData,
    DescribeLogDirsRequestData,
    CreatePartitionsRequestData,
    IncrementalAlterConfigsRequestData,
    DescribeClusterRequestData,
    DescribeTopicPartitionsRequestData,
);

outgoing!(
    // What one node asks another.
    OffsetFetchRequestData,
    ListOffsetsResponseData,
    MetadataResponseData,
    OffsetCommitResponseData,
    OffsetFetchResponseData,
    JoinGroupResponseData,
    HeartbeatResponseData,
    LeaveGroupResponseData,
    SyncGroupResponseData,
    DescribeGroupsResponseData,
    ListGroupsResponseData,
    DeleteGroupsResponseData,
    OffsetDeleteResponseData,
    FindCoordinatorResponseData,
    CreateTopicsResponseData,
    DeleteTopicsResponseData,
    DeleteRecordsResponseData,
    InitProducerIdResponseData,
    OffsetForLeaderEpochResponseData,
    DescribeConfigsResponseData,
    AlterConfigsResponseData,
    DescribeLogDirsResponseData,
    CreatePartitionsResponseData,
    IncrementalAlterConfigsResponseData,
    DescribeClusterResponseData,
    DescribeTopicPartitionsResponseData,
);

/// Reads a message.
pub(super) fn read<M: Incoming>(mut body: Bytes, version: i16) -> Result<M, DecodeError> {
    M::read(&mut body, version).map_err(|error| DecodeError::Malformed { reason: error.to_string() })
}

/// Reads what another node answers to a lookup of offsets.
///
/// # Errors
/// When it is no such answer.
pub(crate) fn read_offsets(body: Bytes, version: i16) -> Result<g::OffsetFetchResponseData, DecodeError> {
    read(body, version)
}

/// Whether the body of ApiVersions can be read; its content decides nothing.
pub(super) fn check_api_versions(mut body: Bytes, version: i16) -> Result<(), DecodeError> {
    let read = g::ApiVersionsRequestData::read(&mut body, version);
    read.map(|_| ()).map_err(|error| DecodeError::Malformed { reason: error.to_string() })
}

/// Writes a message. What has its default is left out where a tag would carry it.
///
/// # Errors
/// When the message holds what this version cannot say, such as a text of over 32 KiB.
pub(crate) fn encode(message: &impl Outgoing, version: i16) -> Result<Body, DecodeError> {
    let mut bytes = BytesMut::new();
    let written = message.write(&mut bytes, version);
    written.map_err(|error| DecodeError::Malformed { reason: error.to_string() })?;
    Ok(Body(vec![bytes.freeze()]))
}
