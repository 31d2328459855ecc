//! Sends to other nodes. Every call has a deadline; after one that was missed the connection is made anew, because a
//! half-dead one would otherwise hold up replication for good.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use streamhouse_env::Net;
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::raft_service_client::RaftServiceClient;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use super::convert::{self, Missing};
use crate::types::{Snapshot, TypeConfig, Vote};

type Client = RaftServiceClient<Channel>;

/// Largest message taken from another node. Replication sends about 1 MiB at once, more only for one large entry.
pub(super) const MESSAGE_BYTES: usize = 256 << 20;
const SNAPSHOT_CHUNK: usize = 1 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Makes connections.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    net: Arc<dyn Net>,
}

impl Connector {
    pub(crate) fn new(net: Arc<dyn Net>) -> Self {
        Self { net }
    }

    /// A client of the node at `address`, connected at its first call; `None` when that is no address.
    fn client(&self, address: &str) -> Option<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let net = self.net.clone();
        let address = address.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let (net, address) = (net.clone(), address.clone());
            async move { net.connect(&address).await.map(TokioIo::new) }
        });
        let client = Client::new(endpoint.connect_with_connector_lazy(connect));
        Some(client.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
    }
}

/// Makes a [`Peer`] for each node to talk to.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) connector: Connector,
    pub(crate) node: u64,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let client = self.connector.client(&node.addr);
        Peer {
            connector: self.connector.clone(),
            node: self.node,
            target,
            address: node.addr.clone(),
            client,
        }
    }
}

/// Talks to one node.
pub(crate) struct Peer {
    connector: Connector,
    node: u64,
    target: u64,
    address: String,
    client: Option<Client>,
}

impl Peer {
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
        let Some(client) = self.client.clone() else {
            return Err(unreachable(format!("`{}` is no address", self.address)));
        };
        match tokio::time::timeout(deadline, call(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(unreachable(status)),
            Err(_) => {
                self.client = self.connector.client(&self.address);
                Err(Timeout { action, id: self.node, target: self.target, timeout: deadline }.into())
            }
        }
    }
}

fn unreachable(problem: impl ToString) -> RPCError<TypeConfig> {
    Unreachable::from_string(problem).into()
}

fn incomplete(missing: Missing) -> RPCError<TypeConfig> {
    unreachable(missing)
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::append_to(request, self.target);
        let send = async |mut client: Client| client.append(request).await;
        let response = self.call(RPCTypes::AppendEntries, option.soft_ttl(), send).await?;
        convert::appended_from(response).map_err(incomplete)
    }

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

/// Asks the leader at `address` up to where a current read must have applied; `None` when it does not answer so.
pub(crate) async fn read_index_of(
    connector: &Connector,
    leader: (u64, &str),
    deadline: Duration,
) -> Option<u64> {
    let (to, address) = leader;
    let mut client = connector.client(address)?;
    let answer = client.read_index(pb::ReadIndexRequest { to });
    let answer = tokio::time::timeout(deadline, answer).await.ok()?.ok()?;
    Some(answer.into_inner().index)
}
