//! The one wrapper around every request: attempts, deadlines, checks of what came back, metrics.

mod attempts;

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use streamhouse_env::Env;

use self::attempts::{Attempts, Ended, Op, Request};
use crate::blob::{Blob, BlobError, BlobMeta, Page};
use crate::error::{DeleteError, GetError, ListError, PutError};
use crate::hedge::Hedge;
use crate::layout::{Key, Prefix};
use crate::payload::Payload;
use crate::retry::attempt_time;
use crate::writes::{Writes, WritesSeen};

/// Longest time for a request whose caller names no deadline.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most second reads for 100 first ones.
const GET_HEDGE_PERCENT: u32 = 5;
/// Most second writes for 100 first ones. The slowest write holds up all that follow it, so more is spent on them.
const PUT_HEDGE_PERCENT: u32 = 10;

/// What a request is for: a label of metrics, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Uploading what producers wrote.
    Produce,
    /// Reading for a consumer.
    Fetch,
    /// Reading ahead for a consumer.
    Prefetch,
    /// Looking for orphans and deleting garbage.
    Sweep,
    /// Checking objects.
    Verify,
    /// Snapshots of the metadata and the identity of the cluster.
    Meta,
    /// Asking whether the store works.
    Probe,
}

impl Purpose {
    /// The word for the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Fetch => "fetch",
            Self::Prefetch => "prefetch",
            Self::Sweep => "sweep",
            Self::Verify => "verify",
            Self::Meta => "meta",
            Self::Probe => "probe",
        }
    }
}

/// How an object is written.
#[derive(Debug, Clone, Copy)]
pub struct PutOptions {
    /// What for.
    pub purpose: Purpose,
    /// When to give up, by [`Clock::now`](streamhouse_env::Clock::now).
    pub deadline: Duration,
}

impl PutOptions {
    fn request(self, payload: &Payload) -> Request {
        Request { op: Op::Put, purpose: self.purpose, bytes: payload.len(), deadline: self.deadline }
    }
}

/// An object store, with retries, deadlines and metrics. Clones share everything.
#[derive(Debug, Clone)]
pub struct Store {
    blob: Arc<dyn Blob>,
    env: Env,
    /// `None` when slow requests get no second ones beside them.
    hedges: Option<Arc<Hedges>>,
    writes: Writes,
}

/// What is known of how long requests take, and what second ones may cost.
#[derive(Debug)]
struct Hedges {
    gets: Mutex<Hedge>,
    puts: Mutex<Hedge>,
}

impl Hedges {
    /// Who decides over second requests for this one. Where nobody waits for the single request there are none.
    fn of(&self, request: Request) -> Option<&Mutex<Hedge>> {
        match (request.op, request.purpose) {
            (Op::Get, Purpose::Fetch | Purpose::Prefetch) => Some(&self.gets),
            (Op::Put, Purpose::Produce) => Some(&self.puts),
            _ => None,
        }
    }
}

impl Store {
    /// Wraps a store that is there. Tests put their own in; [`open`](crate::open()) opens one by URL.
    #[must_use]
    pub fn new(blob: Arc<dyn Blob>, env: &Env) -> Self {
        Self { blob, env: env.clone(), hedges: None, writes: Writes::default() }
    }

    /// The same store, which from now on answers slow reads of consumers and slow writes of [`put_named`] with a
    /// second request beside the first; what is slow it learns from its own requests. Changes nothing where objects
    /// are files of this machine: a second request to a slow disk would only make it slower.
    ///
    /// [`put_named`]: Self::put_named
    #[must_use]
    pub fn hedged(self) -> Self {
        let gets = Mutex::new(Hedge::new(GET_HEDGE_PERCENT));
        let puts = Mutex::new(Hedge::new(PUT_HEDGE_PERCENT));
        let hedges = (!self.is_local()).then(|| Arc::new(Hedges { gets, puts }));
        Self { hedges, ..self }
    }

    /// How the writes of this node have gone lately.
    #[must_use]
    pub fn writes(&self) -> WritesSeen {
        self.writes.seen(self.env.clock.now())
    }

    /// Clock, randomness and files.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Whether objects are files of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.blob.is_local()
    }

    /// Writes an object under a free name; on success it is durable. Tries again, with the same name and bytes, until
    /// the deadline.
    ///
    /// Not cancel-safe: when the future is dropped, the object may still appear.
    ///
    /// # Errors
    /// [`PutError::may_have_happened`] says whether the object may exist.
    pub async fn put(&self, key: &Key, payload: &Payload, options: PutOptions) -> Result<(), PutError> {
        let named = (key.clone(), payload.clone());
        let attempts = Attempts::new(self, options.request(payload));
        self.put_attempts(attempts, options, |_| named.clone()).await.map(|_| ())
    }

    /// Makes one attempt at writing an object under a name that is taken, only to see whether the store takes writes;
    /// [`writes`](Self::writes) tells how it went. `payload` is what lies there.
    ///
    /// Cancel-safe.
    pub(crate) async fn put_again(&self, key: &Key, payload: &Payload, options: PutOptions) {
        let attempt = self.blob.put(key, payload);
        drop(Attempts::new(self, options.request(payload)).run(attempt).await);
    }

    /// As [`put`](Self::put), but each attempt gets the name and bytes that `name` gives it (attempts count from 0);
    /// the same attempt must always get the same. Answers which attempt was the first known to be durable; objects of
    /// the other attempts may exist or yet appear. On a [hedged](Self::hedged) store, one attempt may begin while the
    /// one before it goes on.
    ///
    /// Not cancel-safe, as `put`.
    ///
    /// # Errors
    /// [`PutError::may_have_happened`] says whether an object of any attempt may exist.
    pub async fn put_named(
        &self,
        options: PutOptions,
        mut name: impl FnMut(u32) -> (Key, Payload) + Send,
    ) -> Result<u32, PutError> {
        let first = name(0);
        let attempts = Attempts::hedged(self, options.request(&first.1));
        let mut first = Some(first);
        self.put_attempts(attempts, options, |attempt| first.take().unwrap_or_else(|| name(attempt))).await
    }

    async fn put_attempts(
        &self,
        mut attempts: Attempts<'_>,
        options: PutOptions,
        mut name: impl FnMut(u32) -> (Key, Payload) + Send,
    ) -> Result<u32, PutError> {
        loop {
            let (number, named) = (attempts.begun, name(attempts.begun));
            let mut second = None;
            let put_second = |next| {
                let (key, payload) = second.insert(name(next)).clone();
                async move { self.blob.put(&key, &payload).await }
            };
            let first = self.blob.put(&named.0, &named.1);
            let (attempt, result) = attempts.run_hedged(first, put_second).await;
            let (key, payload) = second.filter(|_| attempt != number).unwrap_or(named);
            let error = match result {
                Ok(()) => return Ok(attempt),
                Err(BlobError::AlreadyExists) => {
                    let other_attempts = attempts.may_have_happened;
                    // What lies there may be ours, whatever becomes of the question.
                    attempts.may_have_happened = true;
                    match self.is_ours(&key, &payload, options).await {
                        Ok(true) => return Ok(attempt),
                        Ok(false) => return Err(PutError::Conflict { key, other_attempts }),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if let Err(ended) = attempts.pause_after(error).await {
                return Err(ended.into_put_error(key));
            }
        }
    }

    /// Whether the object that has our name is what an earlier try of ours wrote.
    async fn is_ours(&self, key: &Key, payload: &Payload, options: PutOptions) -> Result<bool, BlobError> {
        let request = Request {
            op: Op::Get,
            purpose: options.purpose,
            bytes: payload.len(),
            deadline: options.deadline,
        };
        let found = Attempts::new(self, request).run(self.blob.head(key)).await;
        match found {
            Ok(meta) if meta.length != payload.len() => return Ok(false),
            Ok(_) => {}
            // The name is not taken after all (a store may say so while two requests race).
            Err(error @ BlobError::NotFound) => return Err(BlobError::Unknown(Box::new(error))),
            Err(error) => return Err(error),
        }
        let range = 0..payload.len();
        let read = self.blob.get_range(key, range.clone(), u64::MAX);
        let pieces = Attempts::new(self, request).run(read).await?;
        check_length(&pieces, &range)?;
        Ok(payload.matches(&join(pieces)))
    }

    /// Reads a range of an object into one piece.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the object does not reach so far, or the store does not give the bytes in time.
    pub async fn get_range(&self, key: &Key, range: Range<u64>, purpose: Purpose) -> Result<Bytes, GetError> {
        self.get_pieces(key, range, u64::MAX, purpose).await.map(join)
    }

    /// Reads a range of an object as pieces; where that costs no copy, they end at multiples of `cut` bytes of the
    /// object. Their lengths add up to that of the range.
    pub(crate) async fn get_pieces(
        &self,
        key: &Key,
        range: Range<u64>,
        cut: u64,
        purpose: Purpose,
    ) -> Result<Vec<Bytes>, GetError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = range.end - range.start;
        let request = Request { op: Op::Get, purpose, bytes, deadline: self.patience() };
        let read = || async {
            let pieces = self.blob.get_range(key, range.clone(), cut).await?;
            check_length(&pieces, &range)?;
            Ok(pieces)
        };
        let mut attempts = Attempts::hedged(self, request);
        loop {
            let error = match attempts.run_hedged(read(), |_| read()).await {
                (_, Ok(pieces)) => return Ok(pieces),
                (_, Err(error)) => error,
            };
            if let Err(ended) = attempts.pause_after(error).await {
                return Err(ended.into_get_error(key, range.end));
            }
        }
    }

    /// Reads a whole object into one piece.
    ///
    /// # Errors
    /// When there is no such object, or the store does not give the bytes in time.
    pub async fn get(&self, key: &Key, purpose: Purpose) -> Result<Bytes, GetError> {
        let length = self.head(key, purpose).await?.length;
        self.get_range(key, 0..length, purpose).await
    }

    /// The length of an object.
    ///
    /// # Errors
    /// When there is no such object, or the store does not answer in time.
    pub async fn head(&self, key: &Key, purpose: Purpose) -> Result<BlobMeta, GetError> {
        let request = Request { op: Op::Head, purpose, bytes: 0, deadline: self.patience() };
        let answer = self.with_retries(request, || self.blob.head(key)).await;
        answer.map_err(|ended| ended.into_get_error(key, 0))
    }

    /// Deletes an object; one that does not exist is deleted already.
    ///
    /// # Errors
    /// When the object may still be there. Deleting may be repeated.
    pub async fn delete(&self, key: &Key, purpose: Purpose) -> Result<(), DeleteError> {
        let request = Request { op: Op::Delete, purpose, bytes: 0, deadline: self.patience() };
        match self.with_retries(request, || self.blob.delete(key)).await {
            Ok(()) => Ok(()),
            Err(Ended { error: BlobError::NotFound, .. }) => Ok(()),
            Err(Ended { attempts, error, .. }) => {
                Err(DeleteError { key: key.clone(), attempts, source: error })
            }
        }
    }

    /// The objects under a prefix, in the order of their keys, page by page. Nothing but the sweep and people may
    /// depend on what a listing shows: it may miss what is written meanwhile. The stream ends after an error.
    pub fn list(&self, prefix: &Prefix, purpose: Purpose) -> BoxStream<'static, Result<BlobMeta, ListError>> {
        self.list_after(prefix, None, purpose)
    }

    /// As [`list`](Self::list), from the first key after `after` on.
    pub(crate) fn list_after(
        &self,
        prefix: &Prefix,
        after: Option<String>,
        purpose: Purpose,
    ) -> BoxStream<'static, Result<BlobMeta, ListError>> {
        let (store, prefix) = (self.clone(), prefix.clone());
        let pages = stream::try_unfold(Some(after), move |after| {
            let (store, prefix) = (store.clone(), prefix.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                let page = store.page(&prefix, after.as_deref(), purpose).await?;
                let objects = stream::iter(page.objects.into_iter().map(Ok));
                Ok::<_, ListError>(Some((objects, page.next_after.map(Some))))
            }
        });
        futures::TryStreamExt::try_flatten(pages).boxed()
    }

    async fn page(&self, prefix: &Prefix, after: Option<&str>, purpose: Purpose) -> Result<Page, ListError> {
        let request = Request { op: Op::List, purpose, bytes: 0, deadline: self.patience() };
        self.with_retries(request, || self.blob.list(prefix, after)).await.map_err(|ended| ListError {
            prefix: prefix.to_string(),
            attempts: ended.attempts,
            source: ended.error,
        })
    }

    /// Asks the store for one page of a listing, to learn whether it answers and lets us in.
    ///
    /// # Errors
    /// When it does not within one attempt.
    pub async fn probe(&self, prefix: &Prefix) -> Result<(), ListError> {
        let deadline = self.env.clock.now() + attempt_time(0, 0);
        let request = Request { op: Op::List, purpose: Purpose::Probe, bytes: 0, deadline };
        let probe = Attempts::new(self, request).run(self.blob.list(prefix, None)).await;
        probe.map(|_| ()).map_err(|source| ListError { prefix: prefix.to_string(), attempts: 1, source })
    }

    fn patience(&self) -> Duration {
        self.env.clock.now() + PATIENCE
    }

    async fn with_retries<T, F>(&self, request: Request, mut attempt: impl FnMut() -> F) -> Result<T, Ended>
    where
        F: Future<Output = Result<T, BlobError>>,
    {
        let mut attempts = Attempts::new(self, request);
        loop {
            match attempts.run(attempt()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.pause_after(error).await?,
            }
        }
    }
}

impl Ended {
    fn into_put_error(self, key: Key) -> PutError {
        let Self { attempts, may_have_happened, error } = self;
        match error {
            source if may_have_happened => PutError::Unknown { key, attempts, source },
            BlobError::NoSpace(_) => PutError::DiskFull { key },
            source if source.is_retryable() => PutError::NotHappened { key, attempts, source },
            source => PutError::Refused { key, source },
        }
    }

    fn into_get_error(self, key: &Key, end: u64) -> GetError {
        let (key, attempts) = (key.clone(), self.attempts);
        match self.error {
            BlobError::NotFound => GetError::NotFound { key },
            BlobError::OutOfRange => GetError::OutOfRange { key, end },
            source if source.is_retryable() => GetError::Unavailable { key, attempts, source },
            source => GetError::Refused { key, source },
        }
    }
}

fn check_length(pieces: &[Bytes], range: &Range<u64>) -> Result<(), BlobError> {
    let expected = range.end - range.start;
    let actual = pieces.iter().map(|piece| piece.len() as u64).sum();
    if actual == expected { Ok(()) } else { Err(BlobError::WrongLength { expected, actual }) }
}

/// One piece out of many; copies only when there are many.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        joined.extend_from_slice(&piece);
    }
    joined.freeze()
}

#[cfg(test)]
mod tests;
