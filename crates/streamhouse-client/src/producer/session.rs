//! The stream of batches and answers between a producer and a server.

use std::time::Duration;

use streamhouse_proto::v1;
use streamhouse_proto::v1::append_session_request::Message as Request;
use streamhouse_proto::v1::append_session_response::Message as Response;
use streamhouse_types::{Offset, ProducerEpoch, ProducerId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Delivery;
use super::batch::Identity;
use super::outbox::{BATCHES_IN_FLIGHT_MAX, Outgoing};
use super::ticket::BatchAck;
use crate::error::Rejection;
use crate::model::timestamp;
use crate::topic::Topic;

/// Longest wait for a session to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

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
    requests: mpsc::Sender<v1::AppendSessionRequest>,
    answers: Box<Streaming<v1::AppendSessionResponse>>,
}

/// What the server granted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    pub(super) identity: Option<Identity>,
    pub(super) partitions: u32,
    pub(super) credit_bytes: u64,
    pub(super) max_batch_bytes: u32,
}

/// What the server says about a batch, or about the session.
#[derive(Debug)]
pub(super) enum Answer {
    Ack(u64, BatchAck),
    Nack(u64, Rejection),
    GoAway,
    /// The session is gone.
    Lost(Rejection),
}

impl Opening {
    /// Opens a session. Cancel-safe: a producer id that was asked for is then lost, which harms nobody.
    pub(super) async fn open(self) -> Result<(Session, Opened), Rejection> {
        let clock = self.topic.house.0.env.clock.clone();
        tokio::select! {
            opened = self.open_in_time() => opened,
            () = clock.sleep(OPEN_TIMEOUT) => Err(Rejection::connection_lost("no answer to the opening of a session")),
        }
    }

    async fn open_in_time(self) -> Result<(Session, Opened), Rejection> {
        let refused = |status: Status| Rejection::from_status(&status);
        let mut client = self.topic.house.stream_client();
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
            identity,
            partitions: opened.partition_count.max(1),
            credit_bytes: opened.credit_bytes,
            max_batch_bytes: opened.max_batch_bytes,
        };
        Ok((Session { requests, answers: Box::new(answers) }, opened))
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

    /// The next answer. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Answer {
        let answer = match self.answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Answer::Lost(Rejection::connection_lost("the server ended the session")),
            Err(status) => return Answer::Lost(Rejection::from_status(&status)),
        };
        match answer.message {
            Some(Response::Ack(ack)) => {
                let batch = BatchAck {
                    base: Offset::new(ack.base_offset),
                    append_time: timestamp(ack.append_time),
                    duplicate: ack.duplicate,
                };
                Answer::Ack(ack.session_sequence, batch)
            }
            Some(Response::Nack(nack)) => {
                Answer::Nack(nack.session_sequence, Rejection::from_rpc(&nack.status.unwrap_or_default()))
            }
            Some(Response::GoAway(_)) => Answer::GoAway,
            Some(Response::Opened(_)) | None => {
                Answer::Lost(Rejection::connection_lost("the server's answer is malformed"))
            }
        }
    }
}
