//! The one thread that writes the log: takes what waits, writes it as one frame, syncs once, answers all.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use streamhouse_env::{Env, FileLock, LogFile, LongRun};
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, FRAME_HEADER, Record, SegmentHeader, Standing};
use super::recovery::{begin_segment, segment_path};
use super::tail::{Place, Segment};
use super::{LogOptions, Shared};
use crate::error::Failure;
use crate::machine::abort_on_panic;
use crate::metrics;
use crate::types::{LogId, TypeConfig};

/// Writes that may wait for the disk before the proposers wait.
const QUEUE: usize = 1_024;
/// Bytes after which a group is closed.
const GROUP_BYTES: usize = 4 << 20;

/// An entry among the records of a write.
#[derive(Debug)]
pub(crate) struct WrittenEntry {
    pub(crate) id: LogId,
    /// Where its payload begins in the records.
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// Who waits for a write.
pub(crate) enum Done {
    /// The consensus library, for entries.
    Flushed(IOFlushed<TypeConfig>),
    /// Somebody who awaits the write.
    Told(oneshot::Sender<io::Result<()>>),
    /// Nobody; files that hold nothing but purged entries go afterwards.
    Purged,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flushed(_) => "Flushed",
            Self::Told(_) => "Told",
            Self::Purged => "Purged",
        })
    }
}

/// Records to be written together.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) records: Vec<u8>,
    pub(crate) entries: Vec<WrittenEntry>,
    /// What the records say when they are no entries.
    pub(crate) fact: Option<Record>,
    pub(crate) done: Done,
}

impl Write {
    pub(crate) fn of(record: Record, done: Done) -> Self {
        let mut records = Vec::new();
        record.put(&mut records);
        Self { records, entries: Vec::new(), fact: Some(record), done }
    }
}

/// The file that is written to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn LogFile>,
    /// Where the next frame goes.
    pub(crate) position: u64,
}

/// Where the log on disk ends.
#[derive(Debug)]
pub(crate) struct WriterState {
    pub(crate) active: Active,
    /// The sequence of the next frame.
    pub(crate) next_sequence: u64,
    pub(crate) standing: Standing,
}

/// Starts the writer behind a bounded queue. It holds the directory's lock, so that nobody else writes there before it has
/// ended, however the node was let go. It ends once the log store is dropped, when all that was queued is written.
pub(crate) fn spawn(
    options: &LogOptions,
    shared: Arc<Shared>,
    state: WriterState,
    lock: Box<dyn FileLock>,
) -> (mpsc::Sender<Write>, LongRun) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    let mut writer = Writer {
        node: options.node.get(),
        dir: options.dir.clone(),
        env: options.env.clone(),
        segment_bytes: options.segment_bytes,
        shared,
        state,
        buffer: Vec::new(),
        failed: None,
    };
    let run = options.env.threads.start("raft-log", async move {
        writer.run(waiting).await;
        drop(lock);
    });
    (queue, run)
}

struct Writer {
    node: u64,
    dir: PathBuf,
    env: Env,
    segment_bytes: u64,
    shared: Arc<Shared>,
    state: WriterState,
    buffer: Vec<u8>,
    /// After the first error nothing is written any more: what a failed sync left behind cannot be known.
    failed: Option<io::ErrorKind>,
}

impl Writer {
    async fn run(&mut self, mut waiting: mpsc::Receiver<Write>) {
        let mut group = Vec::new();
        while let Some(first) = waiting.recv().await {
            let mut bytes = first.records.len();
            group.push(first);
            while bytes < GROUP_BYTES
                && let Ok(next) = waiting.try_recv()
            {
                bytes += next.records.len();
                group.push(next);
            }
            self.write_or_abort(&mut group);
        }
        // Nothing waits any more; a restart finds its commit index.
        self.write_or_abort(&mut group);
    }

    fn write_or_abort(&mut self, group: &mut Vec<Write>) {
        abort_on_panic("the log's writer panicked", || self.write(group));
    }

    /// Writes and answers `group`, and empties it.
    fn write(&mut self, group: &mut Vec<Write>) {
        let outcome = match self.failed {
            Some(kind) => Err(io::Error::new(kind, "the log failed before")),
            None => self.write_frame(group),
        };
        if let (Err(error), None) = (&outcome, self.failed) {
            self.failed = Some(error.kind());
            self.shared.fail(Failure::of_io(error));
        }
        let mut purged = false;
        for write in group.drain(..) {
            let outcome =
                outcome.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()));
            match write.done {
                Done::Flushed(callback) => callback.io_completed(outcome),
                Done::Told(told) => drop(told.send(outcome)),
                Done::Purged => purged |= outcome.is_ok(),
            }
        }
        if purged && let Err(error) = self.drop_purged() {
            self.failed = Some(error.kind());
            self.shared.fail(Failure::of_io(&error));
        }
    }

    fn write_frame(&mut self, group: &[Write]) -> io::Result<()> {
        frame::begin(&mut self.buffer);
        let committed = self.shared.tail.lock().committed;
        let mut starts = Vec::with_capacity(group.len());
        for write in group {
            starts.push(self.buffer.len());
            self.buffer.extend_from_slice(&write.records);
        }
        if let Some(id) = committed.filter(|_| committed != self.state.standing.committed) {
            Record::Committed(id).put(&mut self.buffer);
        }
        if self.buffer.len() == FRAME_HEADER {
            return Ok(());
        }
        let started = self.env.clock.now();
        if self.state.active.position.saturating_add(self.buffer.len() as u64) > self.segment_bytes {
            self.roll()?;
        }
        frame::finish(&mut self.buffer, self.state.next_sequence);
        self.state.active.file.write_at(self.state.active.position, &self.buffer)?;
        self.state.active.file.sync_data()?;
        self.state.standing.committed = committed;
        self.state.next_sequence += 1;
        self.note_written(group, &starts);
        let seconds = self.env.clock.now().saturating_sub(started).as_secs_f64();
        ::metrics::histogram!(metrics::LOG_SYNC_SECONDS).record(seconds);
        Ok(())
    }

    /// Tells the readers where the entries lie, and moves on behind the frame.
    fn note_written(&mut self, group: &[Write], starts: &[usize]) {
        let (segment, frame) = (self.state.active.number, self.state.active.position);
        self.state.active.position += self.buffer.len() as u64;
        let mut tail = self.shared.tail.lock();
        for (write, start) in group.iter().zip(starts) {
            for entry in &write.entries {
                let offset = start + entry.start;
                let place =
                    Place { segment, frame, frame_length: self.buffer.len(), offset, length: entry.length };
                tail.placed(entry.id, place);
            }
        }
        for write in group {
            if let Some(last) = write.entries.last() {
                self.state.standing.last = Some(last.id);
            }
            if let Some(fact) = &write.fact {
                self.state.standing.note(fact);
            }
        }
        let last = group.iter().flat_map(|write| &write.entries).map(|entry| entry.id.index()).max();
        let file = tail.segments.get_mut(&segment).expect("the active segment is known");
        file.last_index = file.last_index.max(last);
        file.bytes = self.state.active.position;
        tail.evict();
        ::metrics::gauge!(metrics::LOG_BYTES).set(metrics::as_f64(tail.log_bytes()));
    }

    /// Begins the next file.
    fn roll(&mut self) -> io::Result<()> {
        let number = self.state.active.number + 1;
        let header = SegmentHeader { node: self.node, number, standing: self.state.standing };
        let active =
            begin_segment(&*self.env.fs, &self.dir, self.segment_bytes, header, self.state.next_sequence)?;
        self.state.next_sequence += 1;
        let segment = Segment { file: active.file.clone(), last_index: None, bytes: active.position };
        self.shared.tail.lock().segments.insert(number, segment);
        self.state.active = active;
        Ok(())
    }

    fn drop_purged(&mut self) -> io::Result<()> {
        let dropped = self.shared.tail.lock().droppable();
        for number in &dropped {
            self.env.fs.remove(&segment_path(&self.dir, *number))?;
            // Oldest first and each one durably, so that a crash leaves a row of files.
            self.env.fs.sync_dir(&self.dir)?;
            self.shared.tail.lock().segments.remove(number);
        }
        Ok(())
    }
}
