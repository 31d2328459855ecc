//! The seam: what StreamHouse asks of a store, one attempt at a time.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::layout::{Key, Prefix};
use crate::payload::Payload;

/// An object as a listing or a HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobMeta {
    /// Its name.
    pub key: Key,
    /// Its length in bytes.
    pub length: u64,
}

/// A part of a listing.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In the order of their keys.
    pub objects: Vec<BlobMeta>,
    /// Where the next page goes on: a bound, not always a [`Key`]; `None` when this is the last page.
    pub next_after: Option<String>,
}

/// How one attempt at a request ended when it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// The name is taken.
    #[error("the name is taken")]
    AlreadyExists,
    /// The range lies beyond the end of the object.
    #[error("the range lies beyond the end of the object")]
    OutOfRange,
    /// No room. Nothing was written.
    #[error("disk full")]
    NoSpace(#[source] Option<std::io::Error>),
    /// The store refuses for good: credentials, permissions, a missing bucket, a bad request. Nothing was done.
    #[error("refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store asks for fewer requests. It may have done the request before it said so.
    #[error("the store is busy")]
    Throttled(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request surely had no effect; it may be tried again.
    #[error("not carried out")]
    NotHappened(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request may have had its effect; it may be tried again.
    #[error("the answer was lost")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer within the time of one attempt.
    #[error("no answer in {millis} ms")]
    TimedOut {
        /// How long the attempt waited.
        millis: u64,
    },
    /// The reply is shorter or longer than what was asked for.
    #[error("reply of {actual} bytes instead of {expected}")]
    WrongLength {
        /// What was asked for.
        expected: u64,
        /// What came.
        actual: u64,
    },
}

impl BlobError {
    /// Whether a write that ended so may have been carried out.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Throttled(_) | Self::Unknown(_) | Self::TimedOut { .. } | Self::WrongLength { .. } => true,
            Self::NotFound
            | Self::AlreadyExists
            | Self::OutOfRange
            | Self::NoSpace(_)
            | Self::Refused(_)
            | Self::NotHappened(_) => false,
        }
    }

    /// Whether another attempt may end otherwise.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled(_)
            | Self::NotHappened(_)
            | Self::Unknown(_)
            | Self::TimedOut { .. }
            | Self::WrongLength { .. } => true,
            Self::NotFound | Self::AlreadyExists | Self::OutOfRange | Self::NoSpace(_) | Self::Refused(_) => {
                false
            }
        }
    }

    /// A word for the `code` label of metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::OutOfRange => "out_of_range",
            Self::NoSpace(_) => "no_space",
            Self::Refused(_) => "refused",
            Self::Throttled(_) => "throttled",
            Self::NotHappened(_) => "not_happened",
            Self::Unknown(_) => "unknown",
            Self::TimedOut { .. } => "timed_out",
            Self::WrongLength { .. } => "wrong_length",
        }
    }
}

/// A store of immutable objects. Each call is one attempt: retries, deadlines, checks and metrics are
/// [`Store`](crate::Store)'s.
///
/// Every implementation passes the same conformance suite (`tests/conformance.rs`).
#[async_trait]
pub trait Blob: Debug + Send + Sync + 'static {
    /// Writes a new object; when this returns it is durable, name included. The name must be free: the check is a
    /// tripwire against two writers with one identity.
    ///
    /// When the call is dropped, the object may still appear.
    async fn put(&self, key: &Key, payload: &Payload) -> Result<(), BlobError>;

    /// Reads a range that is not empty, as pieces in order. Where it costs no copy, pieces end at multiples of
    /// `cut` bytes of the object.
    async fn get_range(&self, key: &Key, range: Range<u64>, cut: u64) -> Result<Vec<Bytes>, BlobError>;

    /// The length of an object.
    async fn head(&self, key: &Key) -> Result<BlobMeta, BlobError>;

    /// Deletes an object; one that does not exist is deleted already.
    async fn delete(&self, key: &Key) -> Result<(), BlobError>;

    /// One page of the objects under a prefix, in the order of their keys, that come after `after`. What is not a
    /// [`Key`] is left out. The page may be empty and yet not the last.
    async fn list(&self, prefix: &Prefix, after: Option<&str>) -> Result<Page, BlobError>;

    /// Whether objects are files of this machine: waiting longer is then better than a second attempt, and there is
    /// nothing to hide by reading ahead.
    fn is_local(&self) -> bool {
        false
    }
}
