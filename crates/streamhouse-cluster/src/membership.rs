//! The members of the metadata log, as the controller changes them. The server puts Raft behind it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use streamhouse_raft::RaftNode;
use streamhouse_types::NodeId;

/// Whether this node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Whether it believes so. Only a commit proves it.
    pub leads: bool,
    /// The term it believes in.
    pub term: u64,
}

/// A member of the metadata log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RaftMember {
    /// Which node.
    pub node: NodeId,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it has caught up enough to be given one.
    pub caught_up: bool,
}

/// Why the membership did not change, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the members were not changed: {reason}")]
pub struct MembershipFault {
    /// Why, for a person.
    pub reason: String,
}

/// Who takes part in the metadata log.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Whether this node leads now.
    fn leadership(&self) -> Leadership;

    /// All members, as this node knows them.
    fn members(&self) -> Vec<RaftMember>;

    /// The voters of a change that was begun and not ended; until then those before it are needed as well.
    fn unfinished(&self) -> Option<BTreeSet<NodeId>>;

    /// Gives the vote to exactly these members. The others stay and only follow.
    ///
    /// # Errors
    /// When this node does not lead any more; the change may have happened then.
    async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipFault>;

    /// Takes a node out: it neither votes nor follows any more.
    ///
    /// # Errors
    /// As [`set_voters`](Self::set_voters).
    async fn remove(&self, node: NodeId) -> Result<(), MembershipFault>;

    /// Asks a voter to lead instead of this node. Returns before it does.
    ///
    /// # Errors
    /// As [`set_voters`](Self::set_voters).
    async fn pass_on(&self, to: NodeId) -> Result<(), MembershipFault>;
}

/// Raft's members.
#[derive(Debug, Clone)]
pub struct RaftMembers(pub RaftNode);

fn fault(error: impl std::fmt::Display) -> MembershipFault {
    MembershipFault { reason: error.to_string() }
}

#[async_trait]
impl Membership for RaftMembers {
    fn leadership(&self) -> Leadership {
        let watched = self.0.leadership();
        let now = watched.borrow();
        Leadership { leads: now.leads, term: now.term }
    }

    fn members(&self) -> Vec<RaftMember> {
        let member = |member: streamhouse_raft::RaftMember| RaftMember {
            node: member.node,
            voter: member.is_voter,
            caught_up: member.is_voter || self.0.learner_caught_up(member.node),
        };
        self.0.members().into_iter().map(member).collect()
    }

    fn unfinished(&self) -> Option<BTreeSet<NodeId>> {
        self.0.unfinished_voters()
    }

    async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipFault> {
        self.0.set_voters(voters).await.map_err(fault)
    }

    async fn remove(&self, node: NodeId) -> Result<(), MembershipFault> {
        self.0.remove_member(node).await.map_err(fault)
    }

    async fn pass_on(&self, to: NodeId) -> Result<(), MembershipFault> {
        self.0.transfer_leader(to).await.map_err(fault)
    }
}
