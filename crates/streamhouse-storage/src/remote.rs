//! Stores behind the `object_store` crate: S3, Google, Azure, and memory.

mod over_net;

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};

use streamhouse_env::Env;

use crate::blob::{Blob, BlobError, BlobMeta, Page};
use crate::layout::{Key, Prefix};
use crate::payload::Payload;

/// Connecting takes longer only when packets are lost; the attempt is then better made anew.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection that nobody uses is kept.
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(50);
/// How many objects a page of a listing holds: what S3 and Google give with one request.
const PAGE_OBJECTS: usize = 1_000;
/// Smaller pieces of a payload are gathered: sending many tiny frames costs more than copying them.
const SMALL_PIECE: usize = 16 << 10;
const GATHERED: usize = 64 << 10;

/// A store that the `object_store` crate speaks to. It must not retry by itself.
#[derive(Debug)]
pub struct RemoteBlob {
    client: Arc<dyn ObjectStore>,
    /// Empty, or segments joined and ended by `/`.
    prefix: String,
    /// Set when the store turned out not to know create-only writes.
    overwrites: AtomicBool,
}

impl RemoteBlob {
    /// The objects of `client` under `prefix`, which is empty or a [`Key`].
    #[must_use]
    pub fn new(client: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client, prefix, overwrites: AtomicBool::new(false) }
    }

    fn path(&self, key: &str) -> Path {
        Path::parse(format!("{}{key}", self.prefix)).expect("keys and prefixes are legal paths")
    }

    fn key(&self, path: &Path) -> Option<Key> {
        path.as_ref().strip_prefix(&self.prefix)?.parse().ok()
    }
}

#[async_trait]
impl Blob for RemoteBlob {
    async fn put(&self, key: &Key, payload: &Payload) -> Result<(), BlobError> {
        let overwrite = self.overwrites.load(Ordering::Relaxed);
        let mode = if overwrite { PutMode::Overwrite } else { PutMode::Create };
        let payload: PutPayload = gather(payload.pieces()).into_iter().collect();
        match self.client.put_opts(&self.path(key.as_str()), payload, PutOptions::from(mode)).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::NotFound { source, .. }) => Err(BlobError::Refused(source)),
            Err(error) => {
                if status_of(&error) == Some(http::StatusCode::NOT_IMPLEMENTED) && !overwrite {
                    tracing::warn!("the store does not know create-only writes; they are done without");
                    self.overwrites.store(true, Ordering::Relaxed);
                    return Err(BlobError::NotHappened(Box::new(error)));
                }
                Err(classify(error))
            }
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>, cut: u64) -> Result<Vec<Bytes>, BlobError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let reply = match self.client.get_opts(&self.path(key.as_str()), options).await {
            Ok(reply) => reply,
            Err(error) if status_of(&error) == Some(http::StatusCode::RANGE_NOT_SATISFIABLE) => {
                return Err(BlobError::OutOfRange);
            }
            // Memory says so in an error type that it does not export.
            Err(error @ object_store::Error::Generic { .. }) if find::<HttpError>(&error).is_none() => {
                let length = self.head(key).await?.length;
                return Err(if length < range.end { BlobError::OutOfRange } else { classify(error) });
            }
            Err(error) => return Err(classify(error)),
        };
        if reply.meta.size < range.end {
            return Err(BlobError::OutOfRange);
        }
        let (start, expected) = (range.start, range.end - range.start);
        let mut pieces = Recut::new(start, cut, expected);
        let mut body = reply.into_stream();
        while let Some(chunk) = body.try_next().await.map_err(classify)? {
            pieces.push(&chunk)?;
        }
        Ok(pieces.finish())
    }

    async fn head(&self, key: &Key) -> Result<BlobMeta, BlobError> {
        let meta = self.client.head(&self.path(key.as_str())).await.map_err(classify)?;
        Ok(BlobMeta { key: key.clone(), length: meta.size })
    }

    async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        match self.client.delete(&self.path(key.as_str())).await.map_err(classify) {
            Err(BlobError::NotFound) => Ok(()),
            result => result,
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&str>) -> Result<Page, BlobError> {
        let within = format!("{}{prefix}", self.prefix);
        let within = (!within.is_empty()).then(|| self.path(prefix.as_str().trim_end_matches('/')));
        let mut objects = match after {
            Some(after) => self.client.list_with_offset(within.as_ref(), &self.path(after)),
            None => self.client.list(within.as_ref()),
        };
        let mut page = Page::default();
        let mut seen = 0;
        while seen < PAGE_OBJECTS {
            let Some(meta) = objects.try_next().await.map_err(classify)? else { return Ok(page) };
            seen += 1;
            page.next_after = meta.location.as_ref().strip_prefix(&self.prefix).map(str::to_owned);
            if let Some(key) = self.key(&meta.location) {
                page.objects.push(BlobMeta { key, length: meta.size });
            }
        }
        Ok(page)
    }
}

/// Cuts a reply that comes in chunks of any size into pieces that end at multiples of `cut`.
struct Recut {
    pieces: Vec<Bytes>,
    open: BytesMut,
    position: u64,
    cut: u64,
    left: u64,
    expected: u64,
}

impl Recut {
    fn new(start: u64, cut: u64, expected: u64) -> Self {
        Self { pieces: Vec::new(), open: BytesMut::new(), position: start, cut, left: expected, expected }
    }

    fn push(&mut self, mut chunk: &[u8]) -> Result<(), BlobError> {
        while !chunk.is_empty() {
            if self.left == 0 {
                let actual = self.expected + chunk.len() as u64;
                return Err(BlobError::WrongLength { expected: self.expected, actual });
            }
            let room = (self.cut - self.position % self.cut).min(self.left);
            if self.open.is_empty() {
                // The caller asked for these bytes, so their number is not the reply's to choose.
                self.open = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
            }
            let taken = usize::try_from(room).map_or(chunk.len(), |room| room.min(chunk.len()));
            self.open.extend_from_slice(&chunk[..taken]);
            chunk = &chunk[taken..];
            self.position += taken as u64;
            self.left -= taken as u64;
            if self.left == 0 || self.position.is_multiple_of(self.cut) {
                self.pieces.push(self.open.split().freeze());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.pieces.push(self.open.freeze());
        }
        self.pieces
    }
}

/// Joins neighbouring small pieces; large ones stay as they are.
fn gather(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut open = BytesMut::new();
    for piece in pieces {
        if piece.len() < SMALL_PIECE {
            if open.capacity() - open.len() < piece.len() {
                if !open.is_empty() {
                    out.push(open.split().freeze());
                }
                open = BytesMut::with_capacity(GATHERED);
            }
            open.extend_from_slice(piece);
        } else {
            if !open.is_empty() {
                out.push(open.split().freeze());
            }
            out.push(piece.clone());
        }
    }
    if !open.is_empty() {
        out.push(open.freeze());
    }
    out
}

fn classify(error: object_store::Error) -> BlobError {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => BlobError::NotFound,
        E::AlreadyExists { .. } => BlobError::AlreadyExists,
        E::PermissionDenied { .. }
        | E::Unauthenticated { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. } => BlobError::Refused(Box::new(error)),
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => BlobError::Refused(Box::new(error)),
        // A precondition that is not ours to lose: the name is taken.
        E::Precondition { .. } => BlobError::AlreadyExists,
        error => classify_http(error),
    }
}

fn classify_http(error: object_store::Error) -> BlobError {
    if let Some(status) = status_of(&error) {
        return match status.as_u16() {
            429 | 503 => BlobError::Throttled(Box::new(error)),
            400..=407 | 410..=428 | 430..=499 | 501 => BlobError::Refused(Box::new(error)),
            _ => BlobError::Unknown(Box::new(error)),
        };
    }
    match find::<HttpError>(&error).map(HttpError::kind) {
        Some(HttpErrorKind::Connect) => BlobError::NotHappened(Box::new(error)),
        _ => BlobError::Unknown(Box::new(error)),
    }
}

fn status_of(error: &object_store::Error) -> Option<http::StatusCode> {
    find::<StatusError>(error).map(|error| error.status)
}

/// The first error of type `T` among `error` and its causes.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// An answer of the store that is no success.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status}: {text}")]
struct StatusError {
    status: http::StatusCode,
    text: String,
}

/// Makes the answers of the store visible to us: the client library keeps the status of an answer in an error type
/// that it does not export, and whether a write may have happened depends on it.
#[derive(Debug)]
pub(crate) struct StatusConnector(Env);

impl StatusConnector {
    /// Opens its connections on the machine of `env`.
    pub(crate) fn new(env: &Env) -> Self {
        Self(env.clone())
    }
}

impl HttpConnector for StatusConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = if self.0.net.is_machine() {
            ReqwestConnector::default().connect(options)?
        } else {
            over_net::client(&self.0)
        };
        Ok(HttpClient::new(StatusService(client)))
    }
}

#[derive(Debug)]
struct StatusService(HttpClient);

#[async_trait]
impl HttpService for StatusService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let lists = request.method() == http::Method::GET && request.uri().query().is_some();
        let response = self.0.execute(request).await?;
        let status = response.status();
        // The library tells these apart by itself, those of access not where it lists.
        let known = status.is_success()
            || status.is_redirection()
            || matches!(status.as_u16(), 409 | 412)
            || (matches!(status.as_u16(), 401 | 403) && !lists);
        if known {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        let text: String = String::from_utf8_lossy(&body[..body.len().min(1_024)]).into_owned();
        let missing_bucket = ["NoSuchBucket", "ContainerNotFound", "specified bucket does not exist"];
        if status == http::StatusCode::NOT_FOUND && !missing_bucket.iter().any(|word| text.contains(word)) {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)));
        }
        Err(HttpError::new(HttpErrorKind::Unknown, StatusError { status, text }))
    }
}

#[cfg(test)]
mod tests;
