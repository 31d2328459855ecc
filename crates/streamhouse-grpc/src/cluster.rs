//! The cluster as a whole: its nodes, its leader, its homes.

use std::collections::BTreeSet;
use std::time::Duration;

use streamhouse_broker::ProposeError;
use streamhouse_broker::metadata::placement::{Placement, plan};
use streamhouse_broker::metadata::voters::plan_voters;
use streamhouse_broker::metadata::{
    Command, Drain, HomeMove, Liveness, Member, MemberRefusal, NodeEntry, Outcome, State, VoterCount,
};
use streamhouse_cluster::{LeaderError, ReaderView, View};
use streamhouse_proto::v1;
use streamhouse_proto::v1::cluster_service_server::ClusterService;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Incarnation, LogIndex, NodeId};
use tonic::{Request, Response, Status};

use crate::Services;
use crate::authorize::{Resource, check};
use crate::cluster_health::{health, is_silent, led, unable};
use crate::convert::{duration, request_id};
use crate::routing;
use crate::status::Fault;

#[tonic::async_trait]
impl ClusterService for Services {
    async fn get_info(
        &self,
        request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let state = self.broker.state();
        Ok(Response::new(v1::GetInfoResponse {
            version: self.build.version.to_owned(),
            commit: self.build.commit.to_owned(),
            cluster_id: self.cluster_id.to_string(),
            node_id: self.node.get(),
            incarnation: self.broker.incarnation().map_or(0, Incarnation::get),
            applied_index: state.applied().get(),
            state_hash: format!("{:016x}", state.hash()),
        }))
    }

    async fn get_routing(
        &self,
        request: Request<v1::GetRoutingRequest>,
    ) -> Result<Response<v1::GetRoutingResponse>, Status> {
        let topic = request.get_ref().topic.clone();
        if topic.is_empty() {
            check(&request, Resource::Cluster)?;
            let nodes = routing::nodes(&self.broker.state());
            let reader = self.seat.is_reader();
            return Ok(Response::new(v1::GetRoutingResponse { nodes, homes: Vec::new(), reader }));
        }
        check(&request, Resource::Topic(&topic))?;
        let found = self.topic("topic", &topic).await?;
        let state = self.broker.state();
        let homes = state.topic(found.id).map(routing::homes).unwrap_or_default();
        let (nodes, reader) = (routing::nodes(&state), self.seat.is_reader());
        Ok(Response::new(v1::GetRoutingResponse { nodes, homes, reader }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let (view, readers) = tokio::join!(self.seat.view(), self.seat.readers());
        let state = self.broker.state();
        let members = state.members().filter(|member| !member.is_removed());
        let members = members.map(|member| self.told(&state, &view, member));
        let nodes = members.chain(readers.into_iter().map(reader)).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn list_held_back_clients(
        &self,
        request: Request<v1::ListHeldBackClientsRequest>,
    ) -> Result<Response<v1::ListHeldBackClientsResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let clients = self.clients.held_back();
        Ok(Response::new(v1::ListHeldBackClientsResponse { node_id: self.node.get(), clients }))
    }

    async fn describe_node(
        &self,
        request: Request<v1::DescribeNodeRequest>,
    ) -> Result<Response<v1::DescribeNodeResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let id = NodeId::new(request.get_ref().node_id);
        let described = self.described(id).await?;
        let state = self.broker.state();
        let mut homes = Vec::new();
        for topic in state.topics() {
            let own = topic.partitions().filter(|partition| partition.home() == id);
            homes.extend(own.map(|partition| v1::NodeHome {
                topic: topic.name().to_string(),
                partition: partition.id().index.get(),
                epoch: partition.epoch().get(),
            }));
        }
        Ok(Response::new(v1::DescribeNodeResponse { node: Some(described), homes }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let request = request.into_inner();
        let id = self.known(request.node_id).await?;
        let state = self.broker.state();
        if !state.eligible_homes().any(|home| home.id() != id) {
            let text = format!("node {id} is the only one that takes requests: nobody could take its homes");
            return Err(Fault::new(ErrorCode::QuorumAtRisk, text).into());
        }
        let moves = drained(&state, id, self.broker.fresh_request_id());
        let successor = successor(&state, &self.seat.view().await, id);
        if !request.validate_only {
            self.set_drain(id, Drain::Operator, &request.request_id).await?;
        }
        let node = Some(self.described(id).await?);
        let successor_id = successor.map_or(0, NodeId::get);
        Ok(Response::new(v1::DrainNodeResponse { node, moves, successor_id }))
    }

    async fn undrain_node(
        &self,
        request: Request<v1::UndrainNodeRequest>,
    ) -> Result<Response<v1::UndrainNodeResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let request = request.into_inner();
        let id = self.known(request.node_id).await?;
        if !request.validate_only {
            self.set_drain(id, Drain::None, &request.request_id).await?;
        }
        let node = Some(self.described(id).await?);
        Ok(Response::new(v1::UndrainNodeResponse { node }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let request = request.into_inner();
        let id = self.known(request.node_id).await?;
        let answer = self.may_remove(id).await?;
        if !request.validate_only {
            let command = Command::RemoveNode { request: self.request(&request.request_id)?, node: id };
            self.carry_out(command).await?;
        }
        Ok(Response::new(answer))
    }

    async fn get_health(
        &self,
        request: Request<v1::GetHealthRequest>,
    ) -> Result<Response<v1::GetHealthResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let (view, barred) = tokio::join!(self.seat.view(), self.barred());
        Ok(Response::new(health(&self.broker.state(), &view, barred)))
    }

    async fn get_raft_status(
        &self,
        request: Request<v1::GetRaftStatusRequest>,
    ) -> Result<Response<v1::GetRaftStatusResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let view = self.seat.view().await;
        let members = view.members.iter().map(|member| v1::RaftMember {
            node_id: member.node.get(),
            address: member.address.clone(),
            voter: member.voter,
            matched_index: member.matched.map(LogIndex::get),
            last_contact: member.last_contact.map(duration),
        });
        Ok(Response::new(v1::GetRaftStatusResponse {
            leader_id: view.leader.map_or(0, NodeId::get),
            term: view.term,
            last_log_index: view.last_log.get(),
            committed_index: view.committed.get(),
            applied_index: view.applied.get(),
            snapshot_index: view.snapshot.get(),
            members: members.collect(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let to = match request.get_ref().node_id {
            0 => None,
            id => Some(self.known(id).await?),
        };
        let leader = self.seat.transfer_leader(to).await.map_err(Fault::from)?;
        Ok(Response::new(v1::TransferLeaderResponse { leader_id: leader.get() }))
    }

    async fn set_voters(
        &self,
        request: Request<v1::SetVotersRequest>,
    ) -> Result<Response<v1::SetVotersResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let request = request.into_inner();
        let voters = VoterCount::try_from(u64::from(request.voters));
        let voters = voters.map_err(|error| Fault::argument("voters", error.to_string()))?;
        let command = Command::SetWantedVoters { request: self.request(&request.request_id)?, voters };
        self.carry_out(command).await?;
        Ok(Response::new(v1::SetVotersResponse {}))
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        check(&request, Resource::Cluster)?;
        self.current().await?;
        let state = self.broker.state();
        let moves = plan(&state);
        let answer = planned(&state, &moves);
        if !request.get_ref().validate_only && !moves.is_empty() {
            self.carry_out(Command::MoveHomes { moves }).await?;
        }
        Ok(Response::new(answer))
    }
}

impl Services {
    /// Makes sure that what is looked at next is current.
    async fn current(&self) -> Result<(), Status> {
        match self.seat.log().read_index().await {
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::new(ErrorCode::MetadataUnavailable, error.to_string()).into()),
        }
    }

    /// This node, when a write to the object store that it makes now fails. What was written lately, or has failed before,
    /// is told by the view.
    async fn barred(&self) -> Option<NodeId> {
        const LATELY: Duration = Duration::from_secs(10);
        const PATIENCE: Duration = Duration::from_secs(3);
        let can = !self.broker.takes_writes() || self.broker.can_write(LATELY, PATIENCE).await;
        (!can).then_some(self.node)
    }

    /// Whether the cluster has this member, by metadata known to be current.
    async fn has_member(&self, node: NodeId) -> Result<bool, Status> {
        let is_there = |state: &State| state.member(node).is_some_and(|member| !member.is_removed());
        if is_there(&self.broker.state()) {
            return Ok(true);
        }
        self.current().await?;
        Ok(is_there(&self.broker.state()))
    }

    async fn reader(&self, node: NodeId) -> Option<ReaderView> {
        self.seat.readers().await.into_iter().find(|reader| reader.told.node == node)
    }

    /// The id of a node that the cluster has as a member.
    async fn known(&self, id: u64) -> Result<NodeId, Status> {
        let node = NodeId::new(id);
        if self.has_member(node).await? {
            return Ok(node);
        }
        Err(match self.reader(node).await {
            Some(_) => not_a_member(node).into(),
            None => no_node(node).into(),
        })
    }

    async fn described(&self, id: NodeId) -> Result<v1::Node, Status> {
        if !self.has_member(id).await? {
            return self.reader(id).await.map(reader).ok_or_else(|| no_node(id).into());
        }
        let view = self.seat.view().await;
        let state = self.broker.state();
        let member = state.member(id).ok_or_else(|| no_node(id))?;
        Ok(self.told(&state, &view, member))
    }

    /// What is known of a member. While nobody who leads a majority answers, that is little of any but this node: the
    /// others may have gone without anybody being there to note it.
    fn told(&self, state: &State, view: &View, member: &Member) -> v1::Node {
        let id = member.id();
        let is_led = led(view);
        let entry = state.node(id);
        let homes = state.partitions().filter(|partition| partition.home() == id).count();
        let seen = view.members.iter().find(|member| member.node == id);
        let address =
            |listener| entry.and_then(|entry| entry.address(listener)).unwrap_or_default().to_owned();
        let known = node_state(entry, member, homes);
        let node_state = match known {
            v1::NodeState::Stopped => known,
            _ if !is_led && id != self.node => v1::NodeState::Unspecified,
            _ if is_silent(view, id) => v1::NodeState::Dead,
            v1::NodeState::Dead if unable(view).any(|(node, _)| node == id) => v1::NodeState::CutOff,
            _ => known,
        };
        v1::Node {
            id: id.get(),
            state: node_state.into(),
            role: "broker".to_owned(),
            zone: entry.map(|entry| entry.zone().to_owned()).unwrap_or_default(),
            version: member.version().to_owned(),
            incarnation: entry.map_or(0, |entry| entry.incarnation().get()),
            grpc_address: address("grpc"),
            internal_address: address("internal"),
            voter: seen.is_some_and(|seen| seen.voter),
            leader: is_led && view.leader == Some(id),
            homes: u32::try_from(homes).unwrap_or(u32::MAX),
            last_heard: seen.and_then(|seen| seen.last_beat).map(duration),
            applied_index: seen.map_or(0, |seen| seen.applied.get()),
            feature_level_max: member.features().max.get(),
        }
    }

    fn request(&self, given: &str) -> Result<[u8; 16], Status> {
        Ok(request_id(given)?.unwrap_or_else(|| self.broker.fresh_request_id()))
    }

    async fn set_drain(&self, node: NodeId, drain: Drain, given: &str) -> Result<(), Status> {
        let command = Command::SetDrain { request: self.request(given)?, node, drain };
        self.carry_out(command).await
    }

    /// Proposes a change of the cluster until it is answered; commands are answered once, so an unknown answer is asked
    /// for again.
    async fn carry_out(&self, command: Command) -> Result<(), Status> {
        const TRIES: u32 = 5;
        const PAUSE: Duration = Duration::from_millis(200);
        let mut last = None;
        for _ in 0..TRIES {
            match self.seat.propose(command.clone()).await {
                Ok(Outcome::Refused(refusal)) => {
                    return Err(Fault::new(ErrorCode::Internal, refusal.to_string()).into());
                }
                Ok(Outcome::MemberRefused(refusal)) => return Err(refused(&refusal).into()),
                Ok(_) => return Ok(()),
                // The log has looked for a leader as long as that makes sense; another node may know one.
                Err(error @ ProposeError::NotHappened { .. }) if last.is_none() => {
                    return Err(unanswered(Some(error)).into());
                }
                Err(error) => last = Some(told(last, error)),
            }
            self.clock.sleep(PAUSE).await;
        }
        Err(unanswered(last).into())
    }

    /// What a removal would do; refused when it breaks a quorum.
    async fn may_remove(&self, id: NodeId) -> Result<v1::RemoveNodeResponse, Status> {
        self.current().await?;
        let state = self.broker.state();
        let view = self.seat.view().await;
        let at_risk = |text: String| Status::from(Fault::new(ErrorCode::QuorumAtRisk, text));
        if !state.eligible_homes().any(|home| home.id() != id) {
            return Err(at_risk(format!(
                "node {id} is the last that takes requests; add a node, or undrain another, first"
            )));
        }
        let voters: BTreeSet<NodeId> =
            view.members.iter().filter(|member| member.voter).map(|member| member.node).collect();
        let alive = |node: &NodeId| {
            let open = state.node(*node).is_some_and(NodeEntry::is_open);
            open && state.member(*node).is_some_and(|member| member.liveness() == Liveness::Alive)
        };
        let rest = voters.iter().filter(|voter| **voter != id && alive(voter)).count();
        if voters.contains(&id) && rest < voters.len() / 2 + 1 {
            let text = format!(
                "node {id} has one of {} votes, and only {rest} of the others are alive: without it there would be no \
                 majority to agree on its removal. Add a node or bring the others back first",
                voters.len()
            );
            return Err(at_risk(text));
        }
        let homes = state.partitions().filter(|partition| partition.home() == id).count();
        let voters = voters_without(&state, &view, id, self.broker.fresh_request_id());
        Ok(v1::RemoveNodeResponse {
            homes_to_move: u32::try_from(homes).unwrap_or(u32::MAX),
            voters: voters.into_iter().map(NodeId::get).collect(),
        })
    }
}

fn no_node(id: NodeId) -> Fault {
    let text = format!("the cluster has no node {id}");
    Fault::new(ErrorCode::NodeNotFound, text).about("node", id.to_string())
}

fn not_a_member(id: NodeId) -> Fault {
    let text = format!(
        "node {id} is a reader, which is no member of the cluster: it has no homes and no vote, and nobody counts on it"
    );
    Fault::argument("node_id", text)
        .hint("to be rid of a reader stop its process: then it is no longer listed")
}

fn reader(reader: ReaderView) -> v1::Node {
    let ReaderView { told, applied, silent } = reader;
    v1::Node {
        id: told.node.get(),
        state: v1::NodeState::Serving.into(),
        role: "reader".to_owned(),
        zone: told.zone,
        version: told.version,
        grpc_address: told.grpc,
        last_heard: Some(duration(silent)),
        applied_index: applied.get(),
        ..v1::Node::default()
    }
}

pub(crate) fn node_state(entry: Option<&NodeEntry>, member: &Member, homes: usize) -> v1::NodeState {
    let open = entry.is_some_and(NodeEntry::is_open);
    match (open, member.liveness(), member.drain()) {
        (false, ..) => v1::NodeState::Stopped,
        (true, Liveness::Dead, _) => v1::NodeState::Dead,
        (true, Liveness::Alive, Drain::None) => v1::NodeState::Serving,
        (true, Liveness::Alive, _) if homes > 0 => v1::NodeState::Draining,
        (true, Liveness::Alive, _) => v1::NodeState::Drained,
    }
}

fn planned(state: &State, moves: &[HomeMove]) -> v1::RebalanceResponse {
    let nodes = Placement::describe(state, moves).into_iter().map(|load| v1::NodeLoad {
        node_id: load.node.get(),
        homes_before: u32::try_from(load.before).unwrap_or(u32::MAX),
        homes_after: u32::try_from(load.after).unwrap_or(u32::MAX),
    });
    v1::RebalanceResponse { nodes: nodes.collect(), moves: told_moves(state, moves) }
}

fn told_moves(state: &State, moves: &[HomeMove]) -> Vec<v1::HomeMove> {
    let told = moves.iter().filter_map(|moved| {
        let topic = state.topic(moved.partition.topic)?;
        Some(v1::HomeMove {
            topic: topic.name().to_string(),
            partition: moved.partition.index.get(),
            from_node: topic.partition(moved.partition.index)?.home().get(),
            to_node: moved.home.get(),
        })
    });
    told.collect()
}

/// What would move if a node were drained now.
fn drained(state: &State, node: NodeId, request: [u8; 16]) -> Vec<v1::HomeMove> {
    let mut without = state.clone();
    let next = LogIndex::new(state.applied().get() + 1);
    let _outcome = without.apply(next, &Command::SetDrain { request, node, drain: Drain::Operator });
    told_moves(state, &plan(&without))
}

/// The voters once a node was removed, as the leader decides it. The node stays among them while nobody can take its vote.
fn voters_without(state: &State, view: &View, node: NodeId, request: [u8; 16]) -> BTreeSet<NodeId> {
    let mut without = state.clone();
    let next = LogIndex::new(state.applied().get() + 1);
    let _outcome = without.apply(next, &Command::RemoveNode { request, node });
    let voters: BTreeSet<NodeId> =
        view.members.iter().filter(|member| member.voter).map(|member| member.node).collect();
    let members = view.members.iter().map(|member| member.node).collect();
    plan_voters(&without, &voters, &members).unwrap_or(voters)
}

/// Who would lead instead of a leader that is drained, as the leader itself decides it.
fn successor(state: &State, view: &View, node: NodeId) -> Option<NodeId> {
    let fit = |member: NodeId| state.eligible_homes().any(|home| home.id() == member);
    let mut others =
        view.members.iter().filter(|member| member.voter && member.node != node && fit(member.node));
    others.next().filter(|_| view.leader == Some(node)).map(|member| member.node)
}

fn refused(refusal: &MemberRefusal) -> Fault {
    let code = match refusal {
        MemberRefusal::Unknown { .. } => ErrorCode::NodeNotFound,
        MemberRefusal::LastHome { .. } => ErrorCode::QuorumAtRisk,
        _ => ErrorCode::NodeRefused,
    };
    Fault::new(code, refusal.to_string())
}

/// What is told of several tries: what may have happened in one has not been undone by the next.
fn told(before: Option<ProposeError>, error: ProposeError) -> ProposeError {
    match before {
        Some(unknown @ ProposeError::Unknown { .. }) => unknown,
        _ => error,
    }
}

fn unanswered(last: Option<ProposeError>) -> Fault {
    match last {
        Some(ProposeError::Unknown { reason }) => {
            Fault::new(ErrorCode::CommitUnknown, reason).may_have_happened()
        }
        Some(ProposeError::NotHappened { reason }) => Fault::new(ErrorCode::MetadataUnavailable, reason),
        None => Fault::new(ErrorCode::Internal, "the change was never proposed"),
    }
}

impl From<LeaderError> for Fault {
    fn from(error: LeaderError) -> Self {
        match error {
            LeaderError::Away { .. } => Self::of(ErrorCode::MetadataUnavailable, &error),
            LeaderError::Unanswered { .. } => Self::of(ErrorCode::CommitUnknown, &error).may_have_happened(),
            LeaderError::Refused { reason } => Self::new(ErrorCode::QuorumAtRisk, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_broker::metadata::RegisterNode;
    use streamhouse_cluster::MemberView;
    use streamhouse_types::{ClusterId, Timestamp};

    use super::*;

    /// These members, of which node 1 has no vote.
    fn view_of(nodes: &[u64]) -> View {
        let member = |id: &u64| MemberView {
            node: NodeId::new(*id),
            address: String::new(),
            voter: *id != 1,
            matched: None,
            last_contact: None,
            last_beat: None,
            applied: LogIndex::ZERO,
            clock_ahead_ms: None,
            writes_failing: None,
        };
        View {
            leader: None,
            term: 1,
            last_log: LogIndex::ZERO,
            committed: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            snapshot: LogIndex::ZERO,
            members: nodes.iter().map(member).collect(),
        }
    }

    #[test]
    fn a_change_that_may_have_happened_once_is_never_told_as_one_that_did_not() {
        let unknown = || ProposeError::Unknown { reason: "lost".to_owned() };
        let not_happened = || ProposeError::NotHappened { reason: "no leader".to_owned() };
        let of = |tries: Vec<ProposeError>| {
            tries.into_iter().fold(None, |before, error| Some(told(before, error)))
        };
        for tries in [vec![unknown(), not_happened()], vec![not_happened(), unknown(), not_happened()]] {
            assert!(matches!(of(tries), Some(ProposeError::Unknown { .. })));
        }
        assert!(matches!(of(vec![not_happened()]), Some(ProposeError::NotHappened { .. })));
    }

    #[test]
    fn a_removed_node_stays_among_the_voters_while_nobody_can_take_its_vote() {
        let mut state = State::new();
        let (cluster, now) = (ClusterId::from_bytes([1; 16]), Timestamp::from_millis(1));
        state.apply(LogIndex::new(1), &Command::Bootstrap { cluster, now });
        for id in 1..=4 {
            let (node, request) = (NodeId::new(id), [u8::try_from(id).expect("few nodes"); 16]);
            let register = RegisterNode { request, node, zone: String::new(), addresses: Vec::new() };
            state.apply(LogIndex::new(1 + id), &Command::RegisterNode(register));
        }
        let voters_of = |nodes: &[u64], removed| {
            let view = view_of(nodes);
            let voters = voters_without(&state, &view, NodeId::new(removed), [9; 16]);
            voters.into_iter().map(NodeId::get).collect::<Vec<_>>()
        };
        assert_eq!(voters_of(&[2, 3, 4], 4), [2, 3, 4]);
        assert_eq!(voters_of(&[1, 2, 3, 4], 4), [1, 2, 3], "the learner takes it over");
        assert_eq!(voters_of(&[1, 2, 3, 4], 1), [2, 3, 4]);
    }
}
