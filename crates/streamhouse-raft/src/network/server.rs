//! Answers other nodes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::errors::RaftError;
use openraft::{Raft, ReadPolicy};
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::client::MESSAGE_BYTES;
use super::convert::{self, Missing};
use crate::machine::Machine;
use crate::types::{Snapshot, TypeConfig};

/// Longest wait for the next piece of a snapshot.
const PIECE_WAIT: Duration = Duration::from_secs(10);

/// The node's side of the Raft protocol, to be mounted on the internal listener. Never on one that clients reach.
#[derive(Clone)]
pub struct RaftRpc {
    raft: Raft<TypeConfig, Machine>,
    node: u64,
}

impl std::fmt::Debug for RaftRpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftRpc").field("node", &self.node).finish_non_exhaustive()
    }
}

impl RaftRpc {
    pub(crate) fn new(raft: Raft<TypeConfig, Machine>, node: u64) -> Self {
        Self { raft, node }
    }

    /// The gRPC service around it, with its message limits.
    #[must_use]
    pub fn into_service(self) -> RaftServiceServer<Self> {
        let service = RaftServiceServer::new(self);
        service.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES)
    }

    /// A node that got the address of another one must not speak for it.
    fn check_receiver(&self, to: u64) -> Result<(), Status> {
        if to == self.node {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("this is node {}, not node {to}", self.node)))
    }
}

fn invalid(missing: Missing) -> Status {
    Status::invalid_argument(missing.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[async_trait]
impl RaftService for RaftRpc {
    async fn append(
        &self,
        request: Request<pb::AppendEntriesRequest>,
    ) -> Result<Response<pb::AppendEntriesResponse>, Status> {
        let request = request.into_inner();
        self.check_receiver(request.to)?;
        let request = convert::append_from(request).map_err(invalid)?;
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        Ok(Response::new(convert::appended_to(response)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check_receiver(request.to)?;
        let request = convert::vote_request_from(request).map_err(invalid)?;
        let response = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::voted_to(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check_receiver(request.to)?;
        let request = convert::vote_request_from(request).map_err(invalid)?;
        let response = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::voted_to(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        use pb::install_snapshot_request::Message;
        let mut messages = request.into_inner();
        let Some(Message::Head(head)) = next_piece(&mut messages).await? else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        self.check_receiver(head.to)?;
        let vote = convert::vote_from(head.vote).map_err(invalid)?;
        let meta = convert::meta_from(head.meta).map_err(invalid)?;
        let snapshot = receive(&mut messages, head.length).await?;
        let response =
            self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await.map_err(stopped)?;
        Ok(Response::new(pb::InstallSnapshotResponse { vote: Some(convert::vote_to(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.check_receiver(request.receiver)?;
        let request = convert::transfer_from(request).map_err(invalid)?;
        let response = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(convert::transferred_to(response)))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.check_receiver(request.into_inner().to)?;
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(Response::new(pb::ReadIndexResponse { index: read.index() })),
            Err(RaftError::APIError(error)) => Err(Status::failed_precondition(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(stopped(fatal)),
        }
    }
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
