//! Partitions of topics page by page, and how much of them lies where.

use std::collections::{BTreeMap, BTreeSet};

use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use kacrab_protocol::generated::describe_topic_partitions_request::TopicRequest;
use kacrab_protocol::generated::describe_topic_partitions_response::Cursor;
use streamhouse_broker::metadata::{Partition, State, Topic};
use streamhouse_types::error_code::ErrorCode;

use super::{NOT_TOLD, Seats, TOPIC_OPERATIONS, answer, parse_name, text, uuid};
use crate::codec::{DecodeError, NodeEndpoint};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// Most partitions in one page.
const PAGE_MAX: usize = 2_000;
/// The directory that a node is said to have: what is written through it lies in the object store.
pub(super) const LOG_DIR: &str = "/object-store";

impl Kafka {
    pub(super) async fn describe_topic_partitions(
        &self,
        version: i16,
        query: g::DescribeTopicPartitionsRequestData,
    ) -> Result<Answer, DecodeError> {
        let from = match &query.cursor {
            None => None,
            Some(cursor) => match usize::try_from(cursor.partition_index) {
                Ok(index) => Some((cursor.topic_name.to_string(), index)),
                Err(_) => return bad_cursor(version, query.topics),
            },
        };
        let names: BTreeSet<String> = query.topics.iter().map(|topic| topic.name.to_string()).collect();
        // A topic that is not known here may have been made a moment ago.
        let unknown = |state: &State| names.iter().any(|name| find(state, name).is_err());
        if self.broker().look(unknown) {
            drop(self.broker().confirm_current().await);
        }
        // A copy, which is cheap: to describe all topics takes too long to hold the metadata for.
        let state = self.broker().state();
        let names = match names.is_empty() {
            true => state.topics().map(|topic| topic.name().as_str().to_owned()).collect(),
            false => names,
        };
        let limit = usize::try_from(query.response_partition_limit).unwrap_or(0).clamp(1, PAGE_MAX);
        let mut page = Page { left: limit, topics: Vec::new(), next: None };
        let nodes = self.nodes(&state);
        let (first, skipped) = from.unwrap_or_default();
        for name in names.range(first.clone()..) {
            let skipped = if *name == first { skipped } else { 0 };
            if page.left == 0 {
                page.next = Some((name.clone(), skipped));
                break;
            }
            self.turn(&mut page, find(&state, name), (name, skipped), &nodes);
            if page.next.is_some() {
                break;
            }
        }
        let cursor = |(topic, index): (String, usize)| Cursor {
            topic_name: text(&topic),
            partition_index: i32::try_from(index).unwrap_or(i32::MAX),
            ..Default::default()
        };
        let codes: Vec<i16> = page.topics.iter().map(|topic| topic.error_code).collect();
        let message = g::DescribeTopicPartitionsResponseData {
            topics: page.topics,
            next_cursor: page.next.map(cursor).map(Box::new),
            ..Default::default()
        };
        answer(&message, version, codes.into_iter().map(Code::raw))
    }

    /// Puts the partitions of a topic on the page, from the one numbered `skipped` on, as far as they fit.
    fn turn(
        &self,
        page: &mut Page,
        topic: Result<&Topic, Code>,
        (name, skipped): (&str, usize),
        nodes: &[NodeEndpoint],
    ) {
        let mut described = refused_topic(text(name), Code::NONE);
        match topic {
            Err(code) => described.error_code = code.get(),
            Ok(topic) => {
                described.topic_id = uuid(self.uuid_of(topic.id()));
                described.topic_authorized_operations = TOPIC_OPERATIONS;
                let partitions = topic.partitions().skip(skipped).take(page.left);
                described.partitions =
                    partitions.map(|partition| paged(partition, self.seats(partition, nodes))).collect();
                page.left -= described.partitions.len();
                let next = skipped + described.partitions.len();
                if next < topic.partitions().len() {
                    page.next = Some((name.to_owned(), next));
                }
            }
        }
        page.topics.push(described);
    }

    pub(super) fn describe_log_dirs(
        &self,
        version: i16,
        query: g::DescribeLogDirsRequestData,
    ) -> Result<Answer, DecodeError> {
        let asked: Option<BTreeMap<String, BTreeSet<i32>>> = query.topics.map(|topics| {
            let mut asked: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
            for topic in topics {
                asked.entry(topic.topic.to_string()).or_default().extend(topic.partitions);
            }
            asked
        });
        let state = self.broker().state();
        let (here, all) = (self.0.options.node, self.is_single_endpoint());
        let mut topics = Vec::new();
        for topic in state.topics() {
            let name = topic.name().as_str();
            let of_topic = asked.as_ref().map(|asked| asked.get(name));
            let wanted =
                |index: i32| of_topic.is_none_or(|wanted| wanted.is_some_and(|w| w.contains(&index)));
            let at_home = topic.partitions().filter(|partition| all || partition.home() == here);
            let sized = at_home.map(|partition| g::DescribeLogDirsPartition {
                partition_index: i32::try_from(partition.id().index.get()).unwrap_or(i32::MAX),
                partition_size: i64::try_from(partition.stored_bytes()).unwrap_or(i64::MAX),
                ..Default::default()
            });
            let partitions: Vec<_> = sized.filter(|sized| wanted(sized.partition_index)).collect();
            if !partitions.is_empty() {
                topics.push(g::DescribeLogDirsTopic { name: text(name), partitions, ..Default::default() });
            }
        }
        let result = g::DescribeLogDirsResult { log_dir: text(LOG_DIR), topics, ..Default::default() };
        let message = g::DescribeLogDirsResponseData { results: vec![result], ..Default::default() };
        answer(&message, version, [])
    }
}

/// What is told in one answer.
struct Page {
    /// Partitions that it has room for.
    left: usize,
    topics: Vec<g::DescribeTopicPartitionsResponseTopic>,
    /// Where the next one begins; `None` while this one may be the last.
    next: Option<(String, usize)>,
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Topic, Code> {
    state.topic_by_name(&parse_name(name)?).ok_or(Code::from(ErrorCode::TopicNotFound))
}

fn refused_topic(name: KafkaString, code: Code) -> g::DescribeTopicPartitionsResponseTopic {
    g::DescribeTopicPartitionsResponseTopic {
        error_code: code.get(),
        name: Some(name),
        topic_authorized_operations: NOT_TOLD,
        ..Default::default()
    }
}

/// A page begins at a partition from 0: this answer has no place for the error but at each topic.
fn bad_cursor(version: i16, topics: Vec<TopicRequest>) -> Result<Answer, DecodeError> {
    let refused = |topic: TopicRequest| refused_topic(topic.name, Code::INVALID_REQUEST);
    let topics = topics.into_iter().map(refused).collect();
    let message = g::DescribeTopicPartitionsResponseData { topics, ..Default::default() };
    answer(&message, version, [Code::INVALID_REQUEST])
}

fn paged(partition: &Partition, seats: Seats) -> g::DescribeTopicPartitionsResponsePartition {
    g::DescribeTopicPartitionsResponsePartition {
        error_code: seats.code.get(),
        partition_index: i32::try_from(partition.id().index.get()).unwrap_or(i32::MAX),
        leader_id: seats.leader,
        leader_epoch: i32::try_from(partition.epoch().get()).unwrap_or(i32::MAX),
        isr_nodes: seats.replicas.clone(),
        replica_nodes: seats.replicas,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    }
}
