//! What can go wrong with a request to the store, per operation.

use crate::blob::BlobError;
use crate::layout::Key;

/// Why an object was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The name is taken by other bytes. Names are never reused, so somebody else writes under our identity.
    #[error("object `{key}` exists with other bytes")]
    Conflict {
        /// The name.
        key: Key,
        /// Whether an object of another attempt may exist, or may yet appear.
        other_attempts: bool,
    },
    /// The disk or the quota is full. Did not happen.
    #[error("disk full: no room for object `{key}`")]
    DiskFull {
        /// The name.
        key: Key,
    },
    /// The store refuses for good: credentials, a missing bucket, a request it does not know. Did not happen.
    #[error("the store refuses object `{key}`")]
    Refused {
        /// The name.
        key: Key,
        /// What it said.
        #[source]
        source: BlobError,
    },
    /// No attempt reached the store before the deadline. Did not happen.
    #[error("object `{key}` was not written after {attempts} attempts")]
    NotHappened {
        /// The name of the last attempt.
        key: Key,
        /// How many attempts were made.
        attempts: u32,
        /// Why the last one ended.
        #[source]
        source: BlobError,
    },
    /// At least one attempt may have been carried out, or may still be.
    #[error("object `{key}` may have been written, {attempts} attempts")]
    Unknown {
        /// The name of the last attempt.
        key: Key,
        /// How many attempts were made.
        attempts: u32,
        /// Why the last one ended.
        #[source]
        source: BlobError,
    },
}

impl PutError {
    /// Whether an object that we wrote may exist, or may yet appear. `false` is a promise.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Conflict { other_attempts, .. } => *other_attempts,
            Self::DiskFull { .. } | Self::Refused { .. } | Self::NotHappened { .. } => false,
            Self::Unknown { .. } => true,
        }
    }

    /// Whether trying again without a change by a person is of no use.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Refused { .. } => true,
            Self::DiskFull { .. } | Self::NotHappened { .. } | Self::Unknown { .. } => false,
        }
    }
}

/// Why bytes were not read.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// There is no such object.
    #[error("object `{key}` does not exist")]
    NotFound {
        /// The name.
        key: Key,
    },
    /// The object is shorter than the range that was asked for.
    #[error("object `{key}` does not reach byte {end}")]
    OutOfRange {
        /// The name.
        key: Key,
        /// End of the range, exclusive.
        end: u64,
    },
    /// The store refuses for good: credentials, a missing bucket.
    #[error("the store refuses to read `{key}`")]
    Refused {
        /// The name.
        key: Key,
        /// What it said.
        #[source]
        source: BlobError,
    },
    /// The store did not answer as it should before the deadline. Worth trying again.
    #[error("object `{key}` could not be read in {attempts} attempts")]
    Unavailable {
        /// The name.
        key: Key,
        /// How many attempts were made.
        attempts: u32,
        /// Why the last one ended.
        #[source]
        source: BlobError,
    },
}

impl GetError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::OutOfRange { .. } | Self::Refused { .. } => false,
            Self::Unavailable { .. } => true,
        }
    }
}

/// Why an object was not deleted, or may not have been. Deleting is idempotent: try again.
#[derive(Debug, thiserror::Error)]
#[error("object `{key}` may not have been deleted, {attempts} attempts")]
pub struct DeleteError {
    /// The name.
    pub key: Key,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why the last one ended.
    #[source]
    pub source: BlobError,
}

/// Why a listing is not complete.
#[derive(Debug, thiserror::Error)]
#[error("listing of `{prefix}` ended after {attempts} attempts at one page")]
pub struct ListError {
    /// What was listed.
    pub prefix: String,
    /// How many attempts were made at the last page.
    pub attempts: u32,
    /// Why the last one ended.
    #[source]
    pub source: BlobError,
}

impl ListError {
    /// Whether the store has answered, and does not let us in: no other attempt changes that.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.source, BlobError::Refused(_))
    }
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be read.
    #[error("`{url}` is not the URL of a store")]
    BadUrl {
        /// What was given.
        url: String,
        /// Why it cannot be read.
        #[source]
        source: url::ParseError,
    },
    /// No store is reached by such a URL.
    #[error("stores are reached by file, memory, s3, gs or az URLs, not by `{scheme}`")]
    UnknownScheme {
        /// The scheme that was given.
        scheme: String,
    },
    /// The URL lacks its bucket, or names a folder that is no absolute path.
    #[error("`{url}` lacks {missing}")]
    Incomplete {
        /// What was given.
        url: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// The prefix of the URL holds characters or segments that no store takes alike.
    #[error("prefix `{prefix}` has a segment that is not made of letters, digits, `.`, `_` and `-`")]
    BadPrefix {
        /// The prefix.
        prefix: String,
    },
    /// The folder cannot be made or synced.
    #[error("folder {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client library refuses the settings.
    #[error("the settings of the store are not accepted")]
    Settings(#[source] object_store::Error),
}
