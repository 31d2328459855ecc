//! Answers other nodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::stream::BoxStream;
use openraft::ReadPolicy;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::FlushPoint;
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use streamhouse_types::NodeId;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::connector::MESSAGE_BYTES;
use super::convert::{self, Missing};
use super::guard::{ClusterGuard, Entered};
use super::incoming;
use crate::error::Failure;
use crate::log::report;
use crate::node::Inner;
use crate::propose::{Attempt, check_size};
use crate::types::{LogId, LoggedCommand, Snapshot, TypeConfig, Vote};

/// Longest wait for the next piece of a snapshot.
const PIECE_WAIT: Duration = Duration::from_secs(10);
/// Largest snapshot taken from another node. It is held in memory, as the state is that it becomes.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;
/// How long a snapshot waits for what is being written.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// Longest that a request waits for the consensus core, so that a stuck one does not gather requests.
const CORE_WAIT: Duration = Duration::from_secs(30);

/// The node's side of the Raft protocol, to be mounted on the internal listener. Never on one that clients reach.
#[derive(Clone)]
pub struct RaftRpc {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for RaftRpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftRpc").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl RaftRpc {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The gRPC service around it, with its limits. It lets in only what comes from the same cluster. The listener should
    /// probe its connections, as a peer that fell silent keeps its place until its connection ends.
    #[must_use]
    pub fn into_service(self) -> InterceptedService<RaftServiceServer<Self>, ClusterGuard> {
        let inner = &self.inner;
        let guard =
            ClusterGuard::new(inner.node, inner.cluster.clone(), inner.part.clone(), inner.room.clone());
        let service = RaftServiceServer::new(self);
        let service =
            service.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES);
        InterceptedService::new(service, guard)
    }

    /// A node that got the address of another one must not speak for it.
    fn check_receiver(&self, to: u64) -> Result<(), Status> {
        check_receiver(self.inner.node, to)
    }
}

fn check_receiver(node: NodeId, to: u64) -> Result<(), Status> {
    if to == node.get() {
        return Ok(());
    }
    Err(Status::failed_precondition(format!("this is node {node}, not node {to}")))
}

/// A follower that has less than it acknowledged to a leader may vote for one that has less as well: it must stop. What
/// another leader has had taken back since is not missing.
fn check_kept(inner: &Inner, message: &pb::AppendEntriesRequest) -> Result<(), Status> {
    let (last, own) = inner.log.standing();
    if message.acknowledged <= last {
        return Ok(());
    }
    let vote = convert::vote_from(message.vote).map_err(invalid)?;
    if own.is_some_and(|own| own > vote) {
        return Ok(());
    }
    let failure = Failure::Rolled { acknowledged: message.acknowledged, last };
    let status = Status::failed_precondition(failure.to_string());
    report(&inner.failure, failure);
    Err(status)
}

pub(super) fn invalid(missing: Missing) -> Status {
    Status::invalid_argument(missing.to_string())
}

pub(super) fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// Waits for the consensus core, but not for ever.
async fn of_core<T, E: std::fmt::Display>(
    answer: impl Future<Output = Result<T, E>>,
    wait: Duration,
) -> Result<T, Status> {
    let answer = tokio::time::timeout(wait, answer).await;
    answer.map_err(|_| Status::deadline_exceeded("the node does not answer"))?.map_err(stopped)
}

#[async_trait]
impl RaftService for RaftRpc {
    type AppendStreamStream = BoxStream<'static, Result<pb::AppendEntriesResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let inner = Arc::clone(&self.inner);
        let check = move |message: &pb::AppendEntriesRequest| {
            check_receiver(inner.node, message.to)?;
            check_kept(&inner, message)
        };
        Ok(Response::new(incoming::append_all(&self.inner.raft, request, check)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (request, _entered) = open(request);
        self.check_receiver(request.to)?;
        let request = convert::vote_request_from(request).map_err(invalid)?;
        let response = of_core(self.inner.raft.vote(request), CORE_WAIT).await?;
        Ok(Response::new(convert::voted_to(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let (request, _entered) = open(request);
        self.check_receiver(request.to)?;
        let request = convert::vote_request_from(request).map_err(invalid)?;
        let response = of_core(self.inner.raft.pre_vote(request), CORE_WAIT).await?;
        Ok(Response::new(convert::voted_to(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        use pb::install_snapshot_request::Message;
        let (mut messages, _entered) = open(request);
        let Some(Message::Head(head)) = next_piece(&mut messages).await? else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        self.check_receiver(head.to)?;
        let vote = convert::vote_from(head.vote).map_err(invalid)?;
        let meta = convert::meta_from(head.meta).map_err(invalid)?;
        if head.length > SNAPSHOT_BYTES_MAX {
            let text = format!("a snapshot of {} bytes; {SNAPSHOT_BYTES_MAX} are taken", head.length);
            return Err(Status::invalid_argument(text));
        }
        let _room = self.inner.room.for_snapshot()?;
        let wait = self.inner.snapshot_timeout;
        let snapshot = tokio::time::timeout(wait, receive(&mut messages, head.length)).await;
        let snapshot = snapshot.map_err(|_| Status::deadline_exceeded("the snapshot comes too slowly"))??;
        let vote = of_core(install(&self.inner, vote, Snapshot { meta, snapshot }), wait).await?;
        Ok(Response::new(pb::InstallSnapshotResponse { vote: Some(convert::vote_to(&vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let (request, _entered) = open(request);
        self.check_receiver(request.receiver)?;
        let request = convert::transfer_from(request).map_err(invalid)?;
        let response = of_core(self.inner.raft.handle_transfer_leader(request), CORE_WAIT).await?;
        Ok(Response::new(convert::transferred_to(response)))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        let (request, _entered) = open(request);
        self.check_receiver(request.to)?;
        let read = self.inner.raft.get_read_log_id(ReadPolicy::ReadIndex).map(|read| match read {
            Ok((read, _)) => Ok(Ok(read.index())),
            Err(RaftError::APIError(error)) => Ok(Err(Status::failed_precondition(error.to_string()))),
            Err(RaftError::Fatal(fatal)) => Err(fatal),
        });
        let index = of_core(read, CORE_WAIT).await??;
        Ok(Response::new(pb::ReadIndexResponse { index }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        let (request, _entered) = open(request);
        self.check_receiver(request.to)?;
        let refused = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
        let bytes = check_size(request.commands.iter().map(Bytes::len)).map_err(|error| refused(&error))?;
        let Some(_room) = self.inner.room.for_proposal(bytes) else {
            return Ok(Response::new(convert::refused_to("too many proposals at once".to_owned(), None)));
        };
        // What this release cannot read must not get into the log: no node could go past it.
        let commands = request.commands.iter().map(LoggedCommand::checked).collect::<Result<Vec<_>, _>>();
        let commands = commands.map_err(|error| refused(&error))?;
        Ok(Response::new(match self.inner.try_here(&commands).await {
            Attempt::Taken(fates) => convert::proposed_to(fates),
            Attempt::Refused(leader) => convert::refused_to("this node does not lead".to_owned(), leader),
            Attempt::Stopped => convert::refused_to("this node has stopped".to_owned(), None),
        }))
    }
}

/// Installs the snapshot of a leader and returns the vote of this node.
///
/// Where the log holds durably, from the same leader, all that the snapshot covers, it stays as it is: that is as good an
/// answer, since what a snapshot covers is committed and never leaves a log again. It happens when requests were long on
/// their way and the leader had given them up for lost. The consensus core must not see such a snapshot; it takes it for
/// a step back of its log, and ends where assertions are compiled in.
async fn install(inner: &Inner, vote: Vote, snapshot: Snapshot) -> Result<Vote, Fatal<TypeConfig>> {
    // What came before is in the log then, though it may not be durable yet.
    inner.raft.with_raft_state(|_| ()).await?;
    let last = snapshot.meta.last_log_id;
    let holds = inner.log.vote() == Some(vote) && last.is_some_and(|last| inner.log.holds(last));
    if holds && durable(inner, vote, last).await {
        tracing::info!(?last, "the leader's snapshot brings nothing new");
        return Ok(vote);
    }
    Ok(inner.raft.install_full_snapshot(vote, snapshot).await?.vote)
}

/// Whether all up to this entry is durable as that leader's. What is being written is waited for.
async fn durable(inner: &Inner, vote: Vote, last: Option<LogId>) -> bool {
    let wanted = Some(FlushPoint::<TypeConfig> { vote, last_log_id: last });
    let mut progress = inner.raft.watch_log_progress();
    let reached = tokio::select! {
        reached = progress.wait_until_ge(&wanted) => reached.ok().flatten(),
        () = inner.env.clock.sleep(FLUSH_WAIT) => None,
    };
    reached.is_some_and(|reached| reached.vote == vote)
}

/// A request, and its place among those that are let in.
pub(super) fn open<T>(mut request: Request<T>) -> (T, Option<Entered>) {
    let entered = request.extensions_mut().remove::<Entered>();
    (request.into_inner(), entered)
}

async fn next_piece(
    messages: &mut Streaming<pb::InstallSnapshotRequest>,
) -> Result<Option<pb::install_snapshot_request::Message>, Status> {
    let piece = tokio::time::timeout(PIECE_WAIT, messages.message()).await;
    let piece = piece.map_err(|_| Status::deadline_exceeded("the snapshot stopped coming"))??;
    Ok(piece.and_then(|piece| piece.message))
}

/// Collects the bytes of a snapshot; room is made as they come, not as they are announced.
async fn receive(messages: &mut Streaming<pb::InstallSnapshotRequest>, length: u64) -> Result<Bytes, Status> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = next_piece(messages).await? {
        let pb::install_snapshot_request::Message::Chunk(chunk) = piece else {
            return Err(Status::invalid_argument("a snapshot has one head"));
        };
        if bytes.len() as u64 + chunk.len() as u64 > length {
            return Err(Status::invalid_argument("the snapshot is longer than announced"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() as u64 == length {
        return Ok(bytes.freeze());
    }
    Err(Status::invalid_argument("the snapshot is shorter than announced"))
}

#[cfg(test)]
mod tests;
