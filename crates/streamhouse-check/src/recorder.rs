//! Writing a history while it happens.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use streamhouse_types::{LogIndex, NodeId, Offset};

use crate::event::{Acked, Append, Digest, End, Event, Failed, Happened, Header, Micros, OpId};

/// Writes what many threads see into one history. Clones share it.
///
/// The order of the lines is the order of the calls: call [`append`](Self::append) before anything is sent and the
/// others after the answer is there, and no line stands before one that caused it.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    client: Arc<str>,
}

struct Shared {
    clock: Box<dyn Fn() -> Micros + Send + Sync>,
    next_op: AtomicU64,
    sink: Mutex<Sink>,
}

struct Sink {
    /// `None` once the last line is written.
    to: Option<Box<dyn Write + Send>>,
    events: u64,
    failure: Option<io::Error>,
    /// The line that is being written; its memory is used again.
    buffer: Vec<u8>,
}

/// Records that are about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// Who sends; a producer that starts over under a new id is a new one.
    pub producer: &'a str,
    /// Whether repeats are recognised.
    pub idempotent: bool,
    /// Where to, such as `orders/3`.
    pub partition: &'a str,
    /// Number of the first record in what this producer sends to this partition.
    pub sequence: u64,
    /// The values, at least one. All values of a partition must differ.
    pub values: &'a [Digest],
}

/// An append that has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Offset of the first record.
    pub offset: Offset,
    /// The read token of the answer.
    pub token: Option<LogIndex>,
    /// Who answered.
    pub node: Option<NodeId>,
    /// It was sent more than once. Matters for producers that are not idempotent.
    pub retried: bool,
}

impl Acknowledged {
    /// At this offset, sent once; neither token nor node are known.
    #[must_use]
    pub const fn at(offset: u64) -> Self {
        Self { offset: Offset::new(offset), token: None, node: None, retried: false }
    }
}

impl Recorder {
    /// Begins a history: writes its first line. `clock` gives the time for all lines, from any beginning.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(
        mut to: impl Write + Send + 'static,
        header: &Header,
        clock: impl Fn() -> Micros + Send + Sync + 'static,
    ) -> io::Result<Self> {
        #[derive(Serialize)]
        struct FirstLine<'a> {
            history: &'a Header,
        }
        let mut buffer = serde_json::to_vec(&FirstLine { history: header })?;
        buffer.push(b'\n');
        to.write_all(&buffer)?;
        let sink = Mutex::new(Sink { to: Some(Box::new(to)), events: 0, failure: None, buffer });
        let shared = Arc::new(Shared { clock: Box::new(clock), next_op: AtomicU64::new(0), sink });
        Ok(Self { shared, client: "client".into() })
    }

    /// Begins a history in a file, which is replaced if it is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn to_file(
        path: &Path,
        header: &Header,
        clock: impl Fn() -> Micros + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::new(BufWriter::with_capacity(256 << 10, File::create(path)?), header, clock)
    }

    /// The same history, written to under another client's name.
    #[must_use]
    pub fn client(&self, name: &str) -> Self {
        Self { shared: self.shared.clone(), client: name.into() }
    }

    /// The time, for events that the caller makes.
    #[must_use]
    pub fn now(&self) -> Micros {
        (self.shared.clock)()
    }

    /// Writes one event. What fails is told by [`finish`](Self::finish); what comes after it is dropped.
    pub fn record(&self, event: &Event<'_>) {
        self.sink().write(event);
    }

    /// Says that records are about to be sent. Call it before they are.
    #[must_use = "its outcome is recorded under this number"]
    pub fn append(&self, sending: &Sending<'_>) -> OpId {
        let op = OpId::new(self.shared.next_op.fetch_add(1, Ordering::Relaxed));
        self.record(&Event::Append(Append {
            client: (&*self.client).into(),
            op,
            at: self.now(),
            producer: sending.producer.into(),
            idempotent: sending.idempotent,
            partition: sending.partition.into(),
            sequence: sending.sequence,
            values: sending.values.to_vec(),
        }));
        op
    }

    /// Says that an append has succeeded. Call it after the answer is there.
    pub fn acked(&self, op: OpId, ack: Acknowledged) {
        self.record(&Event::Acked(Acked {
            client: (&*self.client).into(),
            op,
            at: self.now(),
            offset: ack.offset,
            token: ack.token,
            node: ack.node,
            retried: ack.retried,
        }));
    }

    /// Says that an append has failed, and what its error says of it.
    pub fn failed(&self, op: OpId, happened: Happened, error: &str) {
        self.record(&Event::Failed(Failed {
            client: (&*self.client).into(),
            op,
            at: self.now(),
            happened,
            error: Some(error.into()),
        }));
    }

    /// Writes the last line and all that is still in memory. A second call does nothing.
    ///
    /// # Errors
    /// When something could not be written, now or before.
    pub fn finish(&self) -> io::Result<()> {
        let mut sink = self.sink();
        let end = Event::End(End { events: sink.events });
        sink.write(&end);
        let flushed = sink.to.take().map_or(Ok(()), |mut to| to.flush());
        sink.failure.take().map_or(flushed, Err)
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        // Whoever panicked in here left a torn line at worst, which the reader tells.
        self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    fn write(&mut self, event: &Event<'_>) {
        let Some(to) = self.to.as_mut().filter(|_| self.failure.is_none()) else { return };
        self.buffer.clear();
        let line = serde_json::to_writer(&mut self.buffer, event).map_err(io::Error::from);
        self.buffer.push(b'\n');
        match line.and_then(|()| to.write_all(&self.buffer)) {
            Ok(()) => self.events += 1,
            Err(error) => self.failure = Some(error),
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Memory for a [`Recorder`] to write to. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    /// What was written so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.locked().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::History;

    fn send(recorder: &Recorder, producer: &str, sequence: u64) -> OpId {
        let values = [Digest::of(format!("{producer}-{sequence}").as_bytes())];
        recorder.append(&Sending { producer, idempotent: true, partition: "t/0", sequence, values: &values })
    }

    #[test]
    fn threads_write_whole_lines_into_one_history() {
        let memory = Memory::default();
        let time = AtomicU64::new(0);
        let clock = move || Micros::new(time.fetch_add(1, Ordering::SeqCst));
        let recorder = Recorder::new(memory.clone(), &Header::default(), clock).unwrap();
        std::thread::scope(|threads| {
            for name in ["a", "b", "c"] {
                let recorder = recorder.client(name);
                threads.spawn(move || {
                    for sequence in 0..200 {
                        let op = send(&recorder, name, sequence);
                        recorder.failed(op, Happened::Maybe, "no answer");
                    }
                });
            }
        });
        recorder.finish().unwrap();
        recorder.finish().unwrap();
        let _dropped = send(&recorder, "late", 0);
        let report = History::check(memory.bytes().as_slice()).unwrap();
        assert!(report.is_clean() && report.complete, "{report}");
        assert_eq!((report.counts.appended, report.counts.unknown, report.counts.producers), (600, 600, 3));
    }

    #[test]
    fn a_disk_that_is_full_is_told_at_the_end() {
        struct Full(u32);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let recorder = Recorder::new(Full(20), &Header::default(), || Micros::new(1)).unwrap();
        for sequence in 0..50 {
            let _unanswered = send(&recorder, "p", sequence);
        }
        assert_eq!(recorder.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
