//! What callers see of an error: one function from any operation's error to a gRPC status with its details.

use std::error::Error;
use std::time::Duration;

use streamhouse_broker::{AppendError, FetchError, ProducerError, StorageError, TopicError};
use streamhouse_types::NameError;
use streamhouse_types::batch::BatchError;
use streamhouse_types::error_code::ErrorCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every `google.rpc.ErrorInfo`.
pub(crate) const DOMAIN: &str = "streamhouse";
/// How long a caller waits before it repeats what is retryable.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// An error on its way to a caller.
#[derive(Debug)]
pub(crate) struct Fault(Box<Details>);

#[derive(Debug)]
struct Details {
    code: ErrorCode,
    text: String,
    happened: Happened,
    hint: Option<String>,
    field: Option<String>,
    resource: Option<(&'static str, String)>,
    facts: Vec<(&'static str, String)>,
}

/// Whether a write that failed may be there all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    No,
    Maybe,
}

impl Fault {
    /// An error of this code. The text is for people; it did not happen unless said otherwise.
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            text: text.into(),
            happened: Happened::No,
            hint: None,
            field: None,
            resource: None,
            facts: Vec::new(),
        }))
    }

    /// An argument that cannot be used.
    pub(crate) fn argument(field: &str, text: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, text).field(field)
    }

    /// An error of an operation with all its causes.
    pub(crate) fn of(code: ErrorCode, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        Self::new(code, text)
    }

    fn maybe(mut self, happened: Happened) -> Self {
        self.0.happened = happened;
        self
    }

    /// It may be there all the same.
    pub(crate) fn may_have_happened(self) -> Self {
        self.maybe(Happened::Maybe)
    }

    /// What a person can do, better than what the code knows.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Which field of the request is at fault.
    pub(crate) fn field(mut self, field: &str) -> Self {
        self.0.field = Some(field.to_owned());
        self
    }

    /// What the request was about, such as `("topic", name)`.
    pub(crate) fn about(mut self, kind: &'static str, name: impl Into<String>) -> Self {
        self.0.resource = Some((kind, name.into()));
        self
    }

    /// Another fact for programs.
    pub(crate) fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.facts.push((name, value.to_string()));
        self
    }

    /// The code.
    #[cfg(test)]
    pub(crate) fn code(&self) -> ErrorCode {
        self.0.code
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let Details { code, text, happened, hint, field, resource, facts } = *fault.0;
        let word = |yes: bool| if yes { "true" } else { "false" }.to_owned();
        let hint = hint.unwrap_or_else(|| code.hint().to_owned());
        let mut facts: Vec<(String, String)> =
            facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        facts.push(("retryable".to_owned(), word(code.retryable())));
        facts.push(("may_have_happened".to_owned(), word(happened == Happened::Maybe)));
        facts.push(("hint".to_owned(), hint));
        let mut details = ErrorDetails::new();
        details.set_error_info(code.reason(), DOMAIN, facts.into_iter().collect::<Facts>());
        if code.retryable() {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        if let Some(field) = field {
            details.add_bad_request_violation(field, text.clone());
        }
        if let Some((kind, name)) = resource {
            details.set_resource_info(kind, name, "", text.clone());
        }
        Self::with_error_details(Code::from_i32(code.grpc_code()), text, details)
    }
}

/// The map that `tonic-types` asks for.
#[expect(clippy::disallowed_types, reason = "the signature of set_error_info; nothing iterates over it here")]
type Facts = std::collections::HashMap<String, String>;

impl From<AppendError> for Fault {
    fn from(error: AppendError) -> Self {
        let happened = if error.may_have_happened() { Happened::Maybe } else { Happened::No };
        let fault = Self::of(error.code(), &error).maybe(happened);
        match error {
            AppendError::OutOfOrderSequence { expected } => fault.fact("expected_sequence", expected),
            AppendError::PreconditionFailed { actual } => fault.fact("next_offset", actual),
            AppendError::ProducerFenced { current } => fault.fact("current_epoch", current),
            AppendError::TooLarge { limit, .. } => fault.fact("max_batch_bytes", limit),
            _ => fault,
        }
    }
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        let fault = Self::of(error.code(), &error);
        match error {
            FetchError::OutOfRange { log_start, high_watermark, .. } => {
                fault.fact("log_start", log_start).fact("high_watermark", high_watermark)
            }
            _ => fault,
        }
    }
}

impl From<TopicError> for Fault {
    fn from(error: TopicError) -> Self {
        let happened = if error.may_have_happened() { Happened::Maybe } else { Happened::No };
        let fault = Self::of(error.code(), &error).maybe(happened);
        match error {
            TopicError::NotFound { name } => {
                let hint = format!(
                    "make it with `streamhouse topic create {name}`, or see the names with `streamhouse topic list`"
                );
                fault.about("topic", name.as_str()).hint(hint)
            }
            TopicError::Exists { name } => fault.about("topic", name.as_str()),
            TopicError::Setting(_) | TopicError::BeyondNode { .. } => fault.field("settings"),
            _ => fault,
        }
    }
}

impl From<ProducerError> for Fault {
    fn from(error: ProducerError) -> Self {
        Self::of(error.code(), &error)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::of(error.code(), &error)
    }
}

impl From<NameError> for Fault {
    fn from(error: NameError) -> Self {
        Self::of(ErrorCode::InvalidName, &error).field("topic")
    }
}

impl From<BatchError> for Fault {
    fn from(error: BatchError) -> Self {
        Self::of(error.code(), &error).field("record_batch")
    }
}

/// What the gRPC library says of a message that it could not read, told as every other error is; other errors as they
/// are. A message that could not be read was not acted upon.
pub(crate) fn told(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    let text = status.message().trim_start_matches("Error, ");
    match status.code() {
        Code::OutOfRange if text.contains("message length too large") => {
            let hint = "send less in one message: a batch has at most the session's `max_batch_bytes`";
            Fault::new(ErrorCode::BatchTooLarge, text).hint(hint).into()
        }
        Code::Internal if text.contains("decode Protobuf") => Fault::argument("message", text).into(),
        _ => status,
    }
}

/// The part of a status that goes into a `Nack`.
pub(crate) fn nack_status(fault: Fault) -> streamhouse_proto::rpc::Status {
    use prost::Message as _;
    let status = Status::from(fault);
    // The details of a tonic status are an encoded google.rpc.Status already.
    streamhouse_proto::rpc::Status::decode(status.details()).unwrap_or_else(|_| {
        streamhouse_proto::rpc::Status {
            code: i32::from(status.code()),
            message: status.message().to_owned(),
            details: Vec::new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use streamhouse_broker::ProposeError;

    use super::*;

    #[test]
    fn every_error_says_whether_it_happened_and_what_to_do() {
        let status = Status::from(Fault::from(AppendError::CommitUnknown { cause: "test" }));
        let info = status.get_details_error_info().expect("error info");
        assert_eq!(info.domain, DOMAIN);
        assert_eq!(info.reason, ErrorCode::CommitUnknown.reason());
        assert_eq!(info.metadata.get("may_have_happened").map(String::as_str), Some("true"));
        assert_eq!(info.metadata.get("retryable").map(String::as_str), Some("true"));
        assert!(info.metadata.contains_key("hint"));
        assert!(status.get_details_retry_info().is_some());
    }

    #[test]
    fn a_change_that_no_leader_took_names_one_cause() {
        let reason = || "no leader took the command".to_owned();
        let error = TopicError::NotHappened(ProposeError::NotHappened { reason: reason() });
        assert_eq!(Status::from(Fault::from(error)).message(), reason());
    }

    #[test]
    fn an_unknown_topic_names_the_command_that_makes_it() {
        let name = "ordrs".parse().expect("a name");
        let status = Status::from(Fault::from(TopicError::NotFound { name }));
        assert_eq!(status.code(), Code::NotFound);
        let info = status.get_details_error_info().expect("error info");
        assert!(info.metadata["hint"].contains("streamhouse topic create ordrs"));
        assert_eq!(status.get_details_resource_info().expect("resource").resource_name, "ordrs");
    }

    #[test]
    fn what_the_library_refuses_has_details_and_other_errors_stay() {
        let read = |code, text| told(Status::new(code, text));
        let large = read(
            Code::OutOfRange,
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
        );
        assert_eq!(large.code(), Code::InvalidArgument);
        assert_eq!(
            large.get_details_error_info().expect("error info").reason,
            ErrorCode::BatchTooLarge.reason()
        );
        let other = read(Code::Internal, "something else");
        assert_eq!((other.code(), other.message()), (Code::Internal, "something else"));
        let ours = told(Fault::new(ErrorCode::OffsetOutOfRange, "message length too large").into());
        assert_eq!(ours.code(), Code::OutOfRange);
    }

    #[test]
    fn a_nack_carries_the_same_details_as_a_status() {
        let nack = nack_status(Fault::argument("partition", "no such partition"));
        assert_eq!(nack.code, Code::InvalidArgument as i32);
        assert_eq!(nack.message, "no such partition");
        assert_eq!(nack.details.len(), 2);
    }
}
