//! Produce, versions 3 to 13.

use bytes::Bytes;

use super::wire::{Body, Form, Reader, Writer};
use super::{DecodeError, TopicRef};
use crate::{Api, Code};

/// Batches to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceQuery {
    pub(crate) transactional_id: Option<String>,
    /// −1 and 1 wait until the records are durable, 0 gets no answer at all.
    pub(crate) acks: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) topics: Vec<ProduceTopic>,
}

impl ProduceQuery {
    /// Whether the client waits for an answer.
    pub(crate) fn wants_answer(&self) -> bool {
        self.acks != 0
    }

    /// How many batches there are, or places for one.
    pub(crate) fn batches(&self) -> usize {
        self.topics.iter().map(|topic| topic.partitions.len()).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProduceTopic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<ProducePartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducePartition {
    pub(crate) index: i32,
    /// A slice of the request.
    pub(crate) records: Option<Bytes>,
}

impl ProduceQuery {
    pub(super) fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, Form::of(Api::Produce, version));
        let transactional_id = reader.nullable_string()?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topics = reader.array(2, |reader| {
            let topic =
                if version >= 13 { TopicRef::Id(reader.uuid()?) } else { TopicRef::Name(reader.string()?) };
            let partitions = reader.array(5, |reader| {
                let partition = ProducePartition { index: reader.i32()?, records: reader.nullable_bytes()? };
                reader.tags()?;
                Ok(partition)
            })?;
            reader.tags()?;
            Ok(ProduceTopic { topic, partitions })
        })?;
        reader.tags()?;
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }
}

/// What became of the batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProduceAnswer {
    pub(crate) topics: Vec<ProduceAnswerTopic>,
    /// The nodes that the hints below name.
    pub(crate) nodes: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProduceAnswerTopic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<ProduceAnswerPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProduceAnswerPartition {
    pub(crate) index: i32,
    pub(crate) code: Code,
    pub(crate) base_offset: i64,
    /// −1 unless the log gave the records their time.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) record_errors: Vec<RecordError>,
    pub(crate) message: Option<String>,
    /// Told with [`Code::NOT_LEADER`].
    pub(crate) leader: Option<LeaderHint>,
}

/// What is wrong with one record of a batch that was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordError {
    pub(crate) index: i32,
    pub(crate) message: String,
}

/// Where to go instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaderHint {
    pub(crate) node: i32,
    pub(crate) epoch: i32,
}

/// How to reach a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEndpoint {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// The tag that holds the nodes, at the end of Produce and Fetch.
pub(super) fn write_nodes(writer: &mut Writer, nodes: &[NodeEndpoint]) {
    if nodes.is_empty() {
        return writer.no_tags();
    }
    writer.one_tag(0, |writer| {
        writer.array(nodes.iter(), |writer, node| {
            writer.i32(node.id);
            writer.string(&node.host);
            writer.i32(node.port);
            writer.nullable_string(node.rack.as_deref());
            writer.no_tags();
        });
    });
}

pub(super) fn write_topic(writer: &mut Writer, topic: &TopicRef) {
    match topic {
        TopicRef::Name(name) => writer.string(name),
        TopicRef::Id(id) => writer.uuid(*id),
    }
}

pub(super) fn write_leader(writer: &mut Writer, tag: u32, leader: LeaderHint) {
    writer.one_tag(tag, |writer| {
        writer.i32(leader.node);
        writer.i32(leader.epoch);
        writer.no_tags();
    });
}

impl ProduceAnswer {
    /// Topics are named as the request of the same version did.
    pub(crate) fn encode(&self, version: i16) -> Body {
        let mut writer = Writer::new(Form::of(Api::Produce, version));
        writer.array(self.topics.iter(), |writer, topic| {
            write_topic(writer, &topic.topic);
            writer.array(topic.partitions.iter(), |writer, partition| partition.encode(writer, version));
            writer.no_tags();
        });
        writer.i32(0);
        if version >= 10 {
            write_nodes(&mut writer, &self.nodes);
        } else {
            writer.no_tags();
        }
        writer.finish()
    }
}

impl ProduceAnswerPartition {
    fn encode(&self, writer: &mut Writer, version: i16) {
        writer.i32(self.index);
        writer.i16(self.code.get());
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= 8 {
            writer.array(self.record_errors.iter(), |writer, error| {
                writer.i32(error.index);
                writer.string(&error.message);
                writer.no_tags();
            });
            writer.nullable_string(self.message.as_deref());
        }
        match self.leader {
            Some(leader) if version >= 10 => write_leader(writer, 0, leader),
            _ => writer.no_tags(),
        }
    }
}
