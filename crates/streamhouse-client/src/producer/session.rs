//! The stream of batches and answers between a producer and a server.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::StreamExt as _;
use streamhouse_proto::v1;
use streamhouse_proto::v1::append_session_request::Message as Request;
use streamhouse_proto::v1::append_session_response::Message as Response;
use streamhouse_types::{Offset, ProducerEpoch, ProducerId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Delivery;
use super::batch::Identity;
use super::flow::BATCHES_IN_FLIGHT_MAX;
use super::outbox::Outgoing;
use super::ticket::BatchAck;
use crate::rejection::Rejection;
use crate::topic::Topic;
use crate::ways::Way;
use streamhouse_api::{ReadToken, timestamp};

/// Longest wait for a session to open.
const OPEN_TIMEOUT_ALONE: Duration = Duration::from_secs(10);
/// With others at hand, partitions do not wait long for a home that does not let them in.
const OPEN_TIMEOUT_AMONG_OTHERS: Duration = Duration::from_secs(2);

/// How a session is opened.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) topic: Topic,
    pub(super) delivery: Delivery,
    /// The producer id to go on with; with `None` an idempotent producer asks for a new one.
    pub(super) identity: Option<Identity>,
    pub(super) want_credit_bytes: u64,
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) way: Way,
    requests: mpsc::Sender<v1::AppendSessionRequest>,
    answers: Box<Streaming<v1::AppendSessionResponse>>,
}

/// What the server granted.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The producer id that the opening was begun with.
    pub(super) asked: Option<Identity>,
    /// The producer id that the session has.
    pub(super) identity: Option<Identity>,
    pub(super) routing: Routing,
    pub(super) partitions: u32,
    pub(super) credit_bytes: u64,
    pub(super) max_batch_bytes: u32,
}

/// Where partitions are at home, and where nodes are.
#[derive(Debug, Clone, Default)]
pub(super) struct Routing {
    pub(super) homes: Vec<v1::PartitionHome>,
    pub(super) nodes: Vec<v1::NodeAddress>,
}

/// What the server says about a batch, or about the session.
#[derive(Debug)]
pub(super) enum Answer {
    Ack(u64, BatchAck),
    Nack(u64, Rejection),
    /// It wants no more in this session.
    GoAway(Routing),
    /// Homes have moved. What is sent here is stored as well.
    Redirect(Routing),
    /// The session is gone.
    Lost(Rejection),
}

impl Opening {
    /// Opens a session. Cancel-safe: a producer id that was asked for is then lost, which harms nobody.
    pub(super) async fn open(self, way: Way) -> Result<(Session, Opened), Rejection> {
        let house = self.topic.house.clone();
        let timeout = if house.is_alone() { OPEN_TIMEOUT_ALONE } else { OPEN_TIMEOUT_AMONG_OTHERS };
        tokio::select! {
            opened = self.open_in_time(way) => opened,
            () = house.0.env.clock.sleep(timeout) => Err(Rejection::connection_lost("no answer to the opening of a session")),
        }
    }

    async fn open_in_time(self, way: Way) -> Result<(Session, Opened), Rejection> {
        let refused = |status: Status| Rejection::from_status(&status);
        let mut client = way.streams();
        let identity = match (self.delivery, self.identity) {
            (Delivery::AtMostOnce, _) => None,
            (Delivery::ExactlyOnce, Some(identity)) => Some(identity),
            (Delivery::ExactlyOnce, None) => {
                let granted =
                    client.init_producer(v1::InitProducerRequest { count: 1 }).await.map_err(refused)?;
                Some(read_identity(granted.into_inner())?)
            }
        };
        let (requests, queue) = mpsc::channel(BATCHES_IN_FLIGHT_MAX + 1);
        let open = v1::OpenAppend {
            topic: self.topic.name().to_owned(),
            producer: identity.map(|identity| v1::Producer {
                id: identity.id.get(),
                epoch: u32::from(identity.epoch.get()),
            }),
            want_credit_bytes: self.want_credit_bytes,
        };
        let open = v1::AppendSessionRequest { message: Some(Request::Open(open)) };
        requests.try_send(open).expect("the queue is empty and its other end is here");
        let mut answers =
            client.append_session(ReceiverStream::new(queue)).await.map_err(refused)?.into_inner();
        let first = answers.message().await.map_err(refused)?;
        let Some(Response::Opened(opened)) = first.and_then(|answer| answer.message) else {
            return Err(Rejection::connection_lost("the session ended before it was open"));
        };
        let opened = Opened {
            asked: self.identity,
            identity,
            routing: Routing { homes: opened.homes, nodes: opened.nodes },
            partitions: opened.partition_count.max(1),
            credit_bytes: opened.credit_bytes,
            max_batch_bytes: opened.max_batch_bytes,
        };
        Ok((Session { way, requests, answers: Box::new(answers) }, opened))
    }
}

fn read_identity(granted: v1::InitProducerResponse) -> Result<Identity, Rejection> {
    let epoch = u16::try_from(granted.epoch).ok().filter(|epoch| i16::try_from(*epoch).is_ok());
    match (epoch, granted.count) {
        (Some(epoch), 1..) => {
            Ok(Identity { id: ProducerId::new(granted.first_id), epoch: ProducerEpoch::new(epoch) })
        }
        _ => Err(Rejection::connection_lost("the server granted no usable producer id")),
    }
}

impl Session {
    /// Hands a batch to the connection. Never waits: the session has room for all that may be on its way.
    pub(super) fn send(&self, outgoing: Outgoing) {
        let batch = v1::AppendBatch {
            partition: outgoing.partition.get(),
            session_sequence: outgoing.session_sequence,
            record_batch: outgoing.bytes,
        };
        let request = v1::AppendSessionRequest { message: Some(Request::Batch(batch)) };
        // Fails only when the connection is gone, which the answers tell next.
        let _ = self.requests.try_send(request);
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = match ready!(self.answers.poll_next_unpin(cx)) {
            Some(Ok(answer)) => read_answer(answer),
            None => Answer::Lost(Rejection::connection_lost("the server ended the session")),
            Some(Err(status)) => Answer::Lost(Rejection::from_status(&status)),
        };
        Poll::Ready(answer)
    }
}

fn read_answer(answer: v1::AppendSessionResponse) -> Answer {
    match answer.message {
        Some(Response::Ack(ack)) => {
            let batch = BatchAck {
                base: Offset::new(ack.base_offset),
                append_time: timestamp(ack.append_time),
                duplicate: ack.duplicate,
                read_token: ReadToken::new(ack.read_token),
            };
            Answer::Ack(ack.session_sequence, batch)
        }
        Some(Response::Nack(nack)) => {
            Answer::Nack(nack.session_sequence, Rejection::from_rpc(&nack.status.unwrap_or_default()))
        }
        Some(Response::GoAway(away)) => Answer::GoAway(Routing { homes: Vec::new(), nodes: away.nodes }),
        Some(Response::Redirect(moved)) => {
            Answer::Redirect(Routing { homes: moved.homes, nodes: moved.nodes })
        }
        Some(Response::Opened(_)) | None => {
            Answer::Lost(Rejection::connection_lost("the server's answer is malformed"))
        }
    }
}
