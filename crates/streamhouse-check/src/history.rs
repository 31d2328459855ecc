//! Reading a history line by line.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

use crate::checker::Checker;
use crate::event::{Event, Header};
use crate::report::Report;

/// A history that is being read. Holds one line at a time.
#[derive(Debug)]
pub struct History<R> {
    reader: R,
    header: Header,
    line: u64,
    buffer: Vec<u8>,
}

/// Why a history cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The bytes do not come.
    #[error("reading on behind line {line} is not possible")]
    Io {
        /// The last line that was read.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// A line is not one of a history.
    #[error("line {line}: {refusal}")]
    Refused {
        /// The line; the first is 1.
        line: u64,
        /// What is wrong with it.
        refusal: Refusal,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The first line is not a header.
    #[error("this is no history: {reason}")]
    NoHeader {
        /// What stands there instead.
        reason: String,
    },
    /// A version that this program does not read.
    #[error("version {version} of the format; this program reads version {}", Header::VERSION)]
    Version {
        /// The version.
        version: u32,
    },
    /// No end within [`History::LINE_BYTES_MAX`].
    #[error("longer than {} bytes", History::<&[u8]>::LINE_BYTES_MAX)]
    TooLong,
    /// The file ends in the middle of the line.
    #[error("the line is cut short: the recorder did not end in good order, or the file is not whole")]
    CutShort,
    /// Not an event, or one with wrong fields.
    #[error("{reason}, at column {column}")]
    NotAnEvent {
        /// What the parser says.
        reason: String,
        /// Where.
        column: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{what}")]
    BadValue {
        /// Which, and why.
        what: &'static str,
    },
    /// An outcome without an append, or a second one.
    #[error("operation {op} of client {client} is not open")]
    UnknownOp {
        /// The client.
        client: String,
        /// The operation.
        op: u64,
    },
    /// An operation is begun twice.
    #[error("operation {op} of client {client} is open already")]
    RepeatedOp {
        /// The client.
        client: String,
        /// The operation.
        op: u64,
    },
    /// Two records that nobody could tell apart.
    #[error(
        "the value {digest} was appended to {partition} before, on line {line}; all values must differ, else nobody \
         can say whose record is read"
    )]
    RepeatedValue {
        /// The value.
        digest: crate::event::Digest,
        /// The partition.
        partition: String,
        /// Where it was first.
        line: u64,
    },
    /// A sequence number that does not rise.
    #[error("sequence {sequence} of producer {producer} in {partition} does not come after {last}")]
    SequenceBack {
        /// The producer.
        producer: String,
        /// The partition.
        partition: String,
        /// The number on this line.
        sequence: u64,
        /// The one before it.
        last: u64,
    },
    /// The last line counts other than there is.
    #[error("the last line says {said} events, there are {found}")]
    WrongCount {
        /// What it says.
        said: u64,
        /// What there is.
        found: u64,
    },
    /// More than can be numbered.
    #[error("more {what} than this program can number")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

/// The first line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    history: Header,
}

/// The first line of whatever version.
#[derive(Deserialize)]
struct AnyFirstLine {
    history: AnyHeader,
}

#[derive(Deserialize)]
struct AnyHeader {
    version: u32,
}

impl<R: BufRead> History<R> {
    /// Longest line that is read. Memory for a line grows with what is there, never beyond this.
    pub const LINE_BYTES_MAX: u64 = 16 << 20;

    /// Reads the first line.
    ///
    /// # Errors
    /// When it is not the header of a history that can be read here.
    pub fn open(reader: R) -> Result<Self, HistoryError> {
        let mut history = Self { reader, header: Header::default(), line: 0, buffer: Vec::new() };
        if !history.read_line()? {
            return Err(refused(1, Refusal::NoHeader { reason: "it is empty".to_owned() }));
        }
        match serde_json::from_slice::<AnyFirstLine>(&history.buffer) {
            Err(error) => return Err(refused(1, Refusal::NoHeader { reason: reason(&error).0 })),
            Ok(AnyFirstLine { history: AnyHeader { version } }) if version != Header::VERSION => {
                return Err(refused(1, Refusal::Version { version }));
            }
            Ok(_) => {}
        }
        let first: Result<FirstLine, _> = serde_json::from_slice(&history.buffer);
        history.header =
            first.map_err(|error| refused(1, Refusal::NoHeader { reason: reason(&error).0 }))?.history;
        Ok(history)
    }

    /// What holds for the whole history.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The number of the line that was read last; the header is line 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// When the line is not an event. What follows can be read all the same.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, HistoryError> {
        if !self.read_line()? {
            return Ok(None);
        }
        let line = self.line;
        serde_json::from_slice(&self.buffer).map(Some).map_err(|error| {
            let (reason, column) = reason(&error);
            let torn = error.is_eof() && self.buffer.last() != Some(&b'\n');
            refused(line, if torn { Refusal::CutShort } else { Refusal::NotAnEvent { reason, column } })
        })
    }

    /// Judges a whole history.
    ///
    /// # Errors
    /// When it is not a history, with the line and the reason; nothing is said of what comes before it.
    pub fn check(reader: R) -> Result<Report, HistoryError> {
        let mut history = Self::open(reader)?;
        let mut checker = Checker::new(history.header());
        loop {
            let line = history.line + 1;
            let Some(event) = history.next_event()? else { break };
            checker.observe(&event).map_err(|refusal| refused(line, refusal))?;
        }
        Ok(checker.finish())
    }

    /// Puts the next line into the buffer; `false` at the end.
    fn read_line(&mut self) -> Result<bool, HistoryError> {
        let line = self.line;
        self.buffer.clear();
        let mut bounded = (&mut self.reader).take(Self::LINE_BYTES_MAX + 1);
        bounded.read_until(b'\n', &mut self.buffer).map_err(|source| HistoryError::Io { line, source })?;
        if self.buffer.is_empty() {
            return Ok(false);
        }
        self.line += 1;
        if bounded.limit() == 0 {
            return Err(refused(self.line, Refusal::TooLong));
        }
        Ok(true)
    }
}

fn refused(line: u64, refusal: Refusal) -> HistoryError {
    HistoryError::Refused { line, refusal }
}

/// What the parser says, without the line that it counts for itself, and the column.
fn reason(error: &serde_json::Error) -> (String, usize) {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    // The parser speaks of its own types; people see events.
    (text.replacen("unknown variant", "unknown event", 1), error.column())
}
