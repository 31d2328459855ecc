//! Fetch, versions 4 to 18.

use bytes::Bytes;

use super::produce::{LeaderHint, NodeEndpoint, write_leader, write_nodes, write_topic};
use super::wire::{Body, Form, Reader, Writer};
use super::{DecodeError, TopicRef};
use crate::{Api, Code};

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchQuery {
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    /// 1: only what no open transaction holds back.
    pub(crate) isolation: i8,
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    pub(crate) topics: Vec<FetchTopic>,
    /// The rack of the client, which may be empty: it would rather read from a node there.
    pub(crate) rack: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchTopic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<FetchPartition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchPartition {
    pub(crate) index: i32,
    /// The leader epoch that the client knows; −1 when it knows none.
    pub(crate) leader_epoch: i32,
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
}

impl FetchQuery {
    pub(super) fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, Form::of(Api::Fetch, version));
        if version <= 14 {
            let _replica = reader.i32()?;
        }
        let (max_wait_ms, min_bytes, max_bytes) = (reader.i32()?, reader.i32()?, reader.i32()?);
        let isolation = reader.i8()?;
        let (session_id, session_epoch) = if version >= 7 { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let topics = reader.array(2, |reader| {
            let topic = read_topic(reader, version)?;
            let partitions = reader.array(16, |reader| FetchPartition::decode(reader, version))?;
            reader.tags()?;
            Ok(FetchTopic { topic, partitions })
        })?;
        if version >= 7 {
            // What a session no longer wants; there are no sessions.
            reader.array(2, |reader| {
                read_topic(reader, version)?;
                reader.array(4, Reader::i32)?;
                reader.tags()
            })?;
        }
        let rack = if version >= 11 { reader.nullable_string()?.unwrap_or_default() } else { String::new() };
        reader.tags()?;
        Ok(Self { max_wait_ms, min_bytes, max_bytes, isolation, session_id, session_epoch, topics, rack })
    }
}

fn read_topic(reader: &mut Reader, version: i16) -> Result<TopicRef, DecodeError> {
    Ok(if version >= 13 { TopicRef::Id(reader.uuid()?) } else { TopicRef::Name(reader.string()?) })
}

impl FetchPartition {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let index = reader.i32()?;
        let leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
        let offset = reader.i64()?;
        if version >= 12 {
            let _last_fetched_epoch = reader.i32()?;
        }
        if version >= 5 {
            let _log_start = reader.i64()?;
        }
        let max_bytes = reader.i32()?;
        reader.tags()?;
        Ok(Self { index, leader_epoch, offset, max_bytes })
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchAnswer {
    pub(crate) code: Code,
    pub(crate) topics: Vec<FetchAnswerTopic>,
    /// The nodes that the hints below name.
    pub(crate) nodes: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchAnswerTopic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<FetchAnswerPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FetchAnswerPartition {
    pub(crate) index: i32,
    pub(crate) code: Code,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    /// Whether the client asked for the transactions that were aborted; there are none.
    pub(crate) lists_aborted: bool,
    /// Whole batches; a batch may be spread over pieces.
    pub(crate) records: Vec<Bytes>,
    /// Told with [`Code::NOT_LEADER`] and its like.
    pub(crate) leader: Option<LeaderHint>,
    /// The node that the client had better read from.
    pub(crate) preferred: Option<i32>,
}

impl FetchAnswer {
    /// Topics are named as the request of the same version did.
    pub(crate) fn encode(self, version: i16) -> Body {
        let mut writer = Writer::new(Form::of(Api::Fetch, version));
        writer.i32(0);
        if version >= 7 {
            writer.i16(self.code.get());
            writer.i32(0);
        }
        writer.array(self.topics.into_iter(), |writer, topic| {
            write_topic(writer, &topic.topic);
            writer.array(topic.partitions.into_iter(), |writer, partition| {
                partition.encode(writer, version);
            });
            writer.no_tags();
        });
        if version >= 16 {
            write_nodes(&mut writer, &self.nodes);
        } else {
            writer.no_tags();
        }
        writer.finish()
    }
}

impl FetchAnswerPartition {
    fn encode(self, writer: &mut Writer, version: i16) {
        writer.i32(self.index);
        writer.i16(self.code.get());
        writer.i64(self.high_watermark);
        // Without transactions everything is stable.
        writer.i64(self.high_watermark);
        if version >= 5 {
            writer.i64(self.log_start);
        }
        if self.lists_aborted {
            writer.array(std::iter::empty::<i64>(), |writer, producer| writer.i64(producer));
        } else {
            writer.no_array();
        }
        if version >= 11 {
            writer.i32(self.preferred.unwrap_or(-1));
        }
        writer.pieces(self.records);
        match self.leader {
            Some(leader) if version >= 12 => write_leader(writer, 1, leader),
            _ => writer.no_tags(),
        }
    }
}
