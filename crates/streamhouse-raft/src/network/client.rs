//! Sends to other nodes. Every call has a deadline; after one that was missed the connection is made anew, because a
//! half-dead one would otherwise hold up replication for good.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory};
use streamhouse_proto::internal as pb;
use tonic::{Response, Status};

use super::acknowledged::Acknowledged;
use super::connector::{Client, Connector};
use super::convert::{self, Missing};
use super::stream::{self, Answer};
use crate::types::{Snapshot, TypeConfig, Vote};

const SNAPSHOT_CHUNK: usize = 1 << 20;

/// Makes a [`Peer`] for each node to talk to.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) connector: Connector,
    pub(crate) node: u64,
    pub(crate) acknowledged: Acknowledged,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let (connector, acknowledged) = (self.connector.clone(), self.acknowledged.clone());
        Peer { connector, acknowledged, node: self.node, target, address: node.addr.clone(), client: None }
    }
}

/// Talks to one node.
pub(crate) struct Peer {
    pub(super) connector: Connector,
    pub(super) acknowledged: Acknowledged,
    pub(super) node: u64,
    pub(super) target: u64,
    address: String,
    /// A connection that has served its last call well.
    client: Option<Client>,
}

impl Peer {
    /// Takes the connection for a call, or makes one. Who does not [`keep`](Self::keep) it gives it up, also by being
    /// cancelled: then nobody knows in what state it is.
    fn take(&mut self) -> Result<Client, RPCError<TypeConfig>> {
        if let Some(address) = self.connector.address_of(self.target)
            && address != self.address
        {
            self.address = address;
            self.client = None;
        }
        let client = self.client.take().or_else(|| self.connector.client(&self.address));
        client.ok_or_else(|| unreachable(format!("`{}` is no address", self.address)))
    }

    /// Keeps a connection that works.
    pub(super) fn keep(&mut self, client: Client) {
        self.client = Some(client);
    }

    /// Makes one call within `deadline`.
    async fn call<T, F>(
        &mut self,
        action: RPCTypes,
        deadline: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = self.take()?;
        match tokio::time::timeout(deadline, call(client.clone())).await {
            Ok(Ok(response)) => {
                self.keep(client);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(unreachable(status)),
            Err(_) => Err(Timeout { action, id: self.node, target: self.target, timeout: deadline }.into()),
        }
    }
}

pub(super) fn unreachable(problem: impl ToString) -> RPCError<TypeConfig> {
    Unreachable::from_string(problem).into()
}

fn incomplete(missing: Missing) -> RPCError<TypeConfig> {
    unreachable(missing)
}

impl NetBackoff<TypeConfig> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let opened = self.take().map(|client| stream::open(self, client, input, &option));
        std::future::ready(opened).boxed()
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::vote_request_to(&request, self.target);
        let send = async |mut client: Client| client.vote(request).await;
        let response = self.call(RPCTypes::Vote, option.soft_ttl(), send).await?;
        convert::voted_from(response).map_err(incomplete)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::vote_request_to(&request, self.target);
        let send = async |mut client: Client| client.pre_vote(request).await;
        let response = self.call(RPCTypes::Vote, option.soft_ttl(), send).await?;
        convert::voted_from(response).map_err(incomplete)
    }
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let head = pb::SnapshotHead {
            vote: Some(convert::vote_to(&vote)),
            meta: Some(convert::meta_to(&snapshot.meta)),
            length: snapshot.snapshot.len() as u64,
            to: self.target,
        };
        let send = |client| send_snapshot(client, head, snapshot.snapshot);
        let transfer = self.call(RPCTypes::InstallSnapshot, option.soft_ttl(), send);
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            response = transfer => response?,
        };
        let vote = convert::vote_from(response.vote).map_err(incomplete)?;
        Ok(SnapshotResponse::new(vote))
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::transfer_to(&request, self.target);
        let send = async |mut client: Client| client.transfer_leader(request).await;
        let response = self.call(RPCTypes::TransferLeader, option.soft_ttl(), send).await?;
        convert::transferred_from(response).map_err(incomplete)
    }
}

/// Streams a snapshot. Boxed, because the compiler cannot see through the client's stream type in a trait method.
fn send_snapshot(
    mut client: Client,
    head: pb::SnapshotHead,
    bytes: Bytes,
) -> BoxFuture<'static, Result<Response<pb::InstallSnapshotResponse>, Status>> {
    let messages = futures::stream::iter(snapshot_messages(head, bytes));
    Box::pin(async move { client.install_snapshot(messages).await })
}

/// The head, then the bytes in pieces that share the snapshot's buffer.
fn snapshot_messages(
    head: pb::SnapshotHead,
    bytes: Bytes,
) -> impl Iterator<Item = pb::InstallSnapshotRequest> {
    use pb::install_snapshot_request::Message;
    let message = |message| pb::InstallSnapshotRequest { message: Some(message) };
    let chunks = (0..bytes.len()).step_by(SNAPSHOT_CHUNK).map(move |start| {
        let end = bytes.len().min(start + SNAPSHOT_CHUNK);
        message(Message::Chunk(bytes.slice(start..end)))
    });
    std::iter::once(message(Message::Head(head))).chain(chunks)
}
