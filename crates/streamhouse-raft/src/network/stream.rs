//! Replication to one follower: requests go ahead of their answers, within a window.

use std::collections::VecDeque;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _};
use openraft::RPCTypes;
use openraft::errors::{RPCError, Timeout};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use streamhouse_proto::internal as pb;
use tokio::sync::mpsc;
use tonic::Status;

use super::client::{Peer, unreachable};
use super::connector::Client;
use super::convert;
use crate::codec::entry_size;
use crate::types::{LogId, TypeConfig, Vote};

/// Requests under way to one follower. More would wait there anyway: it syncs them in groups.
pub(super) const REQUESTS_MAX: usize = 16;
/// Bytes under way to one follower; one more request goes when there are fewer.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// A follower answers after a sync of its disk, which may take longer than the library grants a heartbeat.
const STALL_FACTOR: u32 = 4;
/// What even a slow line carries in a second, so that a large entry is not given up halfway for ever.
const SLOW_LINE_BYTES: u64 = 4 << 20;

pub(super) type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// A request that has no answer yet.
struct Sent {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
}

/// What is under way, in order.
#[derive(Default)]
struct Window {
    sent: VecDeque<Sent>,
    bytes: usize,
}

impl Window {
    fn has_room(&self) -> bool {
        self.sent.len() < REQUESTS_MAX && self.bytes < BYTES_MAX
    }

    fn push(&mut self, request: &AppendEntriesRequest<TypeConfig>) {
        let prev = request.prev_log_id;
        let last = request.entries.last().map_or(prev, |entry| Some(entry.log_id));
        let bytes = request.entries.iter().map(entry_size).sum();
        self.bytes += bytes;
        self.sent.push_back(Sent { vote: request.vote, prev, last, bytes });
    }

    fn pop(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.bytes -= sent.bytes;
        Some(sent)
    }
}

/// One stream to a follower, as long as it works.
struct Session<'s, S> {
    peer: &'s mut Peer,
    /// Goes back to the peer when the stream has ended well; else the connection is made anew.
    client: Client,
    /// What is left to send. Held here and not by the connection, so that it ends with the session: the library reuses
    /// what is behind it.
    requests: Option<S>,
    to_connection: Option<mpsc::Sender<pb::AppendEntriesRequest>>,
    answers: BoxStream<'static, Result<pb::AppendEntriesResponse, Status>>,
    window: Window,
    /// Whether there was a request, or the end of them. The library pauses after an error by holding back the next one, so
    /// nothing is connected before: a follower that refuses connections would be called again and again at once.
    begun: bool,
    stall: Duration,
    /// When an answer is overdue.
    due: Duration,
}

/// Opens a stream over `client` and sends `requests`; gives their answers in order. Ends with the requests, at the first
/// answer that is no success, or with an error when the follower stalls or the connection breaks.
pub(super) fn open<'s, S>(
    peer: &'s mut Peer,
    client: Client,
    requests: S,
    option: &RPCOption,
) -> BoxStream<'s, Answer>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    // Never full: what waits in it is also in the window.
    let (to_connection, from_session) = mpsc::channel(REQUESTS_MAX);
    let stall = option.soft_ttl() * STALL_FACTOR;
    let due = peer.connector.clock.now() + stall;
    let session = Session {
        answers: answers_of(client.clone(), from_session),
        peer,
        client,
        requests: Some(requests),
        to_connection: Some(to_connection),
        window: Window::default(),
        begun: false,
        stall,
        due,
    };
    futures::stream::unfold(Some(session), |session| async move { session?.next().await }).boxed()
}

/// The answers to what `requests` gets. They connect when they are asked for first, and requests need not wait for it.
fn answers_of(
    mut client: Client,
    requests: mpsc::Receiver<pb::AppendEntriesRequest>,
) -> BoxStream<'static, Result<pb::AppendEntriesResponse, Status>> {
    let requests = futures::stream::unfold(requests, |mut requests| async move {
        requests.recv().await.map(|request| (request, requests))
    });
    let opened = async move { client.append_stream(requests).await.map(tonic::Response::into_inner) };
    opened.boxed().try_flatten_stream().boxed()
}

impl<S> Session<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    /// Works until there is an answer; gives itself back unless the stream has ended.
    async fn next(mut self) -> Option<(Answer, Option<Self>)> {
        loop {
            let clock = self.peer.connector.clock.clone();
            // Nothing is awaited while there is nothing to be answered: a quiet log is no stall.
            let waits = !self.window.sent.is_empty() || self.requests.is_none();
            let reads = self.window.has_room() && self.requests.is_some();
            tokio::select! {
                biased;
                answer = self.answers.next(), if self.begun => match answer {
                    Some(Ok(answer)) => return Some(self.answered(answer)),
                    Some(Err(status)) => return Some((Err(unreachable(status)), None)),
                    None if self.requests.is_none() && self.window.sent.is_empty() => {
                        self.peer.keep(self.client);
                        return None;
                    }
                    None => return Some((Err(unreachable("the follower ended the stream")), None)),
                },
                request = next_of(&mut self.requests), if reads => self.send(request),
                () = clock.sleep_until(self.due), if waits => {
                    // All is answered, only the end of the stream does not come.
                    if self.window.sent.is_empty() {
                        return None;
                    }
                    return Some((Err(self.stalled()), None));
                }
            }
        }
    }

    /// Sends a request, or closes the sending side after the last one.
    fn send(&mut self, request: Option<AppendEntriesRequest<TypeConfig>>) {
        let was_idle = self.window.sent.is_empty();
        self.begun = true;
        match request {
            Some(request) => {
                self.window.push(&request);
                if let Some(connection) = &self.to_connection {
                    // It fails when the connection is gone, which the answers tell.
                    let target = self.peer.target;
                    let acknowledged = self.peer.acknowledged.of(request.vote, target);
                    let _ = connection.try_send(convert::append_to(request, target, acknowledged));
                }
            }
            None => {
                self.requests = None;
                self.to_connection = None;
            }
        }
        if was_idle {
            self.wait_anew();
        }
    }

    fn answered(mut self, answer: pb::AppendEntriesResponse) -> (Answer, Option<Self>) {
        let Some(sent) = self.window.pop() else {
            return (Err(unreachable("the follower answered what it was not asked")), None);
        };
        let answer = match convert::appended_from(answer) {
            Ok(answer) => answer,
            Err(missing) => return (Err(unreachable(missing)), None),
        };
        let (result, goes_on) = match (answer, sent.prev) {
            (AppendEntriesResponse::Success, _) => (Ok(sent.last), true),
            (AppendEntriesResponse::PartialSuccess(matching), prev) if matching >= prev => {
                (Ok(matching.min(sent.last)), matching >= sent.last)
            }
            (AppendEntriesResponse::HigherVote(vote), _) => (Err(StreamAppendError::HigherVote(vote)), false),
            // One that has acknowledged it stops by itself; until then it is as good as away.
            (AppendEntriesResponse::Conflict, Some(prev))
                if self.peer.acknowledged.of(sent.vote, self.peer.target) >= Some(prev.index()) =>
            {
                return (Err(unreachable("the follower has lost what it acknowledged")), None);
            }
            (AppendEntriesResponse::Conflict, Some(prev)) => (Err(StreamAppendError::Conflict(prev)), false),
            // The library takes neither for possible.
            (AppendEntriesResponse::PartialSuccess(_) | AppendEntriesResponse::Conflict, _) => {
                return (Err(unreachable("the follower denied what it must have")), None);
            }
        };
        if let Ok(Some(matching)) = &result {
            self.peer.acknowledged.note(sent.vote, self.peer.target, matching.index());
        }
        if !goes_on {
            self.peer.keep(self.client);
            return (Ok(result), None);
        }
        self.wait_anew();
        (Ok(result), Some(self))
    }

    /// The next answer may take as long as for the bytes that are under way.
    fn wait_anew(&mut self) {
        let slow_line = Duration::from_millis(self.window.bytes as u64 * 1_000 / SLOW_LINE_BYTES);
        self.due = self.peer.connector.clock.now() + self.stall + slow_line;
    }

    fn stalled(&self) -> RPCError<TypeConfig> {
        let (id, target) = (self.peer.node, self.peer.target);
        Timeout { action: RPCTypes::AppendEntries, id, target, timeout: self.stall }.into()
    }
}

async fn next_of<S: Stream + Unpin>(requests: &mut Option<S>) -> Option<S::Item> {
    match requests {
        Some(requests) => requests.next().await,
        None => None,
    }
}

#[cfg(test)]
mod tests;
