//! The S3 operations.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt as _;
use hyper::body::{Body, Frame, SizeHint};
use s3s::dto::{
    CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::objects::{CreateError, Free, Object, Objects};
use crate::plan::{Fault, Faults, Op};

/// Most objects of a page of a listing.
const PAGE: usize = 1_000;

/// Set by an operation whose connection is to be cut instead of answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(Arc<AtomicBool>);

impl Cut {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The S3 operations over [`Objects`], with [`Faults`].
#[derive(Debug, Clone)]
pub(crate) struct FaultyS3 {
    pub(crate) objects: Arc<Objects>,
    pub(crate) faults: Arc<Faults>,
}

impl FaultyS3 {
    /// Lets the plan decide over a request; fails when it fails before anything is done.
    async fn begin<T>(&self, op: Op, request: &S3Request<T>) -> S3Result<Option<Fault>> {
        let fault = self.faults.begin(op).await;
        match fault {
            Some(Fault::FailBefore) => Err(s3_error!(InternalError, "fails before, as planned")),
            Some(Fault::SlowDown) => Err(s3_error!(SlowDown, "slow down, as planned")),
            Some(Fault::Deny) => Err(s3_error!(AccessDenied, "denied, as planned")),
            Some(Fault::CutBefore) => Err(cut(request)),
            Some(Fault::Late) if !matches!(op, Op::Put | Op::Delete) => Err(late()),
            other => Ok(other),
        }
    }

    /// Fails when the plan says that the request fails after it is done.
    fn end<T>(fault: Option<Fault>, request: &S3Request<T>) -> S3Result<()> {
        match fault {
            Some(Fault::FailAfter) => Err(s3_error!(InternalError, "fails after, as planned")),
            Some(Fault::CutAfter) => Err(cut(request)),
            _ => Ok(()),
        }
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Object> {
        let found = self.objects.get(bucket, key).ok_or_else(|| s3_error!(NoSuchBucket))?;
        found.ok_or_else(|| s3_error!(NoSuchKey))
    }
}

fn late() -> s3s::S3Error {
    s3_error!(InternalError, "late, as planned")
}

fn cut<T>(request: &S3Request<T>) -> s3s::S3Error {
    if let Some(cut) = request.extensions.get::<Cut>() {
        cut.set();
    }
    s3_error!(InternalError, "cut, as planned")
}

fn etag(object: &Object) -> ETag {
    ETag::Strong(format!("{:016x}-{}", object.crc64, object.length))
}

fn modified(object: &Object) -> Timestamp {
    let millis = u64::try_from(object.modified.as_millis()).unwrap_or_default();
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(millis))
}

fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Base64 as the checksum headers have it.
fn checksum_text(crc64: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(12);
    for chunk in crc64.to_be_bytes().chunks(3) {
        let word =
            chunk.iter().fold(0usize, |word, byte| word << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let symbol = char::from(ALPHABET[word >> (18 - 6 * place) & 63]);
            text.push(if place <= chunk.len() { symbol } else { '=' });
        }
    }
    text
}

#[async_trait::async_trait]
impl S3 for FaultyS3 {
    async fn put_object(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let mut pieces = Vec::new();
        if let Some(mut body) = request.input.body.take() {
            while let Some(piece) = body.next().await {
                pieces.push(piece.map_err(|error| s3_error!(IncompleteBody, "{error}"))?);
            }
        }
        let fault = self.begin(Op::Put, &request).await?;
        let object = self
            .objects
            .keep(pieces, self.faults.clock().wall())
            .await
            .map_err(s3s::S3Error::internal_error)?;
        let input = &request.input;
        if input.content_length.is_some_and(|length| length != signed(object.length)) {
            return Err(s3_error!(IncompleteBody));
        }
        if input.checksum_crc64nvme.as_ref().is_some_and(|sum| *sum != checksum_text(object.crc64)) {
            return Err(s3_error!(BadDigest));
        }
        let free = match input.if_none_match {
            Some(ETagCondition::Any) => Free::Required,
            Some(ETagCondition::ETag(_)) => return Err(s3_error!(NotImplemented)),
            None => Free::NotRequired,
        };
        let e_tag = Some(etag(&object));
        if fault == Some(Fault::Late) {
            let (s3, bucket, key) = (self.clone(), input.bucket.clone(), input.key.clone());
            tokio::spawn(async move {
                s3.faults.be_late().await;
                // Nobody hears any more whether the name was free.
                let _ = s3.objects.name(&bucket, &key, object, free);
            });
            return Err(late());
        }
        self.objects.name(&input.bucket, &input.key, object, free).map_err(|error| match error {
            CreateError::NoBucket => s3_error!(NoSuchBucket),
            CreateError::Exists => s3_error!(PreconditionFailed),
            CreateError::Full => s3_error!(InternalError, "the memory for objects is full"),
        })?;
        Self::end(fault, &request)?;
        Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let fault = self.begin(Op::Get, &request).await?;
        let input = &request.input;
        let object = self.find(&input.bucket, &input.key)?;
        Self::end(fault, &request)?;
        let range = match input.range {
            Some(range) => range.check(object.length)?,
            None => 0..object.length,
        };
        let last = range.end.saturating_sub(1);
        let content_range = input.range.map(|_| format!("bytes {}-{last}/{}", range.start, object.length));
        let pieces = object.read(range.clone()).await.map_err(s3s::S3Error::internal_error)?;
        let body = Pieces::spoilt(pieces, fault);
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(signed(body.announced)),
            body: Some(StreamingBlob::from(s3s::Body::http_body(body))),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(etag(&object)),
            last_modified: Some(modified(&object)),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let fault = self.begin(Op::Head, &request).await?;
        let object = self.find(&request.input.bucket, &request.input.key)?;
        Self::end(fault, &request)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(signed(object.length)),
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(etag(&object)),
            last_modified: Some(modified(&object)),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let fault = self.begin(Op::Delete, &request).await?;
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        if fault == Some(Fault::Late) {
            let s3 = self.clone();
            tokio::spawn(async move {
                s3.faults.be_late().await;
                s3.objects.delete(&bucket, &key);
            });
            return Err(late());
        }
        if !self.objects.delete(&bucket, &key) {
            return Err(s3_error!(NoSuchBucket));
        }
        Self::end(fault, &request)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let fault = self.begin(Op::Delete, &request).await?;
        let mut deleted = Vec::new();
        for object in &request.input.delete.objects {
            if !self.objects.delete(&request.input.bucket, &object.key) {
                return Err(s3_error!(NoSuchBucket));
            }
            deleted.push(DeletedObject { key: Some(object.key.clone()), ..Default::default() });
        }
        Self::end(fault, &request)?;
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let fault = self.begin(Op::List, &request).await?;
        let input = &request.input;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "delimiters"));
        }
        let most = input.max_keys.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE).min(PAGE);
        let prefix = input.prefix.as_deref().unwrap_or_default();
        // The token is the last key of the page before.
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref());
        let mut listed = self
            .objects
            .list(&input.bucket, prefix, after, most + 1)
            .ok_or_else(|| s3_error!(NoSuchBucket))?;
        Self::end(fault, &request)?;
        let more = listed.len() > most;
        listed.truncate(most);
        let next = listed.last().filter(|_| more).map(|last| last.key.clone());
        let contents: Vec<_> = listed
            .into_iter()
            .map(|listed| s3s::dto::Object {
                size: Some(signed(listed.object.length)),
                e_tag: Some(etag(&listed.object)),
                last_modified: Some(modified(&listed.object)),
                key: Some(listed.key),
                ..Default::default()
            })
            .collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: input.prefix.clone(),
            max_keys: Some(i32::try_from(most).unwrap_or(i32::MAX)),
            key_count: Some(i32::try_from(contents.len()).unwrap_or(i32::MAX)),
            is_truncated: Some(more),
            next_continuation_token: next,
            contents: Some(contents),
            ..Default::default()
        }))
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        if !self.objects.create_bucket(&request.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.objects.has_bucket(&request.input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(S3Response::new(HeadBucketOutput::default()))
    }
}

/// The bytes of a reply, piece by piece.
struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
    /// What the header says.
    announced: u64,
    /// The bytes end in an error.
    breaks: bool,
    /// Those before it had a chance to leave.
    flushed: bool,
}

impl Pieces {
    fn spoilt(pieces: Vec<Bytes>, fault: Option<Fault>) -> Self {
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let mut body =
            Self { pieces: pieces.into(), left: length, announced: length, breaks: false, flushed: false };
        match fault {
            Some(Fault::Truncate) => {
                body.shorten(length / 2);
                body.announced = length / 2;
            }
            Some(Fault::CutBody) => {
                body.shorten(length / 2);
                body.breaks = true;
            }
            Some(Fault::Garble) => body.garble(),
            _ => {}
        }
        body
    }

    fn shorten(&mut self, length: u64) {
        while self.left > length {
            let Some(mut last) = self.pieces.pop_back() else { return };
            let surplus = usize::try_from(self.left - length).unwrap_or(usize::MAX).min(last.len());
            last.truncate(last.len() - surplus);
            self.left -= surplus as u64;
            if !last.is_empty() {
                self.pieces.push_back(last);
            }
        }
    }

    fn garble(&mut self) {
        if let Some(first) = self.pieces.front_mut() {
            let mut bytes = first.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            *first = Bytes::from(bytes);
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.pieces.pop_front() {
            Some(piece) => {
                self.left -= piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None if self.breaks && !self.flushed => {
                // An error at once would take along what is not sent yet.
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None if self.breaks => {
                self.breaks = false;
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        if self.breaks { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_written_as_clients_write_it() {
        // Base64 of eight bytes: eleven symbols and one pad.
        assert_eq!(checksum_text(0), "AAAAAAAAAAA=");
        assert_eq!(checksum_text(u64::MAX), "//////////8=");
        assert_eq!(checksum_text(0x0001_0203_0405_0607), "AAECAwQFBgc=");
    }

    #[test]
    fn replies_are_spoilt_as_planned() {
        let pieces = || vec![Bytes::from_static(b"0123"), Bytes::from_static(b"456789")];
        let bytes = |body: &Pieces| body.pieces.iter().flatten().copied().collect::<Vec<u8>>();
        let cases: [(Option<Fault>, &[u8], u64, bool); 4] = [
            (None, b"0123456789", 10, false),
            (Some(Fault::Truncate), b"01234", 5, false),
            (Some(Fault::CutBody), b"01234", 10, true),
            (Some(Fault::Garble), b"0133456789", 10, false),
        ];
        for (fault, expected, announced, breaks) in cases {
            let body = Pieces::spoilt(pieces(), fault);
            assert_eq!(bytes(&body), expected, "{fault:?}");
            assert_eq!((body.announced, body.breaks), (announced, breaks), "{fault:?}");
        }
    }
}
