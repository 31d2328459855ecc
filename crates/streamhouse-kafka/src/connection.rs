//! One connection: requests are read one after the other, worked on side by side, and answered in their order.
//!
//! What a client may have unanswered is bounded: when the queue is full, nothing is read until something was answered.
//! A client that sends a frame drop by drop, or does not take its answers, is given up.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use streamhouse_advice::{Next, Watch};
use streamhouse_broker::{ByteBudget, BytePermit, Session};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::codec::{Body, DecodeError, Request, RequestHeader, answer_head, decode};
use crate::frame::{self, Announced, FrameError};
use crate::handle::{Caller, FETCH_BYTES_MAX};
use crate::metrics::Meters;
use crate::order::Order;
use crate::{Api, Code, Kafka, metrics};

/// Most requests of a connection that are not answered yet.
const UNANSWERED_MAX: usize = 32;
/// Most bytes of a connection's unanswered requests, and of answers that may come of them.
const UNANSWERED_BYTES: u64 = 64 << 20;
/// What a client is taken to have unanswered at most: with more, its buffer is flushed without waiting for others.
const WINDOW: u64 = 1 << 20;
/// A request other than Produce and Fetch that is longer than this is a long list.
const LARGE_REQUEST: usize = 64 << 10;
/// How long a client may take for an answer that is not large, and how much of a large one it must take each second.
const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;
/// Small reads are gathered; bodies pass by.
const READ_BUFFER: usize = 1 << 10;
/// Most pieces in one write.
const SLICES: usize = 64;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// The first error in it, for the metrics.
    pub(crate) code: Code,
    /// Held until it is sent.
    pub(crate) permit: Option<BytePermit>,
}

/// What a client is sent.
#[derive(Debug)]
pub(crate) enum Reply {
    /// This.
    Body(Body),
    /// Nothing, as it wanted.
    Silence,
    /// Nothing, and the connection ends: the only way to tell who wants no answer that something went wrong.
    End,
}

impl Answer {
    pub(crate) fn of(body: Body, code: Code) -> Self {
        Self { reply: Reply::Body(body), code, permit: None }
    }
}

/// A request whose answer is due when all before it were sent.
struct Turn {
    api: Api,
    header: RequestHeader,
    begun: Duration,
    answer: Pending,
    /// Is told when all answers before this one were sent.
    head: Option<oneshot::Sender<()>>,
    /// Whether it takes a place in the client's window.
    counts: bool,
    _place: OwnedSemaphorePermit,
    _bytes: BytePermit,
}

/// An answer to come.
pub(crate) enum Pending {
    /// It is at work by itself.
    Task(AbortOnDropHandle<Answer>),
    /// What it waits for is at work; it is only put together when its turn comes.
    Lazy(BoxFuture<'static, Answer>),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Request(#[from] DecodeError),
    #[error("an answer could not be sent: {0}")]
    Write(#[from] io::Error),
    #[error("the client did not take an answer in time")]
    Slow,
    #[error("a batch that wants no answer was refused")]
    Refused,
    #[error("a request has failed")]
    Failed,
}

impl End {
    /// The label of the metric; `None` where it was the client that ended it.
    fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Frame(FrameError::Io(_)) | Self::Write(_) => return None,
            Self::Frame(FrameError::Length { .. }) => "frame_length",
            Self::Frame(FrameError::Unsupported { .. }) => "unsupported",
            Self::Frame(FrameError::Slow) => "slow_request",
            Self::Request(_) => "malformed",
            Self::Slow => "slow_client",
            Self::Refused => "unanswered_error",
            Self::Failed => "failed",
        })
    }
}

/// See [`Kafka::serve`].
pub(crate) async fn serve(
    kafka: &Kafka,
    io: impl AsyncRead + AsyncWrite + Send + Unpin,
    peer: IpAddr,
    closing: CancellationToken,
) {
    let (read, write) = tokio::io::split(io);
    let (turns, queue) = mpsc::channel(UNANSWERED_MAX);
    let meters = Meters::new();
    let watch = Watch::new(&kafka.0.options.clients);
    let session = kafka.broker().session(WINDOW);
    let reader = Reader {
        kafka,
        io: BufReader::with_capacity(READ_BUFFER, read),
        session: session.clone(),
        places: Arc::new(Semaphore::new(UNANSWERED_MAX)),
        bytes: ByteBudget::new(UNANSWERED_BYTES),
        meters: &meters,
        watch: &watch,
        host: format!("/{peer}").into(),
        order: Order::default(),
    };
    let writer = Writer { kafka, io: write, queue, meters: &meters, watch: &watch, session };
    let mut writing = std::pin::pin!(writer.run());
    let ended = tokio::select! {
        read = reader.run(turns, closing) => match read {
            // What was asked before the node stops is answered.
            Ok(Last::Answer) => writing.await,
            Ok(Last::Drop) => Ok(()),
            Err(end) => Err(end),
        },
        written = &mut writing => written,
    };
    if let Err(end) = ended {
        match end.reason() {
            Some(reason) => {
                metrics::ended(reason);
                tracing::debug!(reason, %end, "connection was ended");
            }
            None => tracing::debug!(%end, "connection is gone"),
        }
    }
}

/// What becomes of unanswered requests when no more are read.
enum Last {
    /// They are answered.
    Answer,
    /// The client is gone.
    Drop,
}

struct Reader<'a, R> {
    kafka: &'a Kafka,
    io: BufReader<R>,
    session: Session,
    places: Arc<Semaphore>,
    bytes: ByteBudget,
    meters: &'a Meters,
    watch: &'a Watch<'a>,
    /// Where the client is, as Kafka's tools show it.
    host: Arc<str>,
    order: Order,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    async fn run(mut self, turns: mpsc::Sender<Box<Turn>>, closing: CancellationToken) -> Result<Last, End> {
        loop {
            let place =
                Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
            let clock = Arc::clone(self.kafka.clock());
            let announced = tokio::select! {
                announced = frame::announced(&mut self.io, &*clock) => announced?,
                () = closing.cancelled() => return Ok(Last::Answer),
            };
            let Some(announced) = announced else { return Ok(Last::Drop) };
            // Most connections are idle most of the time, and hold no room for a request then.
            let (turn, bytes) = Box::pin(self.take(announced, place)).await?;
            self.meters.bytes_in.increment(bytes as u64 + 8);
            // As many fit into the queue as there are places.
            if turns.send(Box::new(turn)).await.is_err() {
                return Ok(Last::Drop);
            }
        }
    }

    /// Reads a request and sets its work going. Batches are handed over before it returns, so that those of the next
    /// request come after them.
    async fn take(
        &mut self,
        announced: Announced,
        place: OwnedSemaphorePermit,
    ) -> Result<(Turn, usize), End> {
        let Announced { api, version, bytes } = announced;
        let clock = Arc::clone(self.kafka.clock());
        let mut held = self.bytes.acquire(bytes as u64).await;
        let is_list = !matches!(api, Api::Produce | Api::Fetch);
        let is_large = is_list && bytes > LARGE_REQUEST;
        let mut turn = self.order.next(api);
        // What all connections share is taken by nobody who still waits for others.
        if api == Api::Produce || is_large {
            turn.comes().await;
        }
        // The batches' share of what the node may hold is taken before they are: this is the back-pressure.
        let budget = match api {
            Api::Produce => Some(self.kafka.broker().budget().acquire(bytes as u64).await),
            _ => None,
        };
        let frame = frame::body(&mut self.io, announced, &*clock).await?;
        let begun = clock.now();
        let (header, body) = RequestHeader::decode(api, version, frame)?;
        if !api.serves(version) {
            turn.comes().await;
            turn.done();
            let answer = self.kafka.clone().api_versions(version);
            let answer = Pending::Lazy(std::future::ready(answer).boxed());
            let turn =
                Turn { api, header, begun, answer, head: None, counts: false, _place: place, _bytes: held };
            return Ok((turn, bytes));
        }
        let large = if is_large { Some(self.kafka.large_place().await) } else { None };
        // Kept only where it may be passed on.
        let passes_on = self.kafka.is_single_endpoint() || !self.kafka.broker().takes_writes();
        let whole = if is_list && passes_on { body.clone() } else { Bytes::new() };
        let request = decode(api, version, body)?;
        // Who joins a group may wait for minutes, and holds up no other long list meanwhile.
        let large = large.filter(|_| !matches!(api, Api::JoinGroup | Api::SyncGroup));
        if let Request::Fetch(query) = &request {
            drop(held);
            held = self.bytes.acquire(query.answer_bytes_max().min(FETCH_BYTES_MAX) + bytes as u64).await;
        }
        tracing::trace!(api = api.name(), version, client = header.client.as_deref(), "request");
        let mut counts = false;
        let (head, is_head) = oneshot::channel();
        let answer = match request {
            Request::Produce(query) => {
                counts = query.wants_answer();
                let client = header.client.as_deref().unwrap_or_default();
                let next = match query.wants_answer() {
                    true => self.watch.arrived(client, begun, bytes, query.batches()),
                    false => Next::AnyTime,
                };
                let answer = self.kafka.produce(version, query, &self.session, next, budget).await;
                // Answers are taken in their order: when this one is there, so were those of the writes before.
                Pending::Lazy(answer.inspect(|answer| turn.answered(answer)).boxed())
            }
            request => {
                let caller = Caller::new(header.client.as_deref(), &self.host);
                let kafka = self.kafka.clone();
                Pending::Task(AbortOnDropHandle::new(tokio::spawn(async move {
                    let _large = large;
                    turn.comes().await;
                    let answer = match request {
                        Request::Fetch(query) => kafka.fetch(version, query, (&mut turn, is_head)).await,
                        request => kafka.answer(version, (request, whole), caller).await,
                    };
                    turn.answered(&answer);
                    answer
                })))
            }
        };
        let turn = Turn { api, header, begun, answer, head: Some(head), counts, _place: place, _bytes: held };
        Ok((turn, bytes))
    }
}

struct Writer<'a, W> {
    kafka: &'a Kafka,
    io: W,
    queue: mpsc::Receiver<Box<Turn>>,
    meters: &'a Meters,
    watch: &'a Watch<'a>,
    session: Session,
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    async fn run(mut self) -> Result<(), End> {
        while let Some(turn) = self.queue.recv().await {
            let Turn { api, header, begun, answer, head, counts, _place, _bytes } = *turn;
            if let Some(head) = head {
                // Few want to know.
                let _unheard = head.send(());
            }
            let Answer { reply, code, permit } = match answer {
                Pending::Lazy(answer) => answer.await,
                // It panicked: what it did is not known, and neither is what to answer.
                Pending::Task(task) => task.await.map_err(|_| End::Failed)?,
            };
            let took = self.kafka.clock().now().saturating_sub(begun);
            metrics::answered(api, code, took);
            match reply {
                Reply::Body(body) => self.send(api, &header, body).await?,
                Reply::Silence => {}
                Reply::End => return Err(End::Refused),
            }
            drop(permit);
            if counts {
                self.session.go_on();
                self.watch.answered(self.kafka.clock().now(), took);
            }
        }
        Ok(())
    }

    async fn send(&mut self, api: Api, header: &RequestHeader, body: Body) -> Result<(), End> {
        let length = body.len() as u64;
        let mut pieces = vec![answer_head(api, header, body.len())];
        pieces.extend(body.0);
        let patience = PATIENCE + Duration::from_secs(length / BYTES_PER_SECOND_MIN);
        let clock = Arc::clone(self.kafka.clock());
        tokio::select! {
            written = write_all(&mut self.io, pieces) => written?,
            () = clock.sleep(patience) => return Err(End::Slow),
        }
        self.meters.bytes_out.increment(length);
        Ok(())
    }
}

/// Writes pieces one after the other, several at a time, without joining them.
async fn write_all(io: &mut (impl AsyncWrite + Unpin), mut pieces: Vec<Bytes>) -> io::Result<()> {
    let mut first = 0;
    while first < pieces.len() {
        let slices: Vec<IoSlice<'_>> =
            pieces[first..].iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let mut written = io.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while written > 0 {
            let step = written.min(pieces[first].len());
            pieces[first].advance(step);
            written -= step;
            if pieces[first].is_empty() {
                first += 1;
            }
        }
    }
    io.flush().await
}
