//! Records out of standard input or a file, read beside the sending.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::failure::{Failure, LocalCode};
use crate::keys::{KeyAndValue, KeySource, LineFormat, read_line};
use crate::lines::LineSplitter;

/// Bytes read at once. What is there is sent: nothing waits for a chunk to be full.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait to be sent.
const CHUNKS_AHEAD: usize = 4;

/// Where lines come from.
pub(super) enum Source {
    Stdin,
    File(File),
}

/// Some records that lay side by side.
pub(super) struct Chunk {
    /// Number of the first one's line, from 1.
    pub(super) first_line: u64,
    pub(super) records: Vec<KeyAndValue>,
    /// Bytes of the input read so far.
    pub(super) position: u64,
}

/// The records of an input, in order.
pub(super) struct Input(mpsc::Receiver<Result<Chunk, Failure>>);

impl Input {
    /// Starts to read, on a thread of its own.
    pub(super) fn read(source: Source, format: LineFormat, keys: KeySource) -> Self {
        let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            let reader = Reader { format, keys, chunks, next_line: 1, position: 0 };
            match source {
                Source::Stdin => reader.run(io::stdin().lock()),
                Source::File(file) => reader.run(file),
            }
        });
        Self(received)
    }

    /// The next chunk; `None` at the end. Nothing comes after a failure. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<Chunk, Failure>> {
        self.0.recv().await
    }
}

struct Reader {
    format: LineFormat,
    keys: KeySource,
    chunks: mpsc::Sender<Result<Chunk, Failure>>,
    next_line: u64,
    position: u64,
}

/// Nobody wants more of the input.
struct Enough;

impl Reader {
    fn run(mut self, mut input: impl Read) {
        // An error here means that the sending side is gone, which has said why.
        let _enough = self.read_all(&mut input);
    }

    fn read_all(&mut self, input: &mut impl Read) -> Result<(), Enough> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        loop {
            let mut buffer = vec![0; CHUNK_BYTES];
            let length = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return self
                        .fail(Failure::new(LocalCode::Io, format!("the input cannot be read: {error}")));
                }
            };
            // Short reads of a pipe keep their own bytes, not a whole chunk's room.
            buffer.truncate(length);
            buffer.shrink_to_fit();
            self.position += u64::try_from(length).unwrap_or(0);
            let pushed = splitter.push(Bytes::from(buffer), &mut lines);
            self.pass_on(lines.drain(..))?;
            if let Err(too_long) = pushed {
                return self.fail(self.bad_line(too_long.to_string()));
            }
        }
        self.pass_on(splitter.finish())
    }

    fn pass_on(&mut self, lines: impl IntoIterator<Item = Bytes>) -> Result<(), Enough> {
        let first_line = self.next_line;
        let mut records = Vec::new();
        let mut failure = None;
        for line in lines {
            match read_line(line, self.format, &self.keys) {
                Ok(record) => records.push(record),
                Err(error) => {
                    failure = Some(self.bad_line(format!("line {}: {error}", self.next_line)));
                    break;
                }
            }
            self.next_line += 1;
        }
        if !records.is_empty() {
            self.send(Ok(Chunk { first_line, records, position: self.position }))?;
        }
        failure.map_or(Ok(()), |failure| self.fail(failure))
    }

    fn bad_line(&self, message: String) -> Failure {
        let before = self.next_line - 1;
        Failure::new(LocalCode::BadLine, message).hint(format!("the {before} lines before it were sent"))
    }

    fn fail(&self, failure: Failure) -> Result<(), Enough> {
        self.send(Err(failure))?;
        Err(Enough)
    }

    fn send(&self, chunk: Result<Chunk, Failure>) -> Result<(), Enough> {
        self.chunks.blocking_send(chunk).map_err(|_| Enough)
    }
}
