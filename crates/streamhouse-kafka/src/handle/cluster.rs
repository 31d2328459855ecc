//! Nodes, topics and who leads their partitions.

use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{State, Topic};
use streamhouse_types::TopicId;
use streamhouse_types::error_code::ErrorCode;

use super::{CLUSTER_OPERATIONS, NOT_TOLD, TOPIC_OPERATIONS, answer, parse_name, text, uuid};
use crate::codec::{DecodeError, NodeEndpoint, TopicUuid};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// The kind of endpoints that are told.
const NODES: i8 = 1;

/// What becomes of a topic that is asked for and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is made, where the node may.
    Make,
    /// The client is told.
    Tell,
}

/// What a request for a topic came to.
enum Asked {
    /// Found under this name, if it was asked for by one.
    There(TopicId, Option<kacrab_protocol::KafkaString>),
    Not {
        name: Option<kacrab_protocol::KafkaString>,
        id: TopicUuid,
        code: Code,
    },
}

impl Kafka {
    pub(super) async fn metadata(
        &self,
        version: i16,
        query: g::MetadataRequestData,
    ) -> Result<Answer, DecodeError> {
        let may_make = (version < 4 || query.allow_auto_topic_creation) && !self.is_draining();
        let missing = if may_make { Missing::Make } else { Missing::Tell };
        // The first version has no null, and means all by none.
        let asked = query.topics.filter(|topics| version > 0 || !topics.is_empty());
        let asked = match asked {
            None => self.broker().look(|state| {
                let there = |topic: &Topic| Asked::There(topic.id(), Some(text(topic.name().as_str())));
                state.topics().map(there).collect()
            }),
            Some(topics) => {
                let mut asked = Vec::with_capacity(topics.len());
                for topic in topics {
                    asked.push(self.look_up(topic, missing).await);
                }
                asked
            }
        };
        // A copy, which is cheap: to describe all topics takes too long to hold the metadata for.
        let (mut message, codes) = self.describe(&self.broker().state(), asked);
        if query.include_cluster_authorized_operations {
            message.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        if query.include_topic_authorized_operations {
            for topic in message.topics.iter_mut().filter(|topic| topic.error_code == Code::NONE.get()) {
                topic.topic_authorized_operations = TOPIC_OPERATIONS;
            }
        }
        answer(&message, version, codes)
    }

    async fn look_up(&self, topic: g::MetadataRequestTopic, missing: Missing) -> Asked {
        let Some(name) = topic.name else {
            let id = TopicUuid(topic.topic_id.to_bytes());
            return match self.find_by_id(id).await {
                Ok((_, found)) => Asked::There(found.id, None),
                Err(code) => Asked::Not { name: None, id, code },
            };
        };
        let found = match parse_name(name.as_str()) {
            Err(code) => Err(code),
            Ok(parsed) => {
                let found = match missing {
                    Missing::Make => self.broker().ensure_topic(&parsed).await,
                    Missing::Tell => self.broker().topic(&parsed).await,
                };
                found.map_err(|error| Code::from(error.code()))
            }
        };
        match found {
            Ok(info) => Asked::There(info.id, Some(name)),
            Err(code) => Asked::Not { name: Some(name), id: TopicUuid::default(), code },
        }
    }

    fn describe(&self, state: &State, asked: Vec<Asked>) -> (g::MetadataResponseData, Vec<Code>) {
        let nodes = self.nodes(state);
        let mut codes = Vec::new();
        let refused = |name, id, code: Code| g::MetadataResponseTopic {
            error_code: code.get(),
            name,
            topic_id: uuid(id),
            topic_authorized_operations: NOT_TOLD,
            ..Default::default()
        };
        let topics = asked.into_iter().map(|asked| match asked {
            Asked::There(id, name) => match state.topic(id) {
                Some(topic) => self.describe_topic(topic, &nodes),
                // Deleted since it was looked up; old versions have no topic without a name.
                None => {
                    let gone = match name {
                        Some(_) => Code::from(ErrorCode::TopicNotFound),
                        None => Code::UNKNOWN_TOPIC_ID,
                    };
                    codes.push(gone);
                    refused(name, self.uuid_of(id), gone)
                }
            },
            Asked::Not { name, id, code } => {
                codes.push(code);
                refused(name, id, code)
            }
        });
        let topics = topics.collect();
        let brokers = nodes.iter().map(|node| g::MetadataResponseBroker {
            node_id: node.id,
            host: text(&node.host),
            port: node.port,
            rack: node.rack.as_deref().map(text),
            ..Default::default()
        });
        let message = g::MetadataResponseData {
            brokers: brokers.collect(),
            cluster_id: Some(text(&self.0.options.cluster.to_string())),
            controller_id: controller(&nodes),
            topics,
            cluster_authorized_operations: NOT_TOLD,
            ..Default::default()
        };
        (message, codes)
    }

    fn describe_topic(&self, topic: &Topic, nodes: &[NodeEndpoint]) -> g::MetadataResponseTopic {
        let partitions = topic.partitions().map(|partition| {
            let seats = self.seats(partition, nodes);
            g::MetadataResponsePartition {
                error_code: seats.code.get(),
                partition_index: i32::try_from(partition.id().index.get()).unwrap_or(i32::MAX),
                leader_id: seats.leader,
                leader_epoch: i32::try_from(partition.epoch().get()).unwrap_or(i32::MAX),
                replica_nodes: seats.replicas.clone(),
                isr_nodes: seats.replicas,
                ..Default::default()
            }
        });
        g::MetadataResponseTopic {
            name: Some(text(topic.name().as_str())),
            topic_id: uuid(self.uuid_of(topic.id())),
            partitions: partitions.collect(),
            topic_authorized_operations: NOT_TOLD,
            ..Default::default()
        }
    }

    pub(super) fn describe_cluster(
        &self,
        version: i16,
        query: &g::DescribeClusterRequestData,
    ) -> Result<Answer, DecodeError> {
        let mut message = g::DescribeClusterResponseData {
            endpoint_type: NODES,
            cluster_id: text(&self.0.options.cluster.to_string()),
            controller_id: -1,
            cluster_authorized_operations: NOT_TOLD,
            ..Default::default()
        };
        if query.endpoint_type != NODES {
            let code = Code::MISMATCHED_ENDPOINT_TYPE;
            message.error_code = code.get();
            message.error_message = Some(text("this address answers for nodes, not for controllers"));
            return answer(&message, version, [code]);
        }
        if query.include_cluster_authorized_operations {
            message.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        let nodes = self.broker().look(|state| self.nodes(state));
        message.controller_id = controller(&nodes);
        let brokers = nodes.iter().map(|node| g::DescribeClusterBroker {
            broker_id: node.id,
            host: text(&node.host),
            port: node.port,
            rack: node.rack.as_deref().map(text),
            ..Default::default()
        });
        message.brokers = brokers.collect();
        answer(&message, version, [])
    }
}

/// Some clients send what changes topics to one node only; any will do, and this one is the same at all nodes.
fn controller(nodes: &[NodeEndpoint]) -> i32 {
    nodes.first().map_or(-1, |node| node.id)
}
