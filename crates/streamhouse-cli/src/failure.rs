//! What went wrong, for eyes and for scripts.

use std::io::{self, Write};

use serde::Serialize;
use streamhouse_client::{ClientError, StreamHouse};
use streamhouse_doctor::obstacle;
use streamhouse_types::error_code::ErrorCode;

use crate::exit::Exit;
use crate::output::{Format, Paint, SCHEMA};

/// Why a command ends before it is done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something failed.
    Failed(Box<Failure>),
    /// What there was to say has been said; this is how the process ends.
    Said(Exit),
    /// Whoever read the output went away: nothing is wrong.
    ClosedPipe,
}

/// A failure with all that helps to get past it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// A name of the catalogue, such as `TOPIC_NOT_FOUND`; `streamhouse explain` knows it.
    pub(crate) code: String,
    /// What happened, with the names of the things.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The name that was probably meant.
    pub(crate) did_you_mean: Option<String>,
    /// Whether the same command may work later.
    pub(crate) retryable: bool,
    /// Whether a write may have happened all the same.
    pub(crate) may_have_happened: bool,
    /// How the process ends.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A failure of the command itself: nothing was done, and the same command fails again.
    pub(crate) fn new(code: LocalCode, message: impl Into<String>) -> Self {
        Self {
            code: code.name().to_owned(),
            message: message.into(),
            hint: None,
            did_you_mean: None,
            retryable: false,
            may_have_happened: false,
            exit: code.exit(),
        }
    }

    /// A failure of the node's own side, by its code of the catalogue.
    pub(crate) fn of_code(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.reason().to_owned(),
            message: message.into(),
            hint: Some(code.hint().to_owned()),
            did_you_mean: None,
            retryable: code.retryable(),
            may_have_happened: false,
            exit: Exit::from_code(code.exit_code()),
        }
    }

    /// A value or a combination of arguments that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(LocalCode::Usage, message)
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the client says.
    pub(crate) fn of_client(error: &impl ClientError) -> Self {
        let (code, exit) = match error.code() {
            Some(code) => (code.reason().to_owned(), Exit::from_code(code.exit_code())),
            None if error.is_retryable() => (ErrorCode::Unreachable.reason().to_owned(), Exit::Unreachable),
            None => (LocalCode::Failed.name().to_owned(), LocalCode::Failed.exit()),
        };
        Self {
            code,
            message: with_causes(error),
            hint: error.hint().map(str::to_owned),
            did_you_mean: None,
            retryable: error.is_retryable(),
            may_have_happened: error.may_have_happened(),
            exit,
        }
    }

    /// Adds what the cluster itself says stands in the way, where trying again may work and somebody answers.
    pub(crate) async fn explained(mut self, house: &StreamHouse) -> Self {
        if self.exit == Exit::Unreachable
            && self.code != ErrorCode::Unreachable.reason()
            && let Some(obstacle) = obstacle(house).await
        {
            self.message = format!("{}; {}", self.message, obstacle.what);
            self.hint = Some(obstacle.fix);
        }
        self
    }

    /// Suggests the known name that looks most like `given`.
    pub(crate) fn suggest<'a>(mut self, given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let near = known
            .into_iter()
            .map(|name| (strsim::jaro_winkler(given, name), name))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        self.did_you_mean = near.map(|(_, name)| name.to_owned());
        self
    }

    /// Writes it to `to`, in the form that was asked for.
    pub(crate) fn render(&self, to: &mut impl Write, format: Format, paint: Paint) -> io::Result<()> {
        if format == Format::Json {
            let document = ErrorDocument {
                schema: SCHEMA,
                error: ErrorBody {
                    code: &self.code,
                    message: &self.message,
                    hint: self.hint.as_deref(),
                    did_you_mean: self.did_you_mean.as_deref(),
                    retryable: self.retryable,
                    may_have_happened: self.may_have_happened,
                    side_effects: self.may_have_happened,
                    exit_code: self.exit.code(),
                },
            };
            serde_json::to_writer(&mut *to, &document)?;
            return writeln!(to);
        }
        let (bold, plain) = if paint == Paint::Colored { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        writeln!(to, "{bold}error[{}]{plain}: {}", self.code, self.message)?;
        if let Some(name) = &self.did_you_mean {
            writeln!(to, "  did you mean: {name}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(to, "  hint: {hint}")?;
        }
        if self.may_have_happened {
            writeln!(to, "  note: the write may have happened all the same")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    schema: &'static str,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
    did_you_mean: Option<&'a str>,
    retryable: bool,
    may_have_happened: bool,
    side_effects: bool,
    exit_code: u8,
}

/// The text of an error and of what caused it, each once.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// Errors of writing to standard output; everything else maps its errors by hand.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Failure::new(LocalCode::Io, format!("the output cannot be written: {error}")).into()
    }
}

/// Codes of failures that happen on this side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalCode {
    /// Wrong arguments.
    Usage,
    /// Something destructive without consent.
    ConsentMissing,
    /// A line of the input cannot be made a record.
    BadLine,
    /// A file is no history of a run.
    BadHistory,
    /// A file or the output failed.
    Io,
    /// What came back is not what was written.
    IntegrityMismatch,
    /// Nothing that has a code of its own.
    Failed,
}

impl LocalCode {
    /// All of them, for `explain` and the reference.
    pub(crate) const ALL: [Self; 7] = [
        Self::Usage,
        Self::ConsentMissing,
        Self::BadLine,
        Self::BadHistory,
        Self::Io,
        Self::IntegrityMismatch,
        Self::Failed,
    ];

    /// The name that is printed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Usage => "USAGE",
            Self::ConsentMissing => "CONSENT_MISSING",
            Self::BadLine => "BAD_LINE",
            Self::BadHistory => "BAD_HISTORY",
            Self::Io => "IO",
            Self::IntegrityMismatch => "INTEGRITY_MISMATCH",
            Self::Failed => "FAILED",
        }
    }

    /// How the process ends.
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::Usage | Self::ConsentMissing | Self::BadLine | Self::BadHistory => Exit::Usage,
            Self::Io | Self::Failed => Exit::Unclassified,
            Self::IntegrityMismatch => Exit::Differs,
        }
    }

    /// What it means, in a sentence.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Usage => {
                "An argument is missing, unknown, or has a value that it cannot have. Nothing was done."
            }
            Self::ConsentMissing => {
                "What was asked for destroys something, or is less safe, and was not confirmed. Nothing was done."
            }
            Self::BadLine => "A line of the input cannot be made a record.",
            Self::BadHistory => "A file is not the history of a run, or not a whole one. Nothing was judged.",
            Self::Io => "A file or the output cannot be read or written.",
            Self::IntegrityMismatch => "What was read back is not what was written.",
            Self::Failed => "Something that has no code of its own.",
        }
    }

    /// What to do about it.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Usage => "read `streamhouse COMMAND --help`; every command shows an example",
            Self::ConsentMissing => {
                "give --yes to say that it is meant; without a terminal nobody can be asked"
            }
            Self::BadLine => {
                "the message names the line; the lines before it were sent. Choose --format and --key-field to match the input"
            }
            Self::BadHistory => {
                "the message names the line; docs/formats/history.md describes the lines and their rules"
            }
            Self::Io => "look at the path, its rights and the free space",
            Self::IntegrityMismatch => {
                "records were lost, repeated, reordered or changed: keep the data directory and run `streamhouse storage verify`"
            }
            Self::Failed => "the message says what is known; a bug is possible",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(failure: &Failure, format: Format) -> String {
        let mut out = Vec::new();
        failure.render(&mut out, format, Paint::Plain).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn missing_topic() -> Failure {
        Failure {
            code: "TOPIC_NOT_FOUND".to_owned(),
            message: "there is no topic `ordrs`".to_owned(),
            hint: Some("streamhouse topic create ordrs".to_owned()),
            did_you_mean: None,
            retryable: false,
            may_have_happened: false,
            exit: Exit::NotFound,
        }
        .suggest("ordrs", ["billing", "orders", "zebra"])
    }

    #[test]
    fn people_read_code_message_suggestion_and_hint() {
        assert_eq!(
            rendered(&missing_topic(), Format::Table),
            "error[TOPIC_NOT_FOUND]: there is no topic `ordrs`\n  did you mean: orders\n  hint: streamhouse topic create ordrs\n"
        );
    }

    #[test]
    fn scripts_read_one_json_document_on_one_line() {
        let text = rendered(&missing_topic(), Format::Json);
        assert_eq!(text.lines().count(), 1);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["schema"], "streamhouse.cli/v1");
        let error = &document["error"];
        assert_eq!(error["code"], "TOPIC_NOT_FOUND");
        assert_eq!(error["did_you_mean"], "orders");
        assert_eq!(error["retryable"], false);
        assert_eq!(error["may_have_happened"], false);
        assert_eq!(error["exit_code"], 3);
    }

    #[test]
    fn an_uncertain_write_is_never_called_a_plain_failure() {
        let mut failure = missing_topic();
        failure.may_have_happened = true;
        assert!(rendered(&failure, Format::Table).contains("may have happened"));
    }

    #[test]
    fn a_name_that_resembles_nothing_gets_no_suggestion() {
        assert_eq!(missing_topic().suggest("qqq", ["orders"]).did_you_mean, None);
    }
}
