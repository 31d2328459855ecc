//! The attempts at one request: how long each may take, what it counts as, and when there is another.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use metrics::{counter, histogram};
use parking_lot::Mutex;
use streamhouse_env::{Clock, Env};

use super::{Purpose, Store};
use crate::blob::BlobError;
use crate::hedge::Hedge;
use crate::metrics as names;
use crate::retry::{Backoff, attempt_time};
use crate::writes::Writes;

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Put,
    Get,
    Head,
    Delete,
    List,
}

impl Op {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// What a request is, as far as attempts, deadlines and metrics go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) op: Op,
    pub(super) purpose: Purpose,
    pub(super) bytes: u64,
    pub(super) deadline: Duration,
}

/// How a request ended that did not end well.
pub(super) struct Ended {
    pub(super) attempts: u32,
    /// Whether any attempt may have been carried out.
    pub(super) may_have_happened: bool,
    pub(super) error: BlobError,
}

/// A request that was sent. It is counted once, however it ends.
struct Sent<'a> {
    request: Request,
    clock: &'a dyn Clock,
    writes: &'a Writes,
    start: Duration,
    counted: bool,
}

impl<'a> Sent<'a> {
    fn now(request: Request, env: &'a Env, writes: &'a Writes) -> Self {
        let clock = &*env.clock;
        Self { request, clock, writes, start: clock.now(), counted: false }
    }

    fn took(&self) -> Duration {
        self.clock.now().saturating_sub(self.start)
    }

    fn ended(&mut self, error: Option<&BlobError>) {
        let Request { op, purpose, bytes, .. } = self.request;
        let (op, purpose) = (op.as_str(), purpose.as_str());
        self.count(error.map_or("ok", BlobError::code));
        histogram!(names::REQUEST_SECONDS, "op" => op, "purpose" => purpose)
            .record(self.took().as_secs_f64());
        if error.is_none() && bytes > 0 {
            counter!(names::BYTES, "op" => op, "purpose" => purpose).increment(bytes);
        }
        if matches!(error, Some(BlobError::Throttled(_))) {
            counter!(names::THROTTLED, "op" => op, "purpose" => purpose).increment(1);
        }
        if matches!(self.request.op, Op::Put) {
            let now = self.clock.now();
            // Whoever asks only whether the store is there has an answer also when it is told to slow down.
            let asks = self.request.purpose == Purpose::Probe;
            match error {
                Some(BlobError::Throttled(_)) if asks => self.writes.succeeded(now),
                Some(error) if !settles(error) => self.writes.failed(now),
                _ => self.writes.succeeded(now),
            }
        }
    }

    fn count(&mut self, code: &'static str) {
        let Request { op, purpose, .. } = self.request;
        self.counted = true;
        counter!(names::REQUESTS, "op" => op.as_str(), "purpose" => purpose.as_str(), "code" => code)
            .increment(1);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.count("dropped");
        }
    }
}

/// The attempts at one request.
pub(super) struct Attempts<'a> {
    env: &'a Env,
    writes: &'a Writes,
    request: Request,
    is_local: bool,
    /// Decides over a second request beside a slow one; `None` when there is to be none.
    hedge: Option<&'a Mutex<Hedge>>,
    backoff: Backoff,
    /// How many attempts were begun; second requests are attempts too.
    pub(super) begun: u32,
    pub(super) may_have_happened: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(store: &'a Store, request: Request) -> Self {
        let (env, writes, is_local) = (&store.env, &store.writes, store.is_local());
        let backoff = Backoff::new();
        Self { env, writes, request, is_local, hedge: None, backoff, begun: 0, may_have_happened: false }
    }

    /// As [`new`](Self::new), for a request that may get a second one beside it when it is slow.
    pub(super) fn hedged(store: &'a Store, request: Request) -> Self {
        let hedge = store.hedges.as_ref().and_then(|hedges| hedges.of(request));
        Self { hedge, ..Self::new(store, request) }
    }

    /// Begins an attempt. Returns when its time is over.
    fn begin(&mut self, now: Duration) -> Duration {
        let left = self.request.deadline.saturating_sub(now);
        // A second write to a slow disk would only make it slower.
        let limit = if self.is_local { left } else { left.min(attempt_time(self.request.bytes, self.begun)) };
        self.begun = self.begun.saturating_add(1);
        now + limit
    }

    /// Makes one attempt. It ends at the latest when its time or the deadline is over.
    pub(super) async fn run<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let clock = &*self.env.clock;
        let mut sent = Sent::now(self.request, self.env, self.writes);
        let end = self.begin(sent.start);
        let result = until(clock, end, pin!(attempt)).await.unwrap_or_else(|| Err(timed_out(sent.took())));
        sent.ended(result.as_ref().err());
        result
    }

    /// As [`run`](Self::run). When the answer is slow and the budget allows it, `second` makes the next attempt while
    /// the first goes on, once for a request. The first success counts, and what is still on its way then is dropped.
    /// Both end when the first one's time is over. Also returns which attempt this is the answer of.
    pub(super) async fn run_hedged<T, A, B>(
        &mut self,
        first: A,
        second: impl FnOnce(u32) -> B,
    ) -> (u32, Result<T, BlobError>)
    where
        A: Future<Output = Result<T, BlobError>>,
        B: Future<Output = Result<T, BlobError>>,
    {
        let number = self.begun;
        let Some(hedge) = self.hedge else { return (number, self.run(first).await) };
        let (clock, request) = (&*self.env.clock, self.request);
        let mut sent = Sent::now(request, self.env, self.writes);
        let end = self.begin(sent.start);
        let due =
            hedge.lock().begin(request.bytes, sent.start).map_or(end, |wait| end.min(sent.start + wait));
        let mut first = pin!(first);
        let mut answer = until(clock, due, first.as_mut()).await;
        if answer.is_none() && due < end {
            if hedge.lock().take(clock.now()) {
                let next = self.begun;
                let outcome = self.race(Racing { sent, end, first }, second(next)).await;
                return (if outcome.of_second { next } else { number }, outcome.result);
            }
            request.count_hedge("spared");
            answer = until(clock, end, first).await;
        }
        let result = answer.unwrap_or_else(|| Err(timed_out(sent.took())));
        sent.ended(result.as_ref().err());
        learn(hedge, &sent, result.as_ref().err());
        (number, result)
    }

    /// Waits for a request that is on its way already and for a second one.
    async fn race<T, A, B>(&mut self, racing: Racing<'_, A>, second: B) -> Outcome<T>
    where
        A: Future<Output = Result<T, BlobError>> + Unpin,
        B: Future<Output = Result<T, BlobError>>,
    {
        let Racing { mut sent, end, first } = racing;
        let (clock, hedge) = (&*self.env.clock, self.hedge.take());
        self.begun = self.begun.saturating_add(1);
        let mut sent_second = Sent::now(self.request, self.env, self.writes);
        let second = pin!(second);
        let race = pin!(first_success(first, second));
        let Outcome { of_second, result, failed } =
            until(clock, end, race).await.unwrap_or_else(|| Outcome {
                of_second: false,
                result: Err(timed_out(sent.took())),
                failed: Some(timed_out(sent_second.took())),
            });
        let (winner, loser) =
            if of_second { (&mut sent_second, &mut sent) } else { (&mut sent, &mut sent_second) };
        winner.ended(result.as_ref().err());
        match &failed {
            Some(error) => {
                loser.ended(Some(error));
                self.may_have_happened |= error.may_have_happened();
            }
            // It is dropped on its way, and may arrive all the same.
            None => self.may_have_happened = true,
        }
        if let Some(hedge) = hedge {
            let errors = (result.as_ref().err(), failed.as_ref());
            let (of_first, of_other) = if of_second { (errors.1, errors.0) } else { errors };
            learn(hedge, &sent, of_first);
            heed(hedge, of_other, clock.now());
        }
        self.request.count_hedge(if of_second && result.is_ok() { "won" } else { "lost" });
        Outcome { of_second, result, failed }
    }

    /// Waits until the next attempt may begin.
    ///
    /// # Errors
    /// When there is to be none.
    pub(super) async fn pause_after(&mut self, error: BlobError) -> Result<(), Ended> {
        self.may_have_happened |= error.may_have_happened();
        let pause = self.backoff.next_pause(&*self.env.rng);
        let next = self.env.clock.now() + pause;
        if !error.is_retryable() || next >= self.request.deadline {
            return Err(Ended { attempts: self.begun, may_have_happened: self.may_have_happened, error });
        }
        let Request { op, purpose, .. } = self.request;
        tracing::debug!(op = op.as_str(), purpose = purpose.as_str(), attempts = self.begun, %error, "store request is tried again");
        counter!(names::RETRIES, "op" => op.as_str(), "purpose" => purpose.as_str()).increment(1);
        self.env.clock.sleep_until(next).await;
        Ok(())
    }
}

impl Request {
    fn count_hedge(self, outcome: &'static str) {
        counter!(names::HEDGES, "op" => self.op.as_str(), "outcome" => outcome).increment(1);
    }
}

/// A request on its way whose answer is slow.
struct Racing<'a, A> {
    sent: Sent<'a>,
    /// When its time is over.
    end: Duration,
    first: A,
}

/// How two requests for the same thing ended.
struct Outcome<T> {
    /// Whether the result is the second one's.
    of_second: bool,
    result: Result<T, BlobError>,
    /// What the other one failed with, when it did not go on until the end.
    failed: Option<BlobError>,
}

/// The first success of two requests; when both fail, what the later one fails with.
async fn first_success<T>(
    first: impl Future<Output = Result<T, BlobError>> + Unpin,
    second: impl Future<Output = Result<T, BlobError>> + Unpin,
) -> Outcome<T> {
    match select(first, second).await {
        Either::Left((Err(error), second)) if !settles(&error) => {
            Outcome { of_second: true, result: second.await, failed: Some(error) }
        }
        Either::Right((Err(error), first)) if !settles(&error) => {
            Outcome { of_second: false, result: first.await, failed: Some(error) }
        }
        Either::Left((result, _)) => Outcome { of_second: false, result, failed: None },
        Either::Right((result, _)) => Outcome { of_second: true, result, failed: None },
    }
}

/// Whether an error tells something about the object, so that nobody needs to be asked again.
fn settles(error: &BlobError) -> bool {
    matches!(error, BlobError::NotFound | BlobError::AlreadyExists | BlobError::OutOfRange)
}

/// Tells the hedge what became of a first request. One that was dropped, or was not answered in time, took at least as
/// long as it was waited for; one that failed says nothing of how long an answer takes.
fn learn(hedge: &Mutex<Hedge>, sent: &Sent<'_>, error: Option<&BlobError>) {
    let now = sent.clock.now();
    if matches!(error, None | Some(BlobError::TimedOut { .. })) {
        hedge.lock().record(sent.request.bytes, now.saturating_sub(sent.start), now);
    }
    heed(hedge, error, now);
}

/// Tells the hedge when the store asks for fewer requests.
fn heed(hedge: &Mutex<Hedge>, error: Option<&BlobError>, now: Duration) {
    if matches!(error, Some(BlobError::Throttled(_))) {
        hedge.lock().throttled(now);
    }
}

fn timed_out(waited: Duration) -> BlobError {
    BlobError::TimedOut { millis: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) }
}

/// What `work` gives before `end`; `None` when it does not.
async fn until<T>(clock: &dyn Clock, end: Duration, work: impl Future<Output = T> + Unpin) -> Option<T> {
    tokio::select! {
        biased;
        value = work => Some(value),
        () = clock.sleep_until(end) => None,
    }
}
