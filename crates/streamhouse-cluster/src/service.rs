//! Answers other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use streamhouse_broker::WritesSeen;
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::node_service_server::{NodeService, NodeServiceServer};
use streamhouse_types::{Incarnation, LogIndex, NodeId, Timestamp};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::admission::Applicant;
use crate::clocks::Calendar;
use crate::cluster::{Cluster, MemberView};
use crate::follow::follow;
use crate::lease::{Beat, BeatVerdict};
use crate::readers::answer;

/// Largest message of this service that a peer may send.
const MESSAGE_BYTES: usize = 1 << 20;

/// The node's side of what nodes ask each other apart from Raft, to be mounted on the internal listener. Never on one
/// that clients reach.
#[derive(Debug, Clone)]
pub struct NodeRpc {
    cluster: Cluster,
    /// Counts the readers that ever followed this node.
    streams: Arc<AtomicU64>,
}

impl NodeRpc {
    /// Answers for `cluster`.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, streams: Arc::default() }
    }

    /// The gRPC service around it, with its message limits.
    #[must_use]
    pub fn into_service(self) -> NodeServiceServer<Self> {
        NodeServiceServer::new(self).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// A node at the address of another one must not speak for it.
    fn check_receiver(&self, to: u64) -> Result<(), Status> {
        let node = self.cluster.node();
        if to == node.get() {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is node {node}, not node {to}")))
    }
}

#[async_trait]
impl NodeService for NodeRpc {
    type HeartbeatStream = BoxStream<'static, Result<pb::BeatAnswer, Status>>;
    type FollowStream = BoxStream<'static, Result<pb::FollowResponse, Status>>;

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let request = request.into_inner();
        let their_now = Timestamp::from_millis(request.now_ms);
        let applicant = Applicant::of_request(request).map_err(|refusal| refusal.status())?;
        let cluster = self
            .cluster
            .id()
            .ok_or_else(|| Status::unavailable("this node does not know its cluster yet"))?;
        let cluster_id = cluster.as_bytes().to_vec().into();
        // Only the leader's word counts, but what is wrong for sure can be said at once.
        applicant.check_cluster(cluster).map_err(|refusal| refusal.status())?;
        if !self.cluster.leads() {
            let (leader, address) =
                self.cluster.leader().ok_or_else(|| Status::unavailable("nobody leads the cluster now"))?;
            let leader = Some(pb::Leader { node_id: leader.get(), internal_address: address });
            return Ok(Response::new(pb::JoinResponse { cluster_id, leader, log_index: 0 }));
        }
        let borne = self.cluster.bears(their_now).ok_or_else(|| {
            Status::unavailable("a majority of the nodes has yet to show the leader its clocks")
        })?;
        borne.map_err(|ahead_ms| applicant.astray(ahead_ms).status())?;
        let index = self.cluster.admit(&applicant).await?;
        Ok(Response::new(pb::JoinResponse { cluster_id, leader: None, log_index: index.get() }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<pb::Beat>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (controller, clock) = (self.cluster.controller().clone(), Arc::clone(self.cluster.clock()));
        let answers = request.into_inner().then(move |beat| {
            let (controller, clock) = (controller.clone(), Arc::clone(&clock));
            async move {
                let beat = beat?;
                let told = Beat {
                    node: NodeId::new(beat.node_id),
                    incarnation: Incarnation::new(beat.incarnation),
                    applied: LogIndex::new(beat.applied_index),
                    pinned: LogIndex::new(beat.pinned_index),
                    // 0 is what older releases send.
                    calendar: (beat.now_ms > 0)
                        .then(|| Calendar::of(Timestamp::from_millis(beat.now_ms), clock.now())),
                    writes: WritesSeen {
                        failing: beat.writes_failing_ms.map(Duration::from_millis),
                        succeeded: beat.writes_succeeded_ms.map(Duration::from_millis),
                    },
                };
                let answer = controller.beat(told).await;
                let answer = answer.map_err(|error| Status::failed_precondition(error.to_string()))?;
                let closed = answer.verdict == BeatVerdict::Closed;
                Ok(pb::BeatAnswer { sequence: beat.sequence, closed, prove_writes: answer.prove_writes })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn follow(
        &self,
        request: Request<Streaming<pb::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(follow(self.cluster.clone(), stream, request.into_inner())))
    }

    async fn readers(
        &self,
        request: Request<pb::ReadersRequest>,
    ) -> Result<Response<pb::ReadersResponse>, Status> {
        let of_all = request.into_inner().of_all;
        let own = || self.cluster.feed().readers(self.cluster.clock().now());
        let readers = if of_all { self.cluster.readers().await } else { own() };
        Ok(Response::new(answer(readers)))
    }

    async fn confirm(
        &self,
        _request: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::ConfirmResponse>, Status> {
        let index = self.cluster.log().read_index().await;
        let index = index.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pb::ConfirmResponse { index: index.get() }))
    }

    async fn leader_view(
        &self,
        request: Request<pb::LeaderViewRequest>,
    ) -> Result<Response<pb::LeaderViewResponse>, Status> {
        let to = request.into_inner().to;
        let view = if to == 0 {
            self.cluster.view().await
        } else {
            self.check_receiver(to)?;
            if !self.cluster.leads() {
                return Err(Status::failed_precondition("this node does not lead"));
            }
            self.cluster.own_view().await
        };
        Ok(Response::new(pb::LeaderViewResponse {
            members: view.members.into_iter().map(member).collect(),
            term: view.term,
            last_log_index: view.last_log.get(),
            committed_index: view.committed.get(),
            applied_index: view.applied.get(),
            snapshot_index: view.snapshot.get(),
            leader_id: view.leader.map_or(0, NodeId::get),
        }))
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersResponse>, Status> {
        use pb::change_members_request::Change;
        let request = request.into_inner();
        self.check_receiver(request.to)?;
        if !self.cluster.leads() {
            return Err(Status::failed_precondition("this node does not lead"));
        }
        let leader = match request.change {
            Some(Change::TransferLeader(0)) => self.cluster.transfer_leader(None).await,
            Some(Change::TransferLeader(node)) => self.cluster.transfer_leader(Some(NodeId::new(node))).await,
            None => return Err(Status::invalid_argument("no change is named")),
        };
        let leader = leader.map_err(|error| error.status())?;
        Ok(Response::new(pb::ChangeMembersResponse { leader_id: leader.get() }))
    }
}

fn member(member: MemberView) -> pb::MemberView {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    pb::MemberView {
        node_id: member.node.get(),
        address: member.address,
        voter: member.voter,
        matched_index: member.matched.map(LogIndex::get),
        last_contact_ms: member.last_contact.map(millis),
        last_beat_ms: member.last_beat.map(millis),
        applied_index: member.applied.get(),
        clock_ahead_ms: member.clock_ahead_ms,
        writes_failing_ms: member.writes_failing.map(millis),
    }
}
