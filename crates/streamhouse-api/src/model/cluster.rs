//! What a node tells about the cluster.

use std::time::Duration;

use streamhouse_proto::v1;
use streamhouse_types::{Epoch, NodeId, PartitionIndex};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// What it is up to.
    pub state: NodeState,
    /// `broker` or `reader`.
    pub role: String,
    /// Where it stands, as its settings say.
    pub zone: String,
    /// Of its binary.
    pub version: String,
    /// Counts its starts.
    pub incarnation: u64,
    /// Where clients reach it; empty when it takes none now.
    pub grpc_address: String,
    /// Where the other nodes reach it.
    pub internal_address: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// How many partitions it is the home of.
    pub homes: u32,
    /// Since the leader heard of it last; `None` when the one who answers cannot tell.
    pub last_heard: Option<Duration>,
    /// How far it has applied the metadata, as the leader knows it.
    pub applied_index: u64,
    /// The newest feature level that it can work at.
    pub feature_level_max: u32,
}

/// What a node is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// It takes requests and may have homes.
    Serving,
    /// It was silent for longer than its lease: its homes go to others.
    Dead,
    /// It gives its homes away.
    Draining,
    /// It has no homes left, and is given none.
    Drained,
    /// Its last incarnation is closed and it has not registered again.
    Stopped,
    /// It answers, but its writes to the object store fail while those of others go through: its homes go to them.
    CutOff,
    /// Not known: the node that was asked finds nobody who leads a majority, or this client is older than the state.
    Unknown,
}

impl NodeState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Dead => "dead",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
            Self::CutOff => "cut-off",
            Self::Unknown => "unknown",
        }
    }
}

/// A Kafka client that is held back by the way it produces: it waits for answers most of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldBackClient {
    /// Its name, as it gives it; empty where it gives none.
    pub client_id: String,
    /// How many of its connections are held back.
    pub connections: u32,
    /// Requests that a connection leaves unanswered.
    pub requests_in_flight: u32,
    /// Mean size of its batches, in bytes.
    pub batch_bytes: u64,
    /// Mean time from a request to its answer.
    pub answer: Duration,
    /// What its connections can produce at most that way.
    pub bytes_per_second: u64,
    /// What to change, in a sentence.
    pub advice: String,
}

impl From<v1::HeldBackClient> for HeldBackClient {
    fn from(client: v1::HeldBackClient) -> Self {
        Self {
            client_id: client.client_id,
            connections: client.connections,
            requests_in_flight: client.requests_in_flight,
            batch_bytes: client.batch_bytes,
            answer: duration(client.answer).unwrap_or_default(),
            bytes_per_second: client.bytes_per_second,
            advice: client.advice,
        }
    }
}

/// A node with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeDescription {
    /// The node.
    pub node: NodeInfo,
    /// The partitions that it is the home of.
    pub homes: Vec<NodeHome>,
}

/// A partition that is at home on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeHome {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Counts the changes of home.
    pub epoch: Epoch,
}

/// What the removal of a node means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeRemoval {
    /// Homes that go to other nodes.
    pub homes_to_move: u32,
    /// The voters afterwards. The node itself is among them when no other can take over its vote: it keeps it until another
    /// node joins.
    pub voters: Vec<NodeId>,
}

/// Whether the cluster is well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterHealth {
    /// Whether every check is.
    pub healthy: bool,
    /// What was looked at.
    pub checks: Vec<HealthCheck>,
    /// Nodes there are.
    pub nodes: u32,
    /// Nodes that take requests; 0 while nobody leads, as it is not known then.
    pub nodes_serving: u32,
    /// Voters there are.
    pub voters: u32,
    /// Voters there should be.
    pub wanted_voters: u32,
    /// Topics.
    pub topics: u64,
    /// Partitions of all topics.
    pub partitions: u64,
    /// Partitions whose home takes no requests.
    pub partitions_without_home: u64,
    /// What all nodes can do together.
    pub feature_level: u32,
    /// Who leads.
    pub leader: Option<NodeId>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// Such as `leader`, `nodes`, `homes`, `voters`, `store`.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found, for a person.
    pub evidence: String,
    /// What to do about it; empty when it is well.
    pub fix: String,
}

/// How the nodes agree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaftStatus {
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Counts the elections.
    pub term: u64,
    /// The newest entry of the log.
    pub last_log_index: u64,
    /// The newest entry that a quorum has.
    pub committed_index: u64,
    /// The newest entry that was applied.
    pub applied_index: u64,
    /// Up to where a snapshot stands for the log.
    pub snapshot_index: u64,
    /// All members.
    pub members: Vec<RaftMember>,
}

/// A member of the group that agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaftMember {
    /// The node.
    pub node: NodeId,
    /// Where the others reach it.
    pub address: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// The newest entry that it has, as the leader knows.
    pub matched_index: Option<u64>,
    /// Since it answered the leader last.
    pub last_contact: Option<Duration>,
}

/// What a rebalancing moves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalance {
    /// All nodes with their shares.
    pub nodes: Vec<NodeLoad>,
    /// Each home that moves.
    pub moves: Vec<HomeMove>,
}

/// What a node gives away, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeDrain {
    /// The node.
    pub node: NodeInfo,
    /// Each home that moves.
    pub moves: Vec<HomeMove>,
    /// Who leads instead of it, when it leads and another voter can.
    pub successor: Option<NodeId>,
}

impl NodeDrain {
    /// Reads an answer; `None` when there is no node in it.
    #[must_use]
    pub fn of(drain: v1::DrainNodeResponse) -> Option<Self> {
        Some(Self {
            node: drain.node?.into(),
            moves: drain.moves.into_iter().map(HomeMove::from).collect(),
            successor: node_id(drain.successor_id),
        })
    }
}

/// How many homes a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLoad {
    /// The node.
    pub node: NodeId,
    /// Before the moves.
    pub homes_before: u32,
    /// After them.
    pub homes_after: u32,
}

/// A home that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HomeMove {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where it was; `None` when it had no home.
    pub from: Option<NodeId>,
    /// Where it goes.
    pub to: NodeId,
}

/// A node's id; 0 stands for none.
#[must_use]
pub fn node_id(raw: u64) -> Option<NodeId> {
    (raw != 0).then(|| NodeId::new(raw))
}

/// `None` for a time that is not there, or lies in the past.
pub(crate) fn duration(time: Option<prost_types::Duration>) -> Option<Duration> {
    time.and_then(|time| Duration::try_from(time).ok())
}

impl From<v1::Node> for NodeInfo {
    fn from(node: v1::Node) -> Self {
        let state = match node.state() {
            v1::NodeState::Serving => NodeState::Serving,
            v1::NodeState::Dead => NodeState::Dead,
            v1::NodeState::Draining => NodeState::Draining,
            v1::NodeState::Drained => NodeState::Drained,
            v1::NodeState::Stopped => NodeState::Stopped,
            v1::NodeState::CutOff => NodeState::CutOff,
            v1::NodeState::Unspecified => NodeState::Unknown,
        };
        Self {
            id: NodeId::new(node.id),
            state,
            role: node.role,
            zone: node.zone,
            version: node.version,
            incarnation: node.incarnation,
            grpc_address: node.grpc_address,
            internal_address: node.internal_address,
            voter: node.voter,
            leader: node.leader,
            homes: node.homes,
            last_heard: duration(node.last_heard),
            applied_index: node.applied_index,
            feature_level_max: node.feature_level_max,
        }
    }
}

impl NodeDescription {
    /// `None` when the answer names no node.
    #[must_use]
    pub fn of(answer: v1::DescribeNodeResponse) -> Option<Self> {
        let homes = answer.homes.into_iter().map(NodeHome::from).collect();
        Some(Self { node: answer.node?.into(), homes })
    }
}

impl From<v1::NodeHome> for NodeHome {
    fn from(home: v1::NodeHome) -> Self {
        let partition = PartitionIndex::new(home.partition);
        Self { topic: home.topic, partition, epoch: Epoch::new(home.epoch) }
    }
}

impl From<v1::RemoveNodeResponse> for NodeRemoval {
    fn from(removal: v1::RemoveNodeResponse) -> Self {
        let voters = removal.voters.into_iter().map(NodeId::new).collect();
        Self { homes_to_move: removal.homes_to_move, voters }
    }
}

impl From<v1::GetHealthResponse> for ClusterHealth {
    fn from(health: v1::GetHealthResponse) -> Self {
        let check = |check: v1::HealthCheck| HealthCheck {
            name: check.name,
            ok: check.ok,
            evidence: check.evidence,
            fix: check.fix,
        };
        Self {
            healthy: health.healthy,
            checks: health.checks.into_iter().map(check).collect(),
            nodes: health.nodes,
            nodes_serving: health.nodes_serving,
            voters: health.voters,
            wanted_voters: health.wanted_voters,
            topics: health.topics,
            partitions: health.partitions,
            partitions_without_home: health.partitions_without_home,
            feature_level: health.feature_level,
            leader: node_id(health.leader_id),
        }
    }
}

impl From<v1::GetRaftStatusResponse> for RaftStatus {
    fn from(status: v1::GetRaftStatusResponse) -> Self {
        let member = |member: v1::RaftMember| RaftMember {
            node: NodeId::new(member.node_id),
            address: member.address,
            voter: member.voter,
            matched_index: member.matched_index,
            last_contact: duration(member.last_contact),
        };
        Self {
            leader: node_id(status.leader_id),
            term: status.term,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            members: status.members.into_iter().map(member).collect(),
        }
    }
}

impl From<v1::RebalanceResponse> for Rebalance {
    fn from(rebalance: v1::RebalanceResponse) -> Self {
        let load = |load: v1::NodeLoad| NodeLoad {
            node: NodeId::new(load.node_id),
            homes_before: load.homes_before,
            homes_after: load.homes_after,
        };
        Self {
            nodes: rebalance.nodes.into_iter().map(load).collect(),
            moves: rebalance.moves.into_iter().map(HomeMove::from).collect(),
        }
    }
}

impl From<v1::HomeMove> for HomeMove {
    fn from(home: v1::HomeMove) -> Self {
        Self {
            topic: home.topic,
            partition: PartitionIndex::new(home.partition),
            from: node_id(home.from_node),
            to: NodeId::new(home.to_node),
        }
    }
}
