//! What a node says of itself and of the cluster.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use openraft::{Instant as _, RaftMetrics};
use streamhouse_types::{LogIndex, NodeId};
use tokio::sync::watch;

use super::{Inner, RaftNode};
use crate::types::TypeConfig;

/// A follower this many entries behind has caught up: a busy log is always ahead of it by a little.
const CAUGHT_UP_ENTRIES: u64 = 100;
/// A leader that no majority has answered for so many times the longest silence that makes a follower stand for election
/// has none: another may lead by now.
const ALONE_SILENCES: u32 = 2;

/// Who leads, as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader and its address. Only a commit or [`read_index`](RaftNode::read_index) proves that it still leads.
    pub leader: Option<(NodeId, String)>,
    /// The current term. One node leads in a term, or none.
    pub term: u64,
    /// Whether it is this node.
    pub leads: bool,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMember {
    /// Who it is.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub address: String,
    /// Whether it votes; a learner only follows. While voters change, old and new ones are voters.
    pub is_voter: bool,
}

/// A node of the cluster, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMemberStatus {
    /// Who it is.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub address: String,
    /// Whether it votes.
    pub is_voter: bool,
    /// The last entry that it is known to have; only the leader knows.
    pub matched: Option<LogIndex>,
    /// How long ago it got something that it has answered since; only the leader knows.
    pub last_contact: Option<Duration>,
}

/// The metadata log on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub node: NodeId,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log: LogIndex,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogIndex>,
    /// The last entry that it has applied.
    pub applied: LogIndex,
    /// The last entry in its newest snapshot.
    pub snapshot: LogIndex,
    /// All nodes of the cluster.
    pub members: Vec<RaftMemberStatus>,
}

impl Leadership {
    pub(super) fn of(node: NodeId, now: &RaftMetrics<TypeConfig>) -> Self {
        let leader = now.current_leader.map(|leader| {
            let member = now.membership_config.membership().get_node(&leader);
            (NodeId::new(leader), member.map(|member| member.addr.clone()).unwrap_or_default())
        });
        let leads = now.state.is_leader() && now.current_leader == Some(node.get());
        Self { leader, term: now.current_term, leads }
    }
}

/// The members by the newest membership in the log, committed or not.
pub(super) fn members_of(now: &RaftMetrics<TypeConfig>) -> impl Iterator<Item = RaftMember> {
    let membership = now.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    membership.nodes().map(move |(node, member)| RaftMember {
        node: NodeId::new(*node),
        address: member.addr.clone(),
        is_voter: voters.contains(node),
    })
}

impl RaftNode {
    /// The nodes of the cluster by the newest membership in this node's log, in the order of their ids. May lag behind what
    /// is applied by a moment.
    #[must_use]
    pub fn members(&self) -> Vec<RaftMember> {
        members_of(&self.inner.raft.metrics().borrow_watched()).collect()
    }

    /// How the metadata log stands, as this node sees it.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        let last_log = LogIndex::new(now.last_log_index.unwrap_or(0));
        let members = members_of(&now).map(|RaftMember { node, address, is_voter }| {
            let (matched, last_contact) = if node == self.inner.node {
                let leads = now.replication.is_some();
                (leads.then_some(last_log), leads.then_some(Duration::ZERO))
            } else {
                (matched(&now, node), last_contact(&now, node))
            };
            RaftMemberStatus { node, address, is_voter, matched, last_contact }
        });
        RaftStatus {
            node: self.inner.node,
            leader: now.current_leader.map(NodeId::new),
            term: now.current_term,
            last_log,
            committed: now.local_committed.map(|id| LogIndex::new(id.index())),
            applied: *self.inner.view.applied.borrow(),
            snapshot: LogIndex::new(self.inner.view.snapshot_index.load(Ordering::Relaxed)),
            members: members.collect(),
        }
    }

    /// Who leads, as it changes: the leader, its address, the term.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// Whether this node believes that it leads. Only a commit or [`read_index`](Self::read_index) proves it.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.raft.metrics().borrow_watched().current_leader.map(NodeId::new)
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.inner.raft.metrics().borrow_watched().current_term
    }

    /// Whether a learner answers and has nearly all of the log, so that its vote would not slow commits down. `false` on a
    /// node that does not lead: only the leader knows.
    #[must_use]
    pub fn learner_caught_up(&self, node: NodeId) -> bool {
        self.follows_closely(node)
    }

    pub(super) fn follows_closely(&self, node: NodeId) -> bool {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        let last = now.last_log_index.unwrap_or(0);
        matched(&now, node).is_some_and(|matched| matched.get() + CAUGHT_UP_ENTRIES >= last)
            && last_contact(&now, node).is_some_and(|ago| ago < self.inner.silence_max)
    }
}

impl Inner {
    /// Whether this node leads although no majority of the voters answers it any more.
    pub(crate) fn leads_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let silent =
            now.last_quorum_acked.is_some_and(|at| at.elapsed() >= self.silence_max * ALONE_SILENCES);
        silent && now.membership_config.membership().voter_ids().any(|voter| voter != self.node.get())
    }
}

fn matched(now: &RaftMetrics<TypeConfig>, node: NodeId) -> Option<LogIndex> {
    let id = (*now.replication.as_ref()?.get(&node.get())?)?;
    Some(LogIndex::new(id.index()))
}

fn last_contact(now: &RaftMetrics<TypeConfig>, node: NodeId) -> Option<Duration> {
    let at = now.heartbeat.as_ref()?.get(&node.get())?.as_ref()?;
    Some(at.elapsed())
}
