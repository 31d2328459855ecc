//! Who belongs to the cluster. Every change is answered within the propose timeout.

use std::collections::{BTreeMap, BTreeSet};

use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use openraft::{BasicNode, ChangeMembers};
use streamhouse_types::NodeId;

use super::RaftNode;
use crate::error::MembershipError;
use crate::types::{Membership, TypeConfig};

type Change = ChangeMembers<u64, BasicNode>;
type ChangeError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

impl RaftNode {
    /// Begins a cluster with this node as its only voter, reachable at `address`, and waits until it leads. Does nothing
    /// but wait on a node that has a cluster.
    ///
    /// # Errors
    /// When the node has stopped or does not come to lead within the propose timeout.
    pub async fn bootstrap_single(&self, address: &str) -> Result<(), MembershipError> {
        self.bootstrap(BTreeMap::from([(self.inner.node, address.to_owned())])).await?;
        if self.sole_voter().await && !self.wait_leading().await {
            return Err(MembershipError::Unknown { problem: "the node does not lead in time".to_owned() });
        }
        Ok(())
    }

    /// Begins a cluster with these voters and their addresses; to be called on one of them, or on all of them with the
    /// same voters. Does nothing on a node that has a cluster.
    ///
    /// # Errors
    /// When this node is not among the voters, their number is even, or the node has stopped.
    pub async fn bootstrap(&self, voters: BTreeMap<NodeId, String>) -> Result<(), MembershipError> {
        check_number(voters.len())?;
        let nodes: BTreeMap<u64, BasicNode> =
            voters.into_iter().map(|(node, address)| (node.get(), BasicNode { addr: address })).collect();
        match self.in_time(self.inner.raft.initialize(nodes)).await? {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                self.take_part();
                Ok(())
            }
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(MembershipError::NotMember { node: self.inner.node })
            }
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
        }
    }

    /// Whether the node belongs to a cluster. `false` when it has stopped.
    pub async fn has_cluster(&self) -> bool {
        self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// Lets a node at `address` follow without a vote. Returns when that is decided; see
    /// [`learner_caught_up`](Self::learner_caught_up) for when it has the log. Does nothing for a member, whose address
    /// stays. Only the leader can.
    ///
    /// # Errors
    /// [`MembershipError::NotLeader`], [`MembershipError::InProgress`], [`MembershipError::Unknown`].
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), MembershipError> {
        let member = BasicNode { addr: address.to_owned() };
        self.check_leads()?;
        if self.effective().get_node(&node.get()).is_some() {
            return Ok(());
        }
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node.get(), member)]))).await
    }

    /// Lets the other nodes reach a member at another address, where it was started again. Only the leader can.
    ///
    /// # Errors
    /// [`MembershipError::NotMember`], and as for [`add_learner`](Self::add_learner).
    pub async fn set_address(&self, node: NodeId, address: &str) -> Result<(), MembershipError> {
        self.check_leads()?;
        let membership = self.effective();
        let member = membership.get_node(&node.get()).ok_or(MembershipError::NotMember { node })?;
        if member.addr == address {
            return Ok(());
        }
        let member = BasicNode { addr: address.to_owned() };
        // Safe although nodes are replaced: who answers at an address that is not its own refuses.
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(node.get(), member)]))).await
    }

    /// Gives the vote to exactly these members; the others stay as learners. Called again with the same voters it
    /// completes a change that was left halfway. Only the leader can.
    ///
    /// # Errors
    /// [`MembershipError::NoVoters`], [`MembershipError::EvenVoters`], [`MembershipError::NotMember`], and as for
    /// [`add_learner`](Self::add_learner).
    pub async fn set_voters(&self, voters: impl IntoIterator<Item = NodeId>) -> Result<(), MembershipError> {
        let voters: BTreeSet<u64> = voters.into_iter().map(NodeId::get).collect();
        check_number(voters.len())?;
        self.check_leads()?;
        let membership = self.effective();
        if let Some(stranger) = voters.iter().find(|voter| membership.get_node(voter).is_none()) {
            return Err(MembershipError::NotMember { node: NodeId::new(*stranger) });
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Takes a node out of the cluster. Does nothing for one that is no member. A voter can go only when an odd number is
    /// left: let another one vote in its place with [`set_voters`](Self::set_voters) first. Only the leader can.
    ///
    /// # Errors
    /// [`MembershipError::NoVoters`], [`MembershipError::EvenVoters`], and as for [`add_learner`](Self::add_learner).
    pub async fn remove_member(&self, node: NodeId) -> Result<(), MembershipError> {
        self.check_leads()?;
        let membership = self.effective();
        if membership.get_node(&node.get()).is_none() {
            return Ok(());
        }
        let only = BTreeSet::from([node.get()]);
        if !membership.voter_ids().any(|voter| voter == node.get()) {
            return self.change(ChangeMembers::RemoveNodes(only)).await;
        }
        let goal = membership.get_joint_config().last();
        check_number(goal.map_or(0, |goal| goal.difference(&only).count()))?;
        self.change(ChangeMembers::RemoveVoters(only)).await
    }

    /// Asks the voter `node` to lead instead of this leader, which takes no command any more from then on. Returns before
    /// another one leads; should `node` not come to lead, the voters elect somebody.
    ///
    /// # Errors
    /// [`MembershipError::NotLeader`], [`MembershipError::NotVoter`], [`MembershipError::Behind`],
    /// [`MembershipError::Stopped`].
    pub async fn transfer_leader(&self, node: NodeId) -> Result<(), MembershipError> {
        self.check_leads()?;
        if !self.effective().voter_ids().any(|voter| voter == node.get()) {
            return Err(MembershipError::NotVoter { node });
        }
        if node == self.inner.node {
            return Ok(());
        }
        if !self.follows_closely(node) {
            return Err(MembershipError::Behind { node });
        }
        let trigger = self.inner.raft.trigger();
        let asked = self.in_time(trigger.transfer_leader(node.get())).await?;
        asked.map_err(|_| MembershipError::Stopped)
    }

    /// The voters of a change that was begun and is not done: both their majority and that of the voters before are needed
    /// until [`set_voters`](Self::set_voters) has ended it. A leader that is lost in between leaves that to the next one.
    #[must_use]
    pub fn unfinished_voters(&self) -> Option<BTreeSet<NodeId>> {
        let membership = self.effective();
        let [_, .., goal] = &membership.get_joint_config()[..] else { return None };
        Some(goal.iter().copied().map(NodeId::new).collect())
    }

    /// Takes a snapshot now. Returns before it is there.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn take_snapshot(&self) -> Result<(), MembershipError> {
        let trigger = self.inner.raft.trigger();
        self.in_time(trigger.snapshot()).await?.map_err(|_| MembershipError::Stopped)
    }

    /// The newest membership in the log.
    fn effective(&self) -> Membership {
        self.inner.raft.metrics().borrow_watched().membership_config.membership().clone()
    }

    fn check_leads(&self) -> Result<(), MembershipError> {
        if self.is_leader() {
            return Ok(());
        }
        Err(self.not_leader(self.leader()))
    }

    fn not_leader(&self, leader: Option<NodeId>) -> MembershipError {
        MembershipError::NotLeader { leader: leader.filter(|leader| *leader != self.inner.node) }
    }

    /// Commits a change, in one step or two.
    async fn change(&self, change: Change) -> Result<(), MembershipError> {
        // Voters who lose their vote stay as learners, except those who are to be removed.
        let retain = !matches!(change, ChangeMembers::RemoveVoters(_));
        let changed = self.in_time(self.inner.raft.change_membership(change, retain)).await?;
        changed.map(|_| ()).map_err(told)
    }

    async fn in_time<T>(&self, change: impl Future<Output = T>) -> Result<T, MembershipError> {
        tokio::select! {
            biased;
            changed = change => Ok(changed),
            () = self.inner.env.clock.sleep(self.inner.propose_timeout) => {
                Err(MembershipError::Unknown { problem: "it was not done in time".to_owned() })
            }
        }
    }
}

fn told(error: ChangeError) -> MembershipError {
    let error = match error {
        RaftError::Fatal(_) => {
            return MembershipError::Unknown { problem: "the node stopped".to_owned() };
        }
        RaftError::APIError(error) => error,
    };
    match error {
        ClientWriteError::ChangeMembershipError(error) => match error {
            ChangeMembershipError::InProgress(_) => MembershipError::InProgress,
            ChangeMembershipError::EmptyMembership(_) => MembershipError::NoVoters,
            ChangeMembershipError::LearnerNotFound(missing) => {
                MembershipError::NotMember { node: NodeId::new(missing.node_id) }
            }
            other => MembershipError::Refused { problem: other.to_string() },
        },
        // This node led a moment ago, so the first of two steps may have been done.
        ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
            MembershipError::Unknown { problem: "this node stopped leading".to_owned() }
        }
        other @ ClientWriteError::PreconditionFailed(_) => {
            MembershipError::Unknown { problem: other.to_string() }
        }
    }
}

/// An even number of voters is never better than one fewer.
fn check_number(voters: usize) -> Result<(), MembershipError> {
    match voters {
        0 => Err(MembershipError::NoVoters),
        even if even.is_multiple_of(2) => Err(MembershipError::EvenVoters { voters }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_an_odd_number_of_voters() {
        for odd in [1, 3, 5, 7] {
            assert_eq!(check_number(odd), Ok(()));
        }
        assert_eq!(check_number(0), Err(MembershipError::NoVoters));
        let refused = check_number(4).expect_err("even");
        assert_eq!(refused, MembershipError::EvenVoters { voters: 4 });
        assert!(refused.to_string().contains("no more failures than 3"), "{refused}");
    }
}
