//! The *no* of a server or of a connection, and what it means.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use streamhouse_proto::rpc;
use streamhouse_types::error_code::ErrorCode;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The domain of StreamHouse's error details.
const DOMAIN: &str = "streamhouse";

/// The server's *no*, or the connection's.
#[derive(Debug, Clone)]
pub struct Rejection(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    grpc: Code,
    code: Option<ErrorCode>,
    reason: String,
    message: String,
    hint: Option<String>,
    retryable: bool,
    may_have_happened: bool,
    details: BTreeMap<String, String>,
    /// Whether a node said it.
    said: bool,
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
            said: true,
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
            said: false,
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
        let code = ErrorCode::CommitUnknown;
        Self(Arc::new(Inner {
            grpc: Code::DeadlineExceeded,
            code: Some(code),
            reason: code.reason().to_owned(),
            message: "the node gives no answer".to_owned(),
            hint: Some(code.hint().to_owned()),
            retryable: true,
            may_have_happened: true,
            details: BTreeMap::new(),
            said: false,
        }))
    }

    /// A node that took a batch and said nothing more of it.
    pub(crate) fn unacknowledged() -> Self {
        let what = "the node has not said that it is stored, as when its object store does not answer";
        let reason = ErrorCode::CommitUnknown.reason();
        Self::from_details(Code::DeadlineExceeded, what, reason, BTreeMap::new())
    }

    /// This refusal of what changes nothing: then nothing has happened, whatever became of the call.
    pub(crate) fn of_a_read(self) -> Self {
        if !self.0.may_have_happened {
            return self;
        }
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.may_have_happened = false;
        if inner.code == Some(ErrorCode::CommitUnknown) {
            let code = ErrorCode::TimedOut;
            inner.code = Some(code);
            inner.reason = code.reason().to_owned();
            inner.hint = Some(code.hint().to_owned());
        }
        Self(Arc::new(inner))
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

    /// Of two refusals the one that tells more of why nothing works: the word of a node says more than that another one
    /// cannot be reached or is silent; otherwise the newer one.
    pub(crate) fn more_telling(before: Option<Self>, newer: Self) -> Self {
        let is_word = |rejection: &Self| rejection.0.said;
        match before {
            Some(before) if is_word(&before) && !is_word(&newer) => before,
            _ => newer,
        }
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

#[cfg(test)]
impl Rejection {
    /// What a node says with this code.
    pub(crate) fn of_code(code: ErrorCode) -> Self {
        Self::from_details(Code::Unavailable, "no", code.reason(), BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_node_tells_more_than_that_another_is_away() {
        let word = || Rejection::of_code(ErrorCode::MetadataUnavailable);
        let away = || Rejection::connection_lost("refused");
        for (before, newer) in [(word(), away()), (away(), word()), (word(), Rejection::silent())] {
            let kept = Rejection::more_telling(Some(before), newer);
            assert_eq!(kept.code(), Some(ErrorCode::MetadataUnavailable));
        }
        let newer = Rejection::more_telling(Some(word()), Rejection::of_code(ErrorCode::Overloaded));
        assert_eq!(newer.code(), Some(ErrorCode::Overloaded));
    }

    #[test]
    fn of_a_silent_node_nobody_knows_what_it_did_and_its_connection_is_kept() {
        let silent = Rejection::silent();
        assert!(silent.may_have_happened() && silent.is_retryable() && silent.is_of_the_node());
        assert!(!silent.is_lost_connection());
    }
}
