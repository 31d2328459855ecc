//! A reader: one stream from the server after the other, seen as one.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use streamhouse_proto::v1;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionIndex};
use tonic::Streaming;

use super::cursor::Cursor;
use super::records::RecordStream;
use super::{ConsumedBatch, PartitionProgress, ReadEvent};
use crate::error::{CallError, ReadError};
use crate::rejection::Rejection;
use crate::topic::Topic;
use crate::ways::{Tries, Way};
use streamhouse_api::Position;
use streamhouse_api::ReadToken;

/// What the way to a node and back may take, where there is time for it.
const WAYS: Duration = Duration::from_secs(1);

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// The stream from the server.
enum Link {
    /// To be opened, now.
    Down,
    /// To be opened after a pause.
    Waiting(Future<()>),
    Opening(Future<Result<Streaming<v1::ReadResponse>, Rejection>>),
    Up(Box<Streaming<v1::ReadResponse>>),
    /// Records were trimmed under us: asking where the log starts.
    Finding(Future<Result<BTreeMap<PartitionIndex, Offset>, CallError>>, Rejection),
    /// Nothing more will come.
    Ended,
}

/// What a reader asks for every time.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) topic: Topic,
    pub(super) follow: bool,
    pub(super) max_bytes: u32,
    /// Longest time without any answer until the reader gives up.
    pub(super) retry_for: Duration,
}

/// An answer is due and does not come.
struct Due {
    since: Duration,
    /// Ends when the reader gives up.
    over: Future<()>,
}

/// Reads partitions, merged in the order of arrival; each partition in the order of its offsets. A stream of batches.
///
/// Lost connections and nodes that stop are ridden out: the reader goes on at another node where it was, and never sees
/// an older state than before. It ends when every
/// partition has reached its end, and after the first error. Dropping it ends the reading.
pub struct Reader {
    wish: Wish,
    cursor: Cursor,
    link: Link,
    /// The node that it reads from.
    way: Option<Way>,
    /// How new what it has seen was.
    token: ReadToken,
    tries: Tries,
    due: Option<Due>,
    /// The newest failure since anything worked.
    last: Option<Rejection>,
}

impl Reader {
    pub(super) fn new(wish: Wish, cursor: Cursor) -> Self {
        Self {
            wish,
            cursor,
            link: Link::Down,
            way: None,
            token: ReadToken::default(),
            tries: Tries::default(),
            due: None,
            last: None,
        }
    }

    /// The next batch or mark; `None` at the end. Cancel-safe.
    pub async fn next_event(&mut self) -> Option<Result<ReadEvent, ReadError>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next batch; `None` at the end. Cancel-safe.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumedBatch, ReadError>> {
        self.next().await
    }

    /// How far it is, by partition: up to the last batch it gave.
    #[must_use]
    pub fn progress(&self) -> &BTreeMap<PartitionIndex, PartitionProgress> {
        self.cursor.progress()
    }

    /// A read that presents it, on any node, is at least as new as what this reader has got.
    #[must_use]
    pub fn read_token(&self) -> ReadToken {
        self.token
    }

    /// Record by record.
    #[must_use]
    pub fn records(self) -> RecordStream {
        RecordStream::new(self)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ReadEvent, ReadError>>> {
        loop {
            if matches!(self.link, Link::Ended) {
                return Poll::Ready(None);
            }
            match self.cursor.next_event() {
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(None) if self.cursor.is_done() => self.end(),
                Ok(None) => {
                    let step = match self.poll_link(cx) {
                        Poll::Ready(step) => step,
                        Poll::Pending => Err(ready!(self.poll_patience(cx))),
                    };
                    if let Err(error) = step {
                        return Poll::Ready(Some(Err(self.end_with(error))));
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(self.end_with(error)))),
            }
        }
    }

    fn end_with(&mut self, error: ReadError) -> ReadError {
        self.end();
        error
    }

    /// Nothing more comes, and no connection is held for it.
    fn end(&mut self) {
        self.link = Link::Ended;
        self.way = None;
    }

    /// One step of the link; ready when something changed.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        match &mut self.link {
            Link::Down => {
                let way = self.wish.topic.house.next_read_way();
                self.link = Link::Opening(Box::pin(open(self.wish.clone(), self.request(), way.clone())));
                self.way = Some(way);
            }
            Link::Waiting(pause) => {
                ready!(pause.as_mut().poll(cx));
                self.link = Link::Down;
            }
            Link::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                Ok(stream) => self.link = Link::Up(Box::new(stream)),
                Err(rejection) => return Poll::Ready(self.failed(rejection)),
            },
            Link::Up(stream) => match ready!(stream.poll_next_unpin(cx)) {
                Some(Ok(answer)) => return Poll::Ready(self.accept(answer)),
                Some(Err(status)) => return Poll::Ready(self.failed(Rejection::from_status(&status))),
                None => {
                    return Poll::Ready(
                        self.failed(Rejection::connection_lost("the server ended the stream")),
                    );
                }
            },
            Link::Finding(finding, _) => {
                let starts = ready!(finding.as_mut().poll(cx));
                let Link::Finding(_, rejection) = std::mem::replace(&mut self.link, Link::Down) else {
                    unreachable!("it was matched above")
                };
                return Poll::Ready(self.found(starts, rejection));
            }
            Link::Ended => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when an answer has been due for too long. At the end of the log none is.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<ReadError> {
        if matches!(self.link, Link::Up(_)) && self.cursor.is_caught_up() {
            return Poll::Pending;
        }
        let after = self.wish.retry_for;
        ready!(self.due().over.as_mut().poll(cx));
        Poll::Ready(ReadError::TimedOut { after, last: self.last.take() })
    }

    fn due(&mut self) -> &mut Due {
        let clock = &self.wish.topic.house.0.env.clock;
        self.due.get_or_insert_with(|| {
            let since = clock.now();
            let (clock, end) = (clock.clone(), since.saturating_add(self.wish.retry_for));
            Due { since, over: Box::pin(async move { clock.sleep_until(end).await }) }
        })
    }

    fn accept(&mut self, answer: v1::ReadResponse) -> Result<(), ReadError> {
        let house = &self.wish.topic.house;
        if let Some(way) = self.way.as_ref().filter(|_| self.last.is_some()) {
            house.works(way);
        }
        self.tries.reset();
        self.due = None;
        self.last = None;
        self.token = self.token.max(ReadToken::new(answer.read_token));
        house.saw(self.token);
        self.cursor.accept(answer)
    }

    /// How long a node may try to get records from its store: it says why it cannot while somebody still listens.
    fn patience(&mut self) -> Duration {
        let (since, now) = (self.due().since, self.wish.topic.house.0.env.clock.now());
        let left = since.saturating_add(self.wish.retry_for).saturating_sub(now);
        // The rest is for the way there and back.
        left.saturating_sub((left / 8).max((left / 2).min(WAYS)))
    }

    fn request(&mut self) -> v1::ReadRequest {
        use v1::position::At;
        let patience_ms = u64::try_from(self.patience().as_millis()).unwrap_or(u64::MAX).max(1);
        let position = |offset: Offset| v1::Position { at: Some(At::Offset(offset.get())) };
        let partitions = self.cursor.wanted().map(|(partition, from, until)| v1::PartitionRead {
            partition: partition.get(),
            from: Some(position(from)),
            until: until.map(position),
        });
        v1::ReadRequest {
            topic: self.wish.topic.name().to_owned(),
            partitions: partitions.collect(),
            follow: self.wish.follow,
            max_bytes: self.wish.max_bytes,
            read_token: self.token.max(self.wish.topic.floor()).get(),
            patience_ms,
        }
    }

    /// The stream could not be opened, or broke. Goes on later, unless that is hopeless.
    fn failed(&mut self, rejection: Rejection) -> Result<(), ReadError> {
        self.cursor.forget_unread();
        let house = &self.wish.topic.house;
        if let Some(way) = &self.way {
            house.failed(way, &rejection);
        }
        if rejection.code() == Some(ErrorCode::OffsetOutOfRange) {
            self.link =
                Link::Finding(Box::pin(find_starts(self.wish.topic.clone(), self.partitions())), rejection);
            return Ok(());
        }
        if !rejection.is_retryable() {
            return Err(ReadError::Rejected(rejection));
        }
        let env = &house.0.env;
        let now = env.clock.now();
        let wait = house.pause(&mut self.tries, &rejection);
        let clock = env.clock.clone();
        if now.saturating_add(wait) >= self.due().since.saturating_add(self.wish.retry_for) {
            return Err(ReadError::TimedOut { after: self.wish.retry_for, last: Some(rejection) });
        }
        tracing::debug!(topic = self.wish.topic.name(), %rejection, "reading goes on after a pause");
        self.last = Some(rejection);
        self.link = Link::Waiting(Box::pin(async move { clock.sleep(wait).await }));
        Ok(())
    }

    fn partitions(&self) -> Vec<PartitionIndex> {
        self.cursor.wanted().map(|(partition, _, _)| partition).collect()
    }

    /// Skips what was trimmed; an offset that is out of range for another reason is an error.
    fn found(
        &mut self,
        starts: Result<BTreeMap<PartitionIndex, Offset>, CallError>,
        rejection: Rejection,
    ) -> Result<(), ReadError> {
        let starts = starts.map_err(ReadError::from)?;
        let mut trimmed = false;
        for (partition, start) in starts {
            // Who asked for an offset that was gone from the beginning asked for the wrong one.
            let began = self.cursor.progress().get(&partition).is_some_and(|at| at.may_skip_trimmed);
            trimmed |= began && self.cursor.skip_trimmed(partition, start);
        }
        if trimmed { Ok(()) } else { Err(ReadError::Rejected(rejection)) }
    }
}

async fn open(
    wish: Wish,
    request: v1::ReadRequest,
    way: Way,
) -> Result<Streaming<v1::ReadResponse>, Rejection> {
    let house = &wish.topic.house.0;
    let mut client = way.streams();
    tokio::select! {
        answer = client.read(request) => match answer {
            Ok(stream) => Ok(stream.into_inner()),
            Err(status) => Err(Rejection::from_status(&status)),
        },
        () = house.env.clock.sleep(house.request_timeout) => Err(Rejection::connection_lost("no answer to a read")),
    }
}

async fn find_starts(
    topic: Topic,
    partitions: Vec<PartitionIndex>,
) -> Result<BTreeMap<PartitionIndex, Offset>, CallError> {
    let starts: Vec<_> = partitions.into_iter().map(|partition| (partition, Position::Start)).collect();
    let listed = topic.list_offsets(&starts).await?;
    Ok(listed.into_iter().map(|listed| (listed.partition, listed.offset)).collect())
}

impl Stream for Reader {
    type Item = Result<ConsumedBatch, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.poll_event(cx)) {
                Some(Ok(ReadEvent::Batch(batch))) => return Poll::Ready(Some(Ok(batch))),
                Some(Ok(ReadEvent::CaughtUp { .. })) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("topic", &self.wish.topic.name()).finish_non_exhaustive()
    }
}
