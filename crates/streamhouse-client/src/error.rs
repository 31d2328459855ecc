//! What went wrong, and what the caller may do about it.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_types::batch::BatchError;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionIndex};

use crate::rejection::Rejection;

/// What every error of this crate can tell.
pub trait ClientError: StdError + Send + Sync + 'static {
    /// The code of the catalogue, where the server gave one or where there is one for it.
    fn code(&self) -> Option<ErrorCode>;

    /// Whether the same call may work later, unchanged.
    fn is_retryable(&self) -> bool;

    /// Whether the write may have happened although it failed. Always false for reads.
    fn may_have_happened(&self) -> bool;

    /// What a person could do about it.
    fn hint(&self) -> Option<&str>;
}

/// What a write is told that ran out of time.
struct TimedOut<'a> {
    last: Option<&'a Rejection>,
    may_have_happened: bool,
}

impl<'a> TimedOut<'a> {
    /// The last refusal, which says more than that time ran out: unless it says that nothing happened, while one of the
    /// tries may have, or that something may have of what changes nothing.
    fn telling(&self) -> Option<(ErrorCode, &'a Rejection)> {
        let last = self.last?;
        let code = last.code()?;
        let fits = match self.may_have_happened {
            true => code.may_have_happened() && last.may_have_happened(),
            false => code != ErrorCode::CommitUnknown,
        };
        fits.then_some((code, last))
    }

    fn code(&self) -> ErrorCode {
        let plain = if self.may_have_happened { ErrorCode::CommitUnknown } else { ErrorCode::TimedOut };
        self.telling().map_or(plain, |(code, _)| code)
    }

    fn hint(&self) -> Option<&'a str> {
        self.telling().map_or(Some(self.code().hint()), |(_, last)| last.hint())
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not `host:port`, nor `streamhouse://host:port`.
    #[error("`{address}` is not an address: write `host:port`")]
    InvalidAddress {
        /// What was given.
        address: String,
    },
    /// Nobody answers there.
    #[error("no server answers at {address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the connection said.
        cause: Rejection,
    },
    /// Somebody answers there, who is no node, or on another of its listeners.
    #[error("what answers at {address} is no gRPC listener of a StreamHouse node that runs: {cause}")]
    Foreign {
        /// Where.
        address: String,
        /// What came back.
        cause: Rejection,
    },
}

/// Why a single call failed: administration, looking up offsets, a unary append or fetch, opening a session.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server refused it, or the connection failed.
    #[error(transparent)]
    Rejected(Rejection),
    /// No answer in time, retries included.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// The newest refusal, if there was one.
        #[source]
        last: Option<Rejection>,
        /// Whether a write may have happened.
        may_have_happened: bool,
    },
    /// The server's answer makes no sense.
    #[error("the server's answer is malformed: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The record does not fit into a batch. Did not happen.
    #[error("record of {actual} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes of the encoded record, about.
        actual: u64,
        /// The largest batch the topic takes.
        limit: u64,
    },
    /// The record names a partition that does not exist. Did not happen.
    #[error("the topic has {partitions} partitions, there is no partition {partition}")]
    NoSuchPartition {
        /// What was asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// The record breaks a rule of the format. Did not happen.
    #[error("the record cannot be stored")]
    Malformed {
        /// The rule.
        #[source]
        source: Arc<BatchError>,
    },
    /// The producer is closed. Did not happen.
    #[error("the producer is closed")]
    Closed,
    /// The server refused the batch, or the connection was lost and may not be tried again.
    #[error(transparent)]
    Rejected(Rejected),
    /// Not acknowledged within the delivery timeout.
    #[error("{} within {after:?}", if *may_have_happened { "not acknowledged" } else { "not written" })]
    TimedOut {
        /// The delivery timeout.
        after: Duration,
        /// The newest refusal, if there was one.
        #[source]
        last: Option<Rejection>,
        /// Whether the batch was ever sent.
        may_have_happened: bool,
    },
    /// The producer stopped before the batch was acknowledged, for instance with its runtime.
    #[error("the producer stopped before an acknowledgement came")]
    Abandoned {
        /// Whether the batch was ever sent.
        may_have_happened: bool,
    },
}

/// A refused batch: the refusal, and what earlier tries mean for it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{rejection}")]
pub struct Rejected {
    /// What the server said last.
    pub rejection: Rejection,
    /// True also when an earlier try of the batch got no answer.
    pub may_have_happened: bool,
}

/// Why a reader stops.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The server refused it, or the connection failed for good.
    #[error(transparent)]
    Rejected(Rejection),
    /// The server could not be reached for too long.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// The newest failure.
        #[source]
        last: Option<Rejection>,
    },
    /// Bytes that are no record batch arrived.
    #[error("partition {partition}, offset {offset}: the batch is damaged")]
    Corrupt {
        /// The partition.
        partition: PartitionIndex,
        /// Where the reader stood.
        offset: Offset,
        /// What is wrong with it.
        #[source]
        source: Arc<BatchError>,
    },
    /// Records are missing that were not trimmed.
    #[error("partition {partition}: records {expected}..{found} are missing")]
    Gap {
        /// The partition.
        partition: PartitionIndex,
        /// The next offset.
        expected: Offset,
        /// What came instead.
        found: Offset,
    },
    /// The server's answer makes no sense.
    #[error("the server's answer is malformed: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Any error of this crate, for callers that treat them alike.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A single call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A record was not acknowledged.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A reader stopped.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<CallError> for ReadError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(rejection) => Self::Rejected(rejection),
            CallError::TimedOut { after, last, .. } => Self::TimedOut { after, last },
            CallError::BadAnswer { what } => Self::BadAnswer { what },
        }
    }
}

impl ClientError for ConnectError {
    fn code(&self) -> Option<ErrorCode> {
        Some(match self {
            Self::InvalidAddress { .. } => ErrorCode::InvalidArgument,
            Self::Unreachable { .. } | Self::Foreign { .. } => ErrorCode::Unreachable,
        })
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Foreign { .. })
    }

    fn may_have_happened(&self) -> bool {
        false
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::InvalidAddress { .. } => Some("the default is 127.0.0.1:9094"),
            Self::Unreachable { .. } => {
                Some("start one with `streamhouse dev`, or name another with --server")
            }
            Self::Foreign { .. } => Some(
                "name the gRPC address of a node, whose port is 9094 by default: not that for Kafka, for metrics or for other nodes; behind a proxy, see that the node runs",
            ),
        }
    }
}

impl ClientError for CallError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::TimedOut { last, may_have_happened, .. } => {
                let (last, may_have_happened) = (last.as_ref(), *may_have_happened);
                Some(TimedOut { last, may_have_happened }.code())
            }
            Self::BadAnswer { .. } => Some(ErrorCode::Internal),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected(rejection) => rejection.is_retryable(),
            Self::TimedOut { .. } => true,
            Self::BadAnswer { .. } => false,
        }
    }

    fn may_have_happened(&self) -> bool {
        match self {
            Self::Rejected(rejection) => rejection.may_have_happened(),
            Self::TimedOut { may_have_happened, .. } => *may_have_happened,
            Self::BadAnswer { .. } => true,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => rejection.hint(),
            Self::TimedOut { last, may_have_happened, .. } => {
                let (last, may_have_happened) = (last.as_ref(), *may_have_happened);
                TimedOut { last, may_have_happened }.hint()
            }
            Self::BadAnswer { .. } => Some("are client and server of the same version?"),
        }
    }
}

impl ClientError for SendError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected(rejected) => rejected.rejection.code(),
            Self::TimedOut { last, may_have_happened, .. } => {
                let (last, may_have_happened) = (last.as_ref(), *may_have_happened);
                Some(TimedOut { last, may_have_happened }.code())
            }
            Self::TooLarge { .. } => Some(ErrorCode::BatchTooLarge),
            Self::NoSuchPartition { .. } => Some(ErrorCode::PartitionNotFound),
            Self::Malformed { .. } => Some(ErrorCode::InvalidBatch),
            Self::Closed | Self::Abandoned { .. } => None,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected(rejected) => rejected.rejection.is_retryable(),
            Self::TimedOut { .. } | Self::Abandoned { .. } => true,
            Self::TooLarge { .. } | Self::NoSuchPartition { .. } | Self::Malformed { .. } | Self::Closed => {
                false
            }
        }
    }

    fn may_have_happened(&self) -> bool {
        match self {
            Self::Rejected(rejected) => rejected.may_have_happened,
            Self::TimedOut { may_have_happened, .. } | Self::Abandoned { may_have_happened } => {
                *may_have_happened
            }
            Self::TooLarge { .. } | Self::NoSuchPartition { .. } | Self::Malformed { .. } | Self::Closed => {
                false
            }
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejected) => rejected.rejection.hint(),
            Self::TimedOut { last, may_have_happened, .. } => {
                let (last, may_have_happened) = (last.as_ref(), *may_have_happened);
                TimedOut { last, may_have_happened }.hint()
            }
            Self::TooLarge { .. } => Some("raise the topic's `max.message.bytes`, or split the record"),
            Self::NoSuchPartition { .. } => {
                Some("partitions count from 0; `streamhouse topic describe` lists them")
            }
            Self::Malformed { .. } | Self::Closed | Self::Abandoned { .. } => None,
        }
    }
}

impl ClientError for ReadError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::TimedOut { last, .. } => {
                Some(TimedOut { last: last.as_ref(), may_have_happened: false }.code())
            }
            Self::Corrupt { .. } | Self::Gap { .. } => Some(ErrorCode::StorageCorrupt),
            Self::BadAnswer { .. } => Some(ErrorCode::Internal),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected(rejection) => rejection.is_retryable(),
            Self::TimedOut { .. } => true,
            Self::Corrupt { .. } | Self::Gap { .. } | Self::BadAnswer { .. } => false,
        }
    }

    fn may_have_happened(&self) -> bool {
        false
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => rejection.hint(),
            Self::TimedOut { last, .. } => TimedOut { last: last.as_ref(), may_have_happened: false }.hint(),
            Self::Corrupt { .. } | Self::Gap { .. } => {
                Some("`streamhouse storage verify` checks the stored objects")
            }
            Self::BadAnswer { .. } => Some("are client and server of the same version?"),
        }
    }
}

impl Error {
    fn inner(&self) -> &dyn ClientError {
        match self {
            Self::Connect(error) => error,
            Self::Call(error) => error,
            Self::Send(error) => error,
            Self::Read(error) => error,
        }
    }
}

impl ClientError for Error {
    fn code(&self) -> Option<ErrorCode> {
        self.inner().code()
    }

    fn is_retryable(&self) -> bool {
        self.inner().is_retryable()
    }

    fn may_have_happened(&self) -> bool {
        self.inner().may_have_happened()
    }

    fn hint(&self) -> Option<&str> {
        self.inner().hint()
    }
}

/// The same methods without the trait in scope.
macro_rules! inherent {
    ($($error:ty),*) => {$(
        impl $error {
            /// The code of the catalogue, where there is one.
            #[must_use]
            pub fn code(&self) -> Option<ErrorCode> {
                ClientError::code(self)
            }

            /// Whether the same call may work later, unchanged.
            #[must_use]
            pub fn is_retryable(&self) -> bool {
                ClientError::is_retryable(self)
            }

            /// Whether the write may have happened although it failed.
            #[must_use]
            pub fn may_have_happened(&self) -> bool {
                ClientError::may_have_happened(self)
            }

            /// What a person could do about it.
            #[must_use]
            pub fn hint(&self) -> Option<&str> {
                ClientError::hint(self)
            }
        }
    )*};
}

inherent!(ConnectError, CallError, SendError, ReadError, Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_says_that_nothing_happened_is_not_told_of_a_write_that_may_have() {
        let told = |code, may_have_happened| {
            let last = Some(Rejection::of_code(code));
            let error = CallError::TimedOut { after: Duration::ZERO, last, may_have_happened };
            error.code().expect("there is one")
        };
        assert_eq!(told(ErrorCode::MetadataUnavailable, false), ErrorCode::MetadataUnavailable);
        assert_eq!(told(ErrorCode::MetadataUnavailable, true), ErrorCode::CommitUnknown);
        assert_eq!(told(ErrorCode::Unreachable, true), ErrorCode::Unreachable);
    }

    #[test]
    fn what_changes_nothing_is_never_told_as_what_may_have_happened() {
        for last in [None, Some(Rejection::silent()), Some(Rejection::silent().of_a_read())] {
            let error = ReadError::TimedOut { after: Duration::ZERO, last: last.clone() };
            assert_eq!(error.code(), Some(ErrorCode::TimedOut));
            assert_ne!(error.hint(), Some(ErrorCode::CommitUnknown.hint()));
            let error = CallError::TimedOut { after: Duration::ZERO, last, may_have_happened: false };
            assert_eq!(error.code(), Some(ErrorCode::TimedOut));
        }
        let lost = Rejection::connection_lost("it broke").of_a_read();
        assert!(!lost.may_have_happened() && lost.is_lost_connection());
    }
}
