//! A session of appends: batches in, answers out in the order in which the batches were read.
//!
//! One task reads: it checks a batch, takes its share of the session's credit, hands it to the broker, and only then
//! reads the next message; not reading is the back-pressure. The answers are awaited by the response stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use streamhouse_broker::{AppendRequest, Broker, PendingAck, Session, TopicInfo};
use streamhouse_proto::v1;
use streamhouse_proto::v1::append_session_request::Message as In;
use streamhouse_proto::v1::append_session_response::Message as Out;
use streamhouse_types::TopicId;
use streamhouse_types::batch::RecordBatch;
use streamhouse_types::error_code::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::Services;
use crate::authorize::{Caller, Resource};
use crate::convert::timestamp;
use crate::metrics::{Counted, SESSIONS};
use crate::routing::{ToldHomes, nodes};
use crate::status::{Fault, nack_status};

/// Most unanswered bytes of a session, and what it gets when it does not say.
const CREDIT_MAX: u32 = 16 << 20;
/// The least that is granted: fewer unanswered bytes help nobody.
const CREDIT_MIN: u32 = 64 << 10;
/// Most unanswered batches of a session.
const UNANSWERED_MAX: usize = 4_096;
/// How long a session may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What waits to be written to the client.
enum Answer {
    /// The session is open on a topic; the homes of its partitions go along.
    Opened(TopicId, v1::AppendOpened),
    Ready(Out),
    Waiting {
        sequence: u64,
        ack: PendingAck,
        _credit: OwnedSemaphorePermit,
    },
    End(Status),
}

/// Runs a session. The stream ends with it.
pub(crate) fn run(
    services: Services,
    caller: Caller,
    inbound: Streaming<v1::AppendSessionRequest>,
) -> impl Stream<Item = Result<v1::AppendSessionResponse, Status>> + Send {
    let (answers, queue) = mpsc::channel(UNANSWERED_MAX);
    let writer = Writer {
        queue,
        waiting: None,
        drain: Some(services.drain.clone()),
        homes: Homes::new(services.clone()),
        _count: Counted::new(SESSIONS),
    };
    let sessions = services.sessions.clone();
    sessions.spawn(async move {
        let gone = answers.clone();
        let mut reader = Reader { services, inbound, answers };
        // A client that has gone takes back what is not handed over yet.
        let ended = tokio::select! {
            () = gone.closed() => return,
            ended = reader.run(&caller) => ended,
        };
        if let Err(status) = ended {
            drop(gone.send(Answer::End(status)).await);
        }
    });
    futures::stream::unfold(writer, |mut writer| async move {
        let item = writer.next().await?;
        Some((item, writer))
    })
}

struct Reader {
    services: Services,
    inbound: Streaming<v1::AppendSessionRequest>,
    answers: mpsc::Sender<Answer>,
}

/// An opened session.
struct Opened {
    topic: TopicInfo,
    session: Session,
    producer: Option<v1::Producer>,
    credit: Arc<Semaphore>,
    credit_bytes: u32,
}

impl Reader {
    async fn run(&mut self, caller: &Caller) -> Result<(), Status> {
        let clock = Arc::clone(&self.services.clock);
        let open = tokio::select! {
            open = self.open_message() => open?,
            () = clock.sleep(OPEN_TIMEOUT) => {
                return Err(Fault::new(ErrorCode::TimedOut, "the session was not opened in time").into());
            }
        };
        let Some(open) = open else { return Ok(()) };
        caller.may(Resource::Topic(&open.topic))?;
        self.services.admit()?;
        let mut opened = self.open(open).await?;
        let mut expected = 0_u64;
        while let Some(batch) = self.next_batch().await? {
            if batch.session_sequence != expected {
                let text = format!("session sequence {expected} must follow, not {}", batch.session_sequence);
                return Err(Fault::argument("session_sequence", text).into());
            }
            expected = expected.saturating_add(1);
            let answer = self.take(&mut opened, batch).await;
            if self.answers.send(answer).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn open_message(&mut self) -> Result<Option<v1::OpenAppend>, Status> {
        let Some(first) = self.inbound.message().await? else { return Ok(None) };
        match first.message {
            Some(In::Open(open)) => Ok(Some(open)),
            _ => Err(Fault::argument("open", "a session begins with `open`").into()),
        }
    }

    async fn open(&mut self, open: v1::OpenAppend) -> Result<Opened, Status> {
        let name = self.services.name("open.topic", &open.topic)?;
        let topic = self.services.broker.ensure_topic(&name).await.map_err(Fault::from)?;
        if let Some(producer) = open.producer.as_ref() {
            producer_of(producer)?;
        }
        let credit_bytes = match u32::try_from(open.want_credit_bytes).unwrap_or(u32::MAX) {
            0 => CREDIT_MAX,
            wanted => wanted.clamp(CREDIT_MIN, CREDIT_MAX),
        };
        let session = self.services.broker.session(credit_bytes.into());
        let opened = v1::AppendOpened {
            topic_id: topic.id.get(),
            partition_count: topic.partitions,
            credit_bytes: credit_bytes.into(),
            max_batch_bytes: topic.settings.max_message_bytes.min(self.services.max_batch_bytes),
            ..Default::default()
        };
        drop(self.answers.send(Answer::Opened(topic.id, opened)).await);
        let credit = Arc::new(Semaphore::new(credit_bytes as usize));
        Ok(Opened { topic, session, producer: open.producer, credit, credit_bytes })
    }

    async fn next_batch(&mut self) -> Result<Option<v1::AppendBatch>, Status> {
        let message = tokio::select! {
            message = self.inbound.message() => message?,
            () = self.services.stop.cancelled() => {
                return Err(Fault::new(ErrorCode::ShuttingDown, "the node is stopping").into());
            }
        };
        match message.map(|message| message.message) {
            None => Ok(None),
            Some(Some(In::Batch(batch))) => Ok(Some(batch)),
            Some(_) => Err(Fault::argument("message", "after `open` a session consists of batches").into()),
        }
    }

    /// Hands a batch over, or says why not. Waits for credit and for the node's budget.
    async fn take(&self, opened: &mut Opened, batch: v1::AppendBatch) -> Answer {
        let sequence = batch.session_sequence;
        let refused = |fault: Fault| {
            Answer::Ready(Out::Nack(v1::AppendNack {
                session_sequence: sequence,
                status: Some(nack_status(fault)),
            }))
        };
        let bytes = u32::try_from(batch.record_batch.len()).unwrap_or(u32::MAX).clamp(1, opened.credit_bytes);
        let credit = Arc::clone(&opened.credit).acquire_many_owned(bytes).await;
        let credit = credit.expect("the semaphore is never closed");
        let request = match self.services.checked(opened, batch).await {
            Ok(request) => request,
            Err(fault) => return refused(fault),
        };
        match self.services.broker.append(&opened.session, request).await {
            Ok(ack) => Answer::Waiting { sequence, ack, _credit: credit },
            Err(error) => refused(error.into()),
        }
    }
}

impl Services {
    async fn checked(&self, opened: &mut Opened, batch: v1::AppendBatch) -> Result<AppendRequest, Fault> {
        let partition = self.partition_of(&opened.topic, batch.partition).await?;
        // What the topic has grown by since the session was opened is known from now on.
        opened.topic.partitions = opened.topic.partitions.max(batch.partition + 1);
        let limits = self.broker.topic_limits(opened.topic.id).ok_or_else(|| {
            let text = format!("topic `{}` was deleted", opened.topic.name);
            Fault::new(ErrorCode::TopicNotFound, text).about("topic", opened.topic.name.as_str())
        })?;
        // A slice of the receive buffer would keep all of it alive, which is up to twice as much as the budget counts,
        // for as long as the batch stands in the tail cache.
        let bytes = Bytes::copy_from_slice(&batch.record_batch);
        let batch = RecordBatch::parse(bytes, &self.limited(limits))?;
        same_producer(opened.producer.as_ref(), &batch)?;
        let batch = self.opening.open(batch).await?;
        Ok(AppendRequest { partition, batch, permit: None })
    }
}

/// Whether the batch is from the producer that opened the session, or from none in a session of none.
fn same_producer(opened: Option<&v1::Producer>, batch: &RecordBatch) -> Result<(), Fault> {
    let found = batch.header().producer;
    let same = match (opened, found) {
        (None, None) => true,
        (Some(opened), Some(found)) => {
            opened.id == found.id.get() && opened.epoch == u32::from(found.epoch.get())
        }
        _ => false,
    };
    if same {
        return Ok(());
    }
    Err(Fault::new(
        ErrorCode::InvalidBatch,
        "the batch is not of the producer that the session was opened for",
    ))
}

fn producer_of(producer: &v1::Producer) -> Result<(), Fault> {
    let id = i64::try_from(producer.id).is_ok();
    let epoch = i16::try_from(producer.epoch).is_ok();
    if id && epoch { Ok(()) } else { Err(Fault::argument("open.producer", "no such producer can be")) }
}

/// Writes the answers in order, and between two of them what a client should know of the nodes: once that this one goes
/// away, and whenever homes have moved.
struct Writer {
    queue: mpsc::Receiver<Answer>,
    waiting: Option<Answer>,
    /// Absent once the client was told.
    drain: Option<CancellationToken>,
    homes: Homes,
    _count: Counted,
}

/// Where the partitions of the session's topic are at home, as far as the client was told.
struct Homes {
    services: Services,
    moved: watch::Receiver<u64>,
    /// `None` until the session is open.
    topic: Option<TopicId>,
    told: ToldHomes,
}

impl Homes {
    fn new(services: Services) -> Self {
        let moved = services.routing.watch();
        Self { services, moved, topic: None, told: ToldHomes::default() }
    }

    /// Fills in where the partitions are at home when the session opens.
    fn open(&mut self, topic: TopicId, mut opened: v1::AppendOpened) -> Out {
        self.topic = Some(topic);
        let state = self.services.broker.state();
        opened.homes = self.told.news(&state, topic);
        opened.nodes = nodes(&state);
        Out::Opened(opened)
    }

    /// Waits until homes have moved that the client knows elsewhere. Cancel-safe: what is not told stays news.
    async fn redirect(&mut self) -> Out {
        loop {
            if self.moved.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let Some(topic) = self.topic else { continue };
            let state = self.services.broker.state();
            let homes = self.told.news(&state, topic);
            if !homes.is_empty() {
                return Out::Redirect(v1::Redirect { homes, nodes: nodes(&state) });
            }
        }
    }
}

impl Writer {
    async fn next(&mut self) -> Option<Result<v1::AppendSessionResponse, Status>> {
        let draining = self.drain.clone();
        let drained = async {
            match draining {
                Some(drain) => drain.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let broker = self.homes.services.broker.clone();
        let out = tokio::select! {
            biased;
            () = drained => {
                self.drain = None;
                let nodes = nodes(&broker.state());
                Ok(Out::GoAway(v1::GoAway { reason: "the node is stopping".to_owned(), nodes }))
            }
            redirect = self.homes.redirect() => Ok(redirect),
            answer = answered(&broker, &mut self.queue, &mut self.waiting) => match answer? {
                Told::Opened(topic, opened) => Ok(self.homes.open(topic, opened)),
                Told::Out(out) => out,
            },
        };
        Some(out.map(|out| v1::AppendSessionResponse { message: Some(out) }))
    }
}

/// What the queue of answers gives.
enum Told {
    Opened(TopicId, v1::AppendOpened),
    Out(Result<Out, Status>),
}

/// The next answer in order; `None` when there will be none. Cancel-safe: what is begun stays in `waiting`.
async fn answered(
    broker: &Broker,
    queue: &mut mpsc::Receiver<Answer>,
    waiting: &mut Option<Answer>,
) -> Option<Told> {
    if waiting.is_none() {
        *waiting = Some(queue.recv().await?);
    }
    let out = match waiting.as_mut()? {
        Answer::Waiting { sequence, ack, .. } => {
            let session_sequence = *sequence;
            match ack.await {
                Ok(appended) => Out::Ack(v1::AppendAck {
                    session_sequence,
                    base_offset: appended.base.get(),
                    end_offset: appended.end.get(),
                    append_time: Some(timestamp(appended.append_time)),
                    duplicate: appended.duplicate,
                    read_token: broker.read_token().get(),
                }),
                Err(error) => {
                    let status = Some(nack_status(error.into()));
                    Out::Nack(v1::AppendNack { session_sequence, status })
                }
            }
        }
        Answer::Opened(..) | Answer::Ready(_) | Answer::End(_) => {
            return Some(match waiting.take()? {
                Answer::Opened(topic, opened) => Told::Opened(topic, opened),
                Answer::Ready(out) => Told::Out(Ok(out)),
                Answer::End(status) => Told::Out(Err(status)),
                Answer::Waiting { .. } => return None,
            });
        }
    };
    *waiting = None;
    Some(Told::Out(Ok(out)))
}
