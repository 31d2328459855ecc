//! What went wrong, and what the caller may do about it.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_proto::rpc;
use streamhouse_types::batch::BatchError;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionIndex};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The domain of StreamHouse's error details.
const DOMAIN: &str = "streamhouse";

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

/// The server's *no*, or the connection's.
#[derive(Debug, Clone)]
pub struct Rejection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    grpc: Code,
    code: Option<ErrorCode>,
    reason: String,
    message: String,
    hint: Option<String>,
    retryable: bool,
    may_have_happened: bool,
    details: BTreeMap<String, String>,
}

impl Rejection {
    /// Reads the details of a gRPC status. A status without our details comes from the connection, or from
    /// something between us and the server: then a write may have happened, unless no connection was made.
    pub(crate) fn from_status(status: &Status) -> Self {
        let details = status.check_error_details().unwrap_or_default();
        match details.error_info().filter(|info| info.domain == DOMAIN) {
            Some(info) => {
                let metadata =
                    info.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                Self::from_details(status.code(), status.message(), &info.reason, metadata)
            }
            None => Self::from_connection(status),
        }
    }

    /// Reads the status inside a `Nack`.
    pub(crate) fn from_rpc(status: &rpc::Status) -> Self {
        use tonic_types::pb::ErrorInfo;
        let info = status.details.iter().find_map(|any| {
            let ours = any.type_url.ends_with("google.rpc.ErrorInfo");
            ours.then(|| <ErrorInfo as prost::Message>::decode(any.value.as_slice()).ok()).flatten()
        });
        let info = info.unwrap_or_default();
        let metadata = info.metadata.into_iter().collect();
        Self::from_details(Code::from_i32(status.code), &status.message, &info.reason, metadata)
    }

    fn from_details(grpc: Code, message: &str, reason: &str, mut details: BTreeMap<String, String>) -> Self {
        let code = reason.parse::<ErrorCode>().ok();
        let retryable = match details.remove("retryable") {
            Some(text) => text == "true",
            None => code.map_or(grpc == Code::Unavailable, ErrorCode::retryable),
        };
        // A code that this client does not know has to be taken for one that may have happened.
        let may_have_happened = match details.remove("may_have_happened") {
            Some(text) => text != "false",
            None => code.is_none_or(ErrorCode::may_have_happened),
        };
        let hint = details.remove("hint").or_else(|| code.map(|code| code.hint().to_owned()));
        Self(Arc::new(Inner {
            grpc,
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
            hint: hint.filter(|hint| !hint.is_empty()),
            retryable,
            may_have_happened,
            details,
        }))
    }

    fn from_connection(status: &Status) -> Self {
        let never_connected = causes(status).any(|cause| cause.is::<tonic::ConnectError>());
        let from_transport = status.source().is_some();
        let retryable = from_transport
            || matches!(
                status.code(),
                Code::Unavailable | Code::Cancelled | Code::Aborted | Code::ResourceExhausted
            );
        let mut message = status.message().to_owned();
        if let Some(cause) =
            causes(status).last().map(ToString::to_string).filter(|cause| !message.contains(cause.as_str()))
        {
            message = format!("{message}: {cause}");
        }
        if message.is_empty() {
            message = status.code().to_string();
        }
        let code = match status.code() {
            Code::Cancelled => Some(ErrorCode::Cancelled),
            _ if retryable => Some(ErrorCode::Unreachable),
            _ => None,
        };
        Self(Arc::new(Inner {
            grpc: status.code(),
            code,
            reason: code.map_or("", ErrorCode::reason).to_owned(),
            message,
            hint: code.map(|code| code.hint().to_owned()),
            retryable,
            may_have_happened: !never_connected,
            details: BTreeMap::new(),
        }))
    }

    /// Whether it is the word of something else than a node, or no word at all after a connection was made.
    pub(crate) fn is_foreign(status: &Status) -> bool {
        let details = status.check_error_details().unwrap_or_default();
        let ours = details.error_info().is_some_and(|info| info.domain == DOMAIN);
        let broke =
            status.source().is_some() && !causes(status).any(|cause| cause.is::<tonic::ConnectError>());
        !ours && (broke || matches!(status.code(), Code::Unimplemented | Code::Internal | Code::Unknown))
    }

    /// A connection that ended without a word.
    pub(crate) fn connection_lost(what: &str) -> Self {
        Self::from_connection(&Status::unavailable(what))
    }

    /// A node that gave no answer in time, over a connection that works: nobody knows what came of the request.
    pub(crate) fn silent() -> Self {
        let reason = ErrorCode::CommitUnknown.reason();
        Self::from_details(Code::DeadlineExceeded, "the node gives no answer", reason, BTreeMap::new())
    }

    /// A node that took a batch and said nothing more of it.
    pub(crate) fn unacknowledged() -> Self {
        let what = "the node has not said that it is stored, as when its object store does not answer";
        let reason = ErrorCode::CommitUnknown.reason();
        Self::from_details(Code::DeadlineExceeded, what, reason, BTreeMap::new())
    }

    /// The gRPC code.
    #[must_use]
    pub fn grpc_code(&self) -> Code {
        self.0.grpc
    }

    /// The code of the catalogue; `None` when it did not come from a server, or from a newer one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// The code's name as the server sent it, such as `TOPIC_NOT_FOUND`; empty when the connection failed.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a person could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may work later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether what was asked for may have happened all the same.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.0.may_have_happened
    }

    /// Whether there is no connection, or it ended without a word of the server.
    pub(crate) fn is_lost_connection(&self) -> bool {
        self.0.code == Some(ErrorCode::Unreachable)
    }

    /// Whether another node may do better.
    pub(crate) fn is_of_the_node(&self) -> bool {
        let everywhere = matches!(
            self.0.code,
            Some(
                ErrorCode::Overloaded
                    | ErrorCode::CorruptBatch
                    | ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorLoading
                    | ErrorCode::CoordinatorUnavailable
            )
        );
        self.0.retryable && !everywhere
    }

    /// Further facts, such as the topic or the limit.
    #[must_use]
    pub fn details(&self) -> &BTreeMap<String, String> {
        &self.0.details
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Rejection {}

/// The causes of an error, from the nearest to the deepest.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |error| (**error).source())
}

/// The last refusal says more than that time ran out.
fn timeout_code(last: Option<&Rejection>, plain: ErrorCode) -> ErrorCode {
    last.and_then(Rejection::code).unwrap_or(plain)
}

impl CallError {
    fn plain_timeout(&self) -> ErrorCode {
        if ClientError::may_have_happened(self) { ErrorCode::CommitUnknown } else { ErrorCode::TimedOut }
    }
}

impl SendError {
    fn plain_timeout(&self) -> ErrorCode {
        if ClientError::may_have_happened(self) { ErrorCode::CommitUnknown } else { ErrorCode::TimedOut }
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
    #[error("what answers at {address} is no gRPC listener of StreamHouse: {cause}")]
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
                "name the gRPC address of a node, whose port is 9094 by default: not that for Kafka, for metrics or for other nodes",
            ),
        }
    }
}

impl ClientError for CallError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected(rejection) => rejection.code(),
            Self::TimedOut { last, .. } => Some(timeout_code(last.as_ref(), self.plain_timeout())),
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
            Self::TimedOut { last, .. } => last.as_ref().and_then(Rejection::hint),
            Self::BadAnswer { .. } => Some("are client and server of the same version?"),
        }
    }
}

impl ClientError for SendError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected(rejected) => rejected.rejection.code(),
            Self::TimedOut { last, .. } => Some(timeout_code(last.as_ref(), self.plain_timeout())),
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
            Self::TimedOut { last, .. } => last.as_ref().and_then(Rejection::hint),
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
            Self::TimedOut { last, .. } => Some(timeout_code(last.as_ref(), ErrorCode::TimedOut)),
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
            Self::TimedOut { last, .. } => last.as_ref().and_then(Rejection::hint),
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
    fn of_a_silent_node_nobody_knows_what_it_did_and_its_connection_is_kept() {
        let silent = Rejection::silent();
        assert!(silent.may_have_happened() && silent.is_retryable() && silent.is_of_the_node());
        assert!(!silent.is_lost_connection());
    }
}
