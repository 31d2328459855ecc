//! What each request means to the broker.

mod alter;
mod cluster;
mod configs;
mod describe;
mod fetch;
mod group_admin;
mod group_offsets;
mod groups;
mod node_configs;
mod offsets;
mod partitions;
mod pass_on;
mod produce;
mod topics;

use bytes::Bytes;
use kacrab_protocol::{KafkaString, KafkaUuid};
use streamhouse_broker::metadata::{Partition, State, TopicSettings};
use streamhouse_broker::{TopicError, TopicInfo};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{PartitionId, PartitionIndex, TopicId, TopicName};

pub(crate) use fetch::FETCH_BYTES_MAX;
pub(crate) use pass_on::Caller;

use crate::codec::{
    ApiVersionsAnswer, DecodeError, LeaderHint, NodeEndpoint, Request, TopicRef, TopicUuid, encode,
};
use crate::connection::{Answer, Reply};
use crate::{Code, Kafka, Presentation};

/// The name under which nodes tell each other where Kafka clients reach them.
const LISTENER: &str = "kafka";
/// What a client may do, as it is told to who did not ask.
const NOT_TOLD: i32 = i32::MIN;
/// What a client may do with a topic, the cluster and a group: all there is, as nobody is refused anything yet. Bits for
/// the codes of `AclOperation` in Kafka's own client: 3 read, 4 write, 5 create, 6 delete, 7 alter, 8 describe, 9 actions
/// of the cluster, 10 describe settings, 11 alter settings, 12 idempotent writes.
const TOPIC_OPERATIONS: i32 = 0b0_1101_1111_1000;
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
const GROUP_OPERATIONS: i32 = 0b0_0001_0100_1000;
/// The number of the one broker that the cluster is where it stands behind one address. No node has it.
const ENDPOINT: i32 = 0;
/// Lookups of one request at a time.
const AT_ONCE: usize = 16;

/// A topic that was asked for and is there.
#[derive(Debug, Clone)]
struct Found {
    id: TopicId,
    settings: TopicSettings,
}

impl From<TopicInfo> for Found {
    fn from(info: TopicInfo) -> Self {
        Self { id: info.id, settings: info.settings }
    }
}

/// Why something was not done, for one topic, partition or resource.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The request is not one that can be carried out.
    fn request(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_REQUEST, message)
    }
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        // The cause says more than "request was refused".
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Self::new(error.code(), format!("{error}{cause}"))
    }
}

impl Kafka {
    /// Answers a request other than for batches. Dropping it leaves what was begun to whoever does it.
    pub(crate) async fn answer(
        self,
        version: i16,
        (request, body): (Request, Bytes),
        caller: Caller,
    ) -> Answer {
        let passed_on = self.passed_on(version, (&request, &body), &caller).await;
        drop(body);
        let answered = match passed_on {
            Some(answered) => answered,
            None => self.answer_here(version, request, caller).await,
        };
        answered.unwrap_or_else(|error| {
            tracing::warn!(%error, "an answer cannot be written");
            Answer { reply: Reply::End, code: Code::from(ErrorCode::Internal), permit: None }
        })
    }

    async fn answer_here(
        self,
        version: i16,
        request: Request,
        caller: Caller,
    ) -> Result<Answer, DecodeError> {
        match request {
            Request::ApiVersions => Ok(self.api_versions(version)),
            Request::ListOffsets(query) => self.list_offsets(version, query).await,
            Request::OffsetForLeaderEpoch(query) => self.epoch_ends(version, query).await,
            Request::Metadata(query) => self.metadata(version, query).await,
            Request::FindCoordinator(query) => self.find_coordinator(version, &query),
            Request::JoinGroup(query) => self.join_group(version, query, caller).await,
            Request::SyncGroup(query) => self.sync_group(version, query).await,
            Request::Heartbeat(query) => self.heartbeat(version, query).await,
            Request::LeaveGroup(query) => self.leave_group(version, query).await,
            Request::OffsetCommit(query) => self.offset_commit(version, query).await,
            Request::OffsetFetch(query) => self.offset_fetch(version, query, &caller).await,
            Request::OffsetDelete(query) => self.offset_delete(version, query).await,
            Request::DescribeGroups(query) => self.describe_groups(version, query).await,
            Request::ListGroups(query) => self.list_groups(version, query).await,
            Request::DeleteGroups(query) => self.delete_groups(version, query).await,
            Request::DescribeCluster(query) => self.describe_cluster(version, &query),
            Request::CreateTopics(query) => self.create_topics(version, query).await,
            Request::DeleteTopics(query) => self.delete_topics(version, query).await,
            Request::InitProducerId(query) => self.init_producer_id(version, &query).await,
            Request::DescribeConfigs(query) => self.describe_configs(version, query).await,
            Request::AlterConfigs(query) => self.alter_configs(version, query).await,
            Request::IncrementalAlterConfigs(query) => self.alter_configs_by_step(version, query).await,
            Request::CreatePartitions(query) => self.create_partitions(version, query).await,
            Request::DeleteRecords(query) => self.delete_records(version, query).await,
            Request::DescribeLogDirs(query) => self.describe_log_dirs(version, query),
            Request::DescribeTopicPartitions(query) => self.describe_topic_partitions(version, query).await,
            Request::Produce(_) | Request::Fetch(_) => {
                unreachable!("batches come and go where turns are taken")
            }
        }
    }

    /// What is spoken here, in the form of any version.
    pub(crate) fn api_versions(self, version: i16) -> Answer {
        let answer = ApiVersionsAnswer::to(version);
        Answer::of(answer.encode(version), answer.code)
    }

    /// The topic that a request names. Only metadata known to be current say that there is none.
    async fn find(&self, topic: &TopicRef) -> Result<Found, Code> {
        match topic {
            TopicRef::Name(name) => {
                let name = parse_name(name)?;
                self.broker().topic(&name).await.map(Found::from).map_err(|error| error.code().into())
            }
            TopicRef::Id(uuid) => self.find_by_id(*uuid).await.map(|(_, found)| found),
        }
    }

    async fn find_by_id(&self, uuid: TopicUuid) -> Result<(TopicName, Found), Code> {
        let id = self.topic_of(uuid).ok_or(Code::UNKNOWN_TOPIC_ID)?;
        let look = || {
            self.broker().look(|state| {
                let topic = state.topic(id)?;
                Some((topic.name().clone(), Found { id, settings: topic.settings().clone() }))
            })
        };
        if let Some(found) = look() {
            return Ok(found);
        }
        let current = self.broker().confirm_current().await;
        current.map_err(|_| Code::from(ErrorCode::MetadataUnavailable))?;
        look().ok_or(Code::UNKNOWN_TOPIC_ID)
    }

    /// The id of a topic as Kafka shows it: the cluster's, with the topic's number in its second half.
    fn uuid_of(&self, topic: TopicId) -> TopicUuid {
        let cluster = u128::from_be_bytes(*self.0.options.cluster.as_bytes());
        TopicUuid((cluster ^ u128::from(topic.get())).to_be_bytes())
    }

    fn topic_of(&self, TopicUuid(bytes): TopicUuid) -> Option<TopicId> {
        let TopicUuid(cluster) = self.uuid_of(TopicId::new(0));
        let number = u128::from_be_bytes(cluster) ^ u128::from_be_bytes(bytes);
        u64::try_from(number).ok().map(TopicId::new)
    }

    /// Refuses a client that knows another epoch of a partition than this node, which then has caught up with the
    /// cluster.
    async fn check_epoch(&self, id: PartitionId, known: i32) -> Result<(), Code> {
        let Ok(known) = u32::try_from(known) else { return Ok(()) };
        let epoch = || self.broker().look(|state| state.partition(id).map(|found| found.epoch().get()));
        match epoch() {
            Some(here) if known < here => Err(Code::FENCED_LEADER_EPOCH),
            Some(here) if known > here => {
                let current = self.broker().confirm_current().await;
                let caught_up = current.is_ok() && epoch().is_some_and(|here| known <= here);
                if caught_up { Ok(()) } else { Err(Code::UNKNOWN_LEADER_EPOCH) }
            }
            _ => Ok(()),
        }
    }

    /// What clients can go to now, by id.
    fn nodes(&self, state: &State) -> Vec<NodeEndpoint> {
        let nodes = nodes(state);
        match &self.0.options.presentation {
            Presentation::SingleEndpoint { host, port } if !nodes.is_empty() => {
                vec![NodeEndpoint { id: ENDPOINT, host: host.clone(), port: (*port).into(), rack: None }]
            }
            _ => nodes,
        }
    }

    /// The number under which clients are told the leader of a partition.
    fn leader(&self, partition: &Partition) -> Option<i32> {
        if self.is_single_endpoint() { Some(ENDPOINT) } else { leader_id(partition) }
    }

    fn seats(&self, partition: &Partition, nodes: &[NodeEndpoint]) -> Seats {
        let leader = self.leader(partition).filter(|leader| nodes.iter().any(|node| node.id == *leader));
        let others = nodes.iter().map(|node| node.id).filter(|id| Some(*id) != leader);
        let code = match leader {
            Some(_) => Code::NONE,
            None => ErrorCode::MetadataUnavailable.into(),
        };
        Seats { leader: leader.unwrap_or(-1), replicas: leader.into_iter().chain(others).collect(), code }
    }

    /// Where a client goes that this node sends away.
    fn hint(&self, id: Option<PartitionId>) -> Option<(LeaderHint, NodeEndpoint)> {
        if self.is_adrift() {
            return None;
        }
        self.broker().look(|state| {
            let partition = state.partition(id?)?;
            let leader = self.leader(partition);
            let node = self.nodes(state).into_iter().find(|node| Some(node.id) == leader)?;
            let epoch = i32::try_from(partition.epoch().get()).ok()?;
            Some((LeaderHint { node: node.id, epoch }, node))
        })
    }
}

/// The partition of this number; `None` for numbers that no partition has.
fn partition(topic: TopicId, index: i32) -> Option<PartitionId> {
    u32::try_from(index).ok().map(|index| PartitionId::new(topic, PartitionIndex::new(index)))
}

fn parse_name(name: &str) -> Result<TopicName, Code> {
    name.parse().map_err(|_| Code::from(ErrorCode::InvalidName))
}

/// The same, for who tells more than a code.
fn topic_name(name: &str) -> Result<TopicName, Refusal> {
    parse_name(name).map_err(|code| Refusal::new(code, ErrorCode::InvalidName.hint()))
}

/// The nodes that Kafka clients can go to now, by id.
fn nodes(state: &State) -> Vec<NodeEndpoint> {
    let endpoint = |node: &streamhouse_broker::metadata::NodeEntry| {
        let (host, port) = node.address(LISTENER)?.rsplit_once(':')?;
        Some(NodeEndpoint {
            id: i32::try_from(node.id().get()).ok()?,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.parse::<u16>().ok()?.into(),
            rack: Some(node.zone().to_owned()).filter(|zone| !zone.is_empty()),
        })
    };
    state.eligible_homes().filter_map(endpoint).collect()
}

/// Where a partition is, as clients are told.
struct Seats {
    /// −1 while the node that leads takes no requests.
    leader: i32,
    /// Every node has everything: the leader first, then the others.
    replicas: Vec<i32>,
    code: Code,
}

fn leader_id(partition: &Partition) -> Option<i32> {
    i32::try_from(partition.home().get()).ok()
}

/// An offset as Kafka writes it.
fn wire_offset(offset: streamhouse_types::Offset) -> i64 {
    i64::try_from(offset.get()).unwrap_or(i64::MAX)
}

fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_owned())
}

fn uuid(TopicUuid(bytes): TopicUuid) -> KafkaUuid {
    let half = |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().expect("eight bytes"));
    KafkaUuid::from_parts(half(0), half(8))
}

/// Writes an answer whose first error is known.
fn answer(
    message: &impl crate::codec::Outgoing,
    version: i16,
    errors: impl IntoIterator<Item = Code>,
) -> Result<Answer, DecodeError> {
    let code = errors.into_iter().find(|code| *code != Code::NONE).unwrap_or(Code::NONE);
    Ok(Answer::of(encode(message, version)?, code))
}
