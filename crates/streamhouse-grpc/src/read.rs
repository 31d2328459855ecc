//! Reading as a stream: several partitions in turn, one chunk at a time, on to the end or for ever.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body::Frame;
use streamhouse_broker::{FetchError, FetchRequest, Fetched, Position, TopicInfo};
use streamhouse_proto::v1;
use streamhouse_proto::v1::stream_service_server::StreamServiceServer;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionId};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::Services;
use crate::authorize::{Caller, Resource};
use crate::chunk::Chunk;
use crate::convert::position;
use crate::metrics::{Counted, READS};
use crate::status::Fault;

/// Bytes of a chunk when the caller does not say.
pub(crate) const CHUNK_DEFAULT: u32 = 1 << 20;
/// Most bytes of a chunk.
pub(crate) const CHUNK_MAX: u32 = 8 << 20;
/// Most partitions of one read.
pub(crate) const PARTITIONS_MAX: usize = 10_000;
/// Bytes that a waiting partition returns when it wakes: a thousand that wake together hold little.
const WAKE_BYTES: u32 = 128 << 10;
/// How long one wait for new records lasts.
const WAIT: Duration = Duration::from_secs(30);
/// Chunks that are ready before the client takes them: one is sent while the next is fetched.
const CHUNKS_AHEAD: usize = 1;
/// Positions that are looked up at a time.
const LOOKUPS: usize = 16;
/// Largest request: every partition of the largest topic with two positions.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The stream of a read.
pub(crate) type Chunks = BoxStream<'static, Result<Chunk, Status>>;

/// What a read does at the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// It ends where the log ended when it began.
    Stop,
    /// It waits for more.
    Follow,
}

/// Where one partition of a read stands.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    partition: PartitionId,
    next: Offset,
    /// Exclusive; `None` goes on for ever.
    until: Option<Offset>,
}

impl Services {
    /// Starts a read.
    pub(crate) async fn start_read(
        &self,
        caller: &Caller,
        request: v1::ReadRequest,
    ) -> Result<Chunks, Status> {
        caller.may(Resource::Topic(&request.topic))?;
        self.admit()?;
        self.reach(request.read_token).await?;
        let topic = self.topic("topic", &request.topic).await?;
        let max_bytes = chunk_bytes(request.max_bytes);
        let at_end = if request.follow { AtEnd::Follow } else { AtEnd::Stop };
        let cursors = self.cursors(&topic, request.partitions, at_end).await?;
        let (chunks, queue) = mpsc::channel(CHUNKS_AHEAD);
        let patience = (request.patience_ms > 0).then(|| Duration::from_millis(request.patience_ms));
        let reader = Reader { services: self.clone(), cursors, max_bytes, patience, chunks };
        let end = match at_end {
            AtEnd::Follow => self.drain.clone(),
            AtEnd::Stop => self.stop.clone(),
        };
        tokio::spawn(async move {
            let _count = Counted::new(READS);
            let chunks = reader.chunks.clone();
            let ended = tokio::select! {
                () = chunks.closed() => return,
                () = end.cancelled() => Err(Fault::new(ErrorCode::ShuttingDown, "the node is stopping").into()),
                ended = reader.run() => ended,
            };
            if let Err(status) = ended {
                drop(chunks.send(Err(status)).await);
            }
        });
        Ok(ReceiverStream::new(queue).boxed())
    }

    /// Where each partition begins and ends.
    async fn cursors(
        &self,
        topic: &TopicInfo,
        wanted: Vec<v1::PartitionRead>,
        at_end: AtEnd,
    ) -> Result<Vec<Cursor>, Status> {
        if wanted.is_empty() || wanted.len() > PARTITIONS_MAX {
            let text = format!("one to {PARTITIONS_MAX} partitions, not {}", wanted.len());
            return Err(Fault::argument("partitions", text).into());
        }
        let distinct: BTreeSet<u32> = wanted.iter().map(|read| read.partition).collect();
        if distinct.len() != wanted.len() {
            return Err(Fault::argument("partitions", "a partition is named twice").into());
        }
        let cursor = |read: v1::PartitionRead| async move {
            let partition = self.partition_of(topic, read.partition).await?;
            let from = position("partitions.from", read.from)?.unwrap_or(Position::Start);
            let next = match from {
                Position::Offset(offset) => offset,
                position => self.broker.list_offset(partition, position).await.map_err(Fault::from)?.offset,
            };
            let wanted_end = match position("partitions.until", read.until)? {
                None => None,
                Some(Position::Offset(offset)) => Some(offset),
                Some(position) => {
                    Some(self.broker.list_offset(partition, position).await.map_err(Fault::from)?.offset)
                }
            };
            let until = match (wanted_end, at_end) {
                (until, AtEnd::Follow) => until,
                (until, AtEnd::Stop) => {
                    let end =
                        self.broker.list_offset(partition, Position::End).await.map_err(Fault::from)?.offset;
                    Some(until.map_or(end, |until| until.min(end)))
                }
            };
            Ok::<_, Fault>(Cursor { partition, next, until })
        };
        let cursors = futures::stream::iter(wanted.into_iter().map(cursor)).buffered(LOOKUPS);
        cursors.try_collect().await.map_err(Status::from)
    }
}

/// The size of a chunk that was asked for, within limits.
pub(crate) fn chunk_bytes(wanted: u32) -> u32 {
    match wanted {
        0 => CHUNK_DEFAULT,
        wanted => wanted.min(CHUNK_MAX),
    }
}

/// The task of one read. It holds at most one chunk that the client has not room for.
struct Reader {
    services: Services,
    cursors: Vec<Cursor>,
    max_bytes: u32,
    /// Longest wait for records that are there.
    patience: Option<Duration>,
    chunks: mpsc::Sender<Result<Chunk, Status>>,
}

impl Reader {
    async fn run(self) -> Result<(), Status> {
        // Partitions with something to read, in turn; the others wait until they grow.
        let mut ready: VecDeque<Cursor> = self.cursors.iter().copied().collect();
        // Tasks of their own: what they hold while they read from the store, others may be waiting for, so they must go on
        // while this one waits for its client.
        let mut waiting = JoinSet::new();
        loop {
            let (cursor, fetched) = match ready.pop_front() {
                Some(cursor) => self.fetch_in_time(cursor).await?,
                None => match waiting.join_next().await {
                    Some(woken) => woken.map_err(lost)?,
                    None => return Ok(()),
                },
            };
            self.hand_on(cursor, fetched, &mut ready, &mut waiting).await?;
            // Partitions that have grown meanwhile take their turn between those that catch up.
            while let Some(woken) = waiting.try_join_next() {
                let (cursor, fetched) = woken.map_err(lost)?;
                self.hand_on(cursor, fetched, &mut ready, &mut waiting).await?;
            }
        }
    }

    /// Reads on at a cursor for as long as the client has patience.
    async fn fetch_in_time(&self, cursor: Cursor) -> Result<(Cursor, Result<Fetched, FetchError>), Fault> {
        let fetching = fetch(self.services.clone(), cursor, self.max_bytes, Duration::ZERO);
        let Some(patience) = self.patience else { return Ok(fetching.await) };
        tokio::select! {
            fetched = fetching => Ok(fetched),
            () = self.services.clock.sleep(patience) => {
                let (partition, next) = (cursor.partition.index, cursor.next);
                let what = format!("partition {partition} from offset {next} on");
                let text = format!("the object store does not give the records of {what}");
                Err(Fault::new(ErrorCode::StoreUnavailable, text))
            }
        }
    }

    /// Sends what was fetched and puts the partition where it belongs.
    async fn hand_on(
        &self,
        cursor: Cursor,
        fetched: Result<Fetched, FetchError>,
        ready: &mut VecDeque<Cursor>,
        waiting: &mut JoinSet<(Cursor, Result<Fetched, FetchError>)>,
    ) -> Result<(), Status> {
        match self.deliver(cursor, fetched.map_err(Fault::from)?).await? {
            After::More(cursor) => ready.push_back(cursor),
            After::CaughtUp(cursor) => {
                let bytes = self.max_bytes.min(WAKE_BYTES);
                waiting.spawn(fetch(self.services.clone(), cursor, bytes, WAIT));
            }
            After::Done => {}
        }
        Ok(())
    }

    /// Sends what was fetched and says how the partition goes on.
    async fn deliver(&self, mut cursor: Cursor, fetched: Fetched) -> Result<After, Status> {
        let read_token = self.services.broker.read_token();
        let mut chunk = Chunk { partition: cursor.partition.index, fetched, caught_up: false, read_token };
        if let Some(until) = cursor.until {
            chunk.cut(until);
        }
        cursor.next = chunk.fetched.next_offset;
        let done = cursor.until.is_some_and(|until| cursor.next >= until);
        let caught_up = done || cursor.next >= chunk.fetched.high_watermark;
        chunk.caught_up = caught_up;
        if self.chunks.send(Ok(chunk)).await.is_err() {
            return Ok(After::Done);
        }
        Ok(match (done, caught_up) {
            (true, _) => After::Done,
            (false, true) => After::CaughtUp(cursor),
            (false, false) => After::More(cursor),
        })
    }
}

/// Reads on at a cursor; with a time to wait, when there is something to read.
async fn fetch(
    services: Services,
    cursor: Cursor,
    max_bytes: u32,
    max_wait: Duration,
) -> (Cursor, Result<Fetched, FetchError>) {
    let request = FetchRequest {
        partition: cursor.partition,
        offset: cursor.next,
        max_bytes,
        min_bytes: u32::from(!max_wait.is_zero()),
        max_wait,
    };
    (cursor, services.broker.fetch(request).await)
}

/// A task that waited for a partition to grow is gone. Nobody takes one back while the read lasts, so one that was
/// cancelled tells of the end of the whole process.
fn lost(error: JoinError) -> Fault {
    let code = if error.is_cancelled() { ErrorCode::ShuttingDown } else { ErrorCode::Internal };
    Fault::new(code, format!("a wait for new records was lost: {error}"))
}

/// How a partition goes on.
enum After {
    More(Cursor),
    CaughtUp(Cursor),
    Done,
}

/// The stream service, with reads sent chunk by chunk from where the bytes lie, instead of through messages.
#[derive(Clone)]
pub struct StreamRoutes {
    services: Services,
    rest: StreamServiceServer<Services>,
}

impl StreamRoutes {
    /// Takes messages of up to `max_message_bytes`.
    #[must_use]
    pub fn new(services: Services, max_message_bytes: usize) -> Self {
        let rest = StreamServiceServer::new(services.clone()).max_decoding_message_size(max_message_bytes);
        Self { services, rest }
    }
}

impl NamedService for StreamRoutes {
    const NAME: &'static str = <StreamServiceServer<Services> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for StreamRoutes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/streamhouse.v1.StreamService/Read" {
            return self.rest.call(request);
        }
        let services = self.services.clone();
        Box::pin(async move {
            Ok(match services.read_call(request).await {
                Ok(chunks) => answer(chunks),
                Err(status) => status.into_http(),
            })
        })
    }
}

impl Services {
    async fn read_call(&self, request: http::Request<Body>) -> Result<Chunks, Status> {
        let (parts, body) = request.into_parts();
        let decoder = ProstCodec::<v1::ReadResponse, v1::ReadRequest>::default().decoder();
        let mut messages = Streaming::new_request(decoder, body, None, Some(REQUEST_BYTES_MAX));
        let message = messages.message().await?;
        let message = message.ok_or_else(|| Fault::argument("request", "the request is missing"))?;
        let mut request = Request::new(message);
        *request.extensions_mut() = parts.extensions;
        let caller = Caller::of(&request)?;
        self.start_read(&caller, request.into_inner()).await
    }
}

fn answer(chunks: Chunks) -> http::Response<Body> {
    let mut response =
        http::Response::new(Body::new(ReadBody { chunks, frames: VecDeque::new(), ended: false }));
    let grpc = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}

/// The frames of a read, then its status.
struct ReadBody {
    chunks: Chunks,
    frames: VecDeque<Bytes>,
    ended: bool,
}

impl http_body::Body for ReadBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let status = match ready!(self.chunks.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => {
                    chunk.frames(&mut self.frames);
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::new(Code::Ok, ""),
            };
            self.ended = true;
            let mut trailers = http::HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_is_told_that_the_node_ends_when_its_waits_do() {
        let waits = tokio::spawn(std::future::pending::<()>());
        waits.abort();
        let ended = lost(waits.await.expect_err("cancelled"));
        assert_eq!(ended.code(), ErrorCode::ShuttingDown);
        let broken = tokio::spawn(async { panic!("on purpose") });
        let ended = lost(broken.await.expect_err("panicked"));
        assert_eq!(ended.code(), ErrorCode::Internal);
    }
}
