//! The nodes of the cluster, and how they agree.

use streamhouse_proto::v1;
use streamhouse_types::NodeId;

use super::{Admin, Mode};
use crate::error::CallError;
use crate::ways::Way;
use streamhouse_api::{
    ClusterHealth, HeldBackClient, NodeDescription, NodeDrain, NodeInfo, NodeRemoval, RaftStatus, Rebalance,
    node_id,
};

impl Admin {
    /// Every node that was ever admitted and is not removed, by id.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, CallError> {
        let call = |way: Way, request| async move { way.cluster().list_nodes(request).await };
        let answer = self.read(v1::ListNodesRequest {}, call).await?;
        Ok(answer.nodes.into_iter().map(NodeInfo::from).collect())
    }

    /// The Kafka clients that the node that answers sees waiting for answers most of the time, and who answers.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn held_back_clients(&self) -> Result<(NodeId, Vec<HeldBackClient>), CallError> {
        let request = v1::ListHeldBackClientsRequest {};
        let call = |way: Way, request| async move { way.cluster().list_held_back_clients(request).await };
        let answer = self.read(request, call).await?;
        let clients = answer.clients.into_iter().map(HeldBackClient::from).collect();
        Ok((NodeId::new(answer.node_id), clients))
    }

    /// One node with the partitions that it is the home of.
    ///
    /// # Errors
    /// When there is none of this id.
    pub async fn node(&self, id: NodeId) -> Result<NodeDescription, CallError> {
        let request = v1::DescribeNodeRequest { node_id: id.get() };
        let call = |way: Way, request| async move { way.cluster().describe_node(request).await };
        let answer = self.read(request, call).await?;
        NodeDescription::of(answer).ok_or(CallError::BadAnswer { what: "no node in it" })
    }

    /// Takes a node's homes away and sends its clients elsewhere; it goes on to answer until it is stopped.
    ///
    /// # Errors
    /// When there is none of this id, or the others cannot take over.
    pub async fn drain_node(&self, id: NodeId, mode: Mode) -> Result<NodeDrain, CallError> {
        let request = v1::DrainNodeRequest {
            node_id: id.get(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.cluster().drain_node(request).await };
        let drain = NodeDrain::of(self.change(mode, request, call).await?);
        drain.ok_or(CallError::BadAnswer { what: "no node in it" })
    }

    /// Ends a drain: the node may be given homes again.
    ///
    /// # Errors
    /// When there is none of this id.
    pub async fn undrain_node(&self, id: NodeId, mode: Mode) -> Result<NodeInfo, CallError> {
        let request = v1::UndrainNodeRequest {
            node_id: id.get(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.cluster().undrain_node(request).await };
        told(self.change(mode, request, call).await?.node)
    }

    /// Takes a node out of the cluster for ever; its id is never used again.
    ///
    /// # Errors
    /// When there is none of this id, or the rest would have no quorum.
    pub async fn remove_node(&self, id: NodeId, mode: Mode) -> Result<NodeRemoval, CallError> {
        let request = v1::RemoveNodeRequest {
            node_id: id.get(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.cluster().remove_node(request).await };
        self.change(mode, request, call).await.map(NodeRemoval::from)
    }

    /// Whether the cluster is well, and what is not.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn health(&self) -> Result<ClusterHealth, CallError> {
        let call = |way: Way, request| async move { way.cluster().get_health(request).await };
        self.read(v1::GetHealthRequest {}, call).await.map(ClusterHealth::from)
    }

    /// How the nodes agree: leader, term, and how far each member is.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn raft_status(&self) -> Result<RaftStatus, CallError> {
        let call = |way: Way, request| async move { way.cluster().get_raft_status(request).await };
        self.read(v1::GetRaftStatusRequest {}, call).await.map(RaftStatus::from)
    }

    /// Asks a voter to lead, or whoever is furthest; returns who leads then.
    ///
    /// # Errors
    /// When the node has no vote, or does not take over.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, CallError> {
        let request = v1::TransferLeaderRequest { node_id: to.map_or(0, NodeId::get) };
        let call = |way: Way, request| async move { way.cluster().transfer_leader(request).await };
        let answer = self.change_patiently(request, call).await?;
        node_id(answer.leader_id).ok_or(CallError::BadAnswer { what: "no leader in it" })
    }

    /// Sets how many voters there should be: 1, 3 or 5. Nodes are given the vote and lose it as they come and go.
    ///
    /// # Errors
    /// When it is another number.
    pub async fn set_voters(&self, voters: u32) -> Result<(), CallError> {
        let request = v1::SetVotersRequest { voters, request_id: self.house.request_id() };
        let call = |way: Way, request| async move { way.cluster().set_voters(request).await };
        self.change(Mode::Apply, request, call).await.map(|_| ())
    }

    /// Moves homes so that each node has its share, or tells what would be moved.
    ///
    /// # Errors
    /// When there is no leader to do it.
    pub async fn rebalance(&self, mode: Mode) -> Result<Rebalance, CallError> {
        let request = v1::RebalanceRequest { validate_only: mode.validate_only() };
        let call = |way: Way, request| async move { way.cluster().rebalance(request).await };
        self.change(mode, request, call).await.map(Rebalance::from)
    }
}

fn told(node: Option<v1::Node>) -> Result<NodeInfo, CallError> {
    node.map(NodeInfo::from).ok_or(CallError::BadAnswer { what: "no node in it" })
}
