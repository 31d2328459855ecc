//! Replication from a leader: what comes in is appended in order, and no more of it is held than a leader sends ahead.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use openraft::Raft;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use streamhouse_proto::internal as pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::{Request, Status, Streaming};

use super::convert;
use super::guard::Entered;
use super::server::{invalid, open, stopped};
use super::stream::{BYTES_MAX, REQUESTS_MAX};
use crate::codec::entry_size;
use crate::machine::Machine;
use crate::types::TypeConfig;

/// What is under way of one stream.
struct Window {
    room: Arc<Semaphore>,
    /// The room of each request that has no answer yet, in order.
    held: Mutex<VecDeque<OwnedSemaphorePermit>>,
    /// Why the stream ends, when a request was none.
    fault: Mutex<Option<Status>>,
}

impl Window {
    /// Takes room for a request; waits until there is enough.
    async fn enter(&self, request: &AppendEntriesRequest<TypeConfig>) {
        let bytes: usize = request.entries.iter().map(entry_size).sum();
        // The number is bounded by the least that each takes.
        let bytes = u32::try_from(bytes.clamp(BYTES_MAX / REQUESTS_MAX, BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = self.room.clone().acquire_many_owned(bytes).await;
        self.held.lock().push_back(permit.expect("it is never closed"));
    }

    /// The oldest request was answered.
    fn leave(&self) {
        self.held.lock().pop_front();
    }
}

/// The requests of one stream.
struct Incoming<C> {
    messages: Streaming<pb::AppendEntriesRequest>,
    check: C,
    window: Arc<Window>,
    /// Ends when nobody waits for answers any more.
    answering: oneshot::Receiver<Infallible>,
    _entered: Option<Entered>,
}

impl<C: Fn(&pb::AppendEntriesRequest) -> Result<(), Status>> Incoming<C> {
    /// The next request; `None` at the end, at the first that is none, and when nobody waits for answers.
    async fn next(&mut self) -> Option<AppendEntriesRequest<TypeConfig>> {
        tokio::select! {
            biased;
            _ = &mut self.answering => None,
            next = next_of(&mut self.messages, &self.check, &self.window) => {
                next.unwrap_or_else(|status| {
                    *self.window.fault.lock() = Some(status);
                    None
                })
            }
        }
    }
}

async fn next_of(
    messages: &mut Streaming<pb::AppendEntriesRequest>,
    check: &impl Fn(&pb::AppendEntriesRequest) -> Result<(), Status>,
    window: &Window,
) -> Result<Option<AppendEntriesRequest<TypeConfig>>, Status> {
    let Some(message) = messages.message().await? else { return Ok(None) };
    check(&message)?;
    let request = convert::append_from(message).map_err(invalid)?;
    window.enter(&request).await;
    Ok(Some(request))
}

/// Appends what comes in, and answers each request once it is durable. A request that is none ends the stream, after the
/// answers to those before it, as does one that `check` refuses.
pub(super) fn append_all<C>(
    raft: &Raft<TypeConfig, Machine>,
    request: Request<Streaming<pb::AppendEntriesRequest>>,
    check: C,
) -> BoxStream<'static, Result<pb::AppendEntriesResponse, Status>>
where
    C: Fn(&pb::AppendEntriesRequest) -> Result<(), Status> + Send + Sync + 'static,
{
    let (messages, entered) = open(request);
    let room = Arc::new(Semaphore::new(BYTES_MAX));
    let window = Arc::new(Window { room, held: Mutex::default(), fault: Mutex::default() });
    let (waiting, answering) = oneshot::channel();
    let incoming = Incoming { messages, check, window: window.clone(), answering, _entered: entered };
    let requests = futures::stream::unfold(incoming, |mut incoming| async move {
        incoming.next().await.map(|request| (request, incoming))
    });
    let answered = window.clone();
    let answers = raft.stream_append(requests).map(move |answer| {
        // Held until the last answer.
        let _waiting = &waiting;
        answered.leave();
        answer.map(|answer| convert::appended_to(answer.into())).map_err(stopped)
    });
    let fault = futures::stream::once(async move { window.fault.lock().take() });
    answers.chain(fault.filter_map(|fault| std::future::ready(fault.map(Err)))).boxed()
}
