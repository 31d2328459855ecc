//! Serves a reader: a snapshot when it is far behind, then every command as it is applied here, for as long as it shows
//! that it lives.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use streamhouse_metadata::codec::encode_snapshot;
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::follow_response::Message;
use streamhouse_types::LogIndex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::cluster::Cluster;
use crate::feed::ReaderPin;
use crate::readers::ReaderTold;

/// A reader that says nothing for so long has lost its lease: what it pinned may go.
const READER_LEASE: Duration = Duration::from_secs(5);
/// Bytes of commands in one message.
const STRETCH_BYTES: usize = 1 << 20;
/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Messages that wait for a slow reader; behind them nothing more is prepared.
const WAITING: usize = 2;

type Answer = Result<pb::FollowResponse, Status>;

/// Serves one reader until it goes.
pub(crate) fn follow(
    cluster: Cluster,
    stream: u64,
    inbound: Streaming<pb::FollowRequest>,
) -> BoxStream<'static, Answer> {
    let (answers, queue) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let gone = answers.clone();
        let mut serving = Serving { pin: cluster.feed().pin(stream), cluster, answers };
        let ended = tokio::select! {
            () = gone.closed() => return,
            ended = serving.run(inbound) => ended,
        };
        if let Err(status) = ended {
            drop(gone.send(Err(status)).await);
        }
    });
    ReceiverStream::new(queue).boxed()
}

struct Serving {
    cluster: Cluster,
    pin: ReaderPin,
    answers: mpsc::Sender<Answer>,
}

impl Serving {
    async fn run(&mut self, mut inbound: Streaming<pb::FollowRequest>) -> Result<(), Status> {
        let first =
            inbound.message().await?.ok_or_else(|| Status::invalid_argument("the request is missing"))?;
        self.pin.introduce(ReaderTold::of(&first), self.cluster.clock().now());
        let at = self.begin(LogIndex::new(first.from_index)).await?;
        tokio::select! {
            ended = self.hear(inbound) => ended,
            ended = self.send_on(at) => ended,
        }
    }

    /// Brings the reader to where it can follow.
    async fn begin(&self, from: LogIndex) -> Result<LogIndex, Status> {
        let known = from > LogIndex::ZERO && from <= *self.cluster.feed().newest().borrow();
        if known && self.cluster.feed().after(from, 1).is_some() {
            return Ok(from);
        }
        // Taken after the pin: what dies from now on is kept.
        let state = self.cluster.state();
        let cluster =
            state.cluster().ok_or_else(|| Status::unavailable("this node does not know its cluster yet"))?;
        let mut bytes = Vec::new();
        encode_snapshot(&state, &mut bytes).map_err(|error| Status::internal(error.to_string()))?;
        let bytes = Bytes::from(bytes);
        let head =
            pb::FollowSnapshot { length: bytes.len() as u64, cluster_id: cluster.as_bytes().to_vec().into() };
        self.send(Message::Snapshot(head)).await?;
        for start in (0..bytes.len()).step_by(CHUNK_BYTES) {
            let end = bytes.len().min(start + CHUNK_BYTES);
            self.send(Message::SnapshotChunk(bytes.slice(start..end))).await?;
        }
        Ok(state.applied())
    }

    /// Hears what the reader still reads of; ends when it says nothing any more.
    async fn hear(&self, mut inbound: Streaming<pb::FollowRequest>) -> Result<(), Status> {
        loop {
            let said = tokio::select! {
                said = inbound.message() => said?,
                () = self.cluster.clock().sleep(READER_LEASE) => {
                    return Err(Status::deadline_exceeded("the lease of the reader has ended"));
                }
            };
            match said {
                Some(said) => {
                    let (pinned, applied) =
                        (LogIndex::new(said.pinned_index), LogIndex::new(said.applied_index));
                    self.pin.advance(pinned, applied, self.cluster.clock().now());
                }
                None => return Ok(()),
            }
        }
    }

    async fn send_on(&self, mut at: LogIndex) -> Result<(), Status> {
        let mut newest = self.cluster.feed().newest();
        loop {
            newest.mark_unchanged();
            let stretch = self.cluster.feed().after(at, STRETCH_BYTES);
            let stretch = stretch.ok_or_else(|| Status::out_of_range("the reader is too far behind"))?;
            if stretch.last == at {
                // It fails only when this node has stopped.
                newest.changed().await.map_err(|_| Status::unavailable("the node stops"))?;
                continue;
            }
            at = stretch.last;
            let entry = |(index, command): (LogIndex, Bytes)| pb::FollowEntry { index: index.get(), command };
            let entries = stretch.commands.into_iter().map(entry).collect();
            self.send(Message::Entries(pb::FollowEntries { index: at.get(), entries })).await?;
        }
    }

    async fn send(&self, message: Message) -> Result<(), Status> {
        let sent = self.answers.send(Ok(pb::FollowResponse { message: Some(message) })).await;
        sent.map_err(|_| Status::cancelled("the reader has gone"))
    }
}
