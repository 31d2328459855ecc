//! The log as the consensus library sees it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::frame::{self, Record, put_entry_record};
use super::tail::{Known, Place};
use super::writer::{Done, Write, WrittenEntry};
use crate::codec::read_entry;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// Most bytes handed to one replication message.
const READ_BYTES: usize = 1 << 20;

/// Writes the log. All its writes are one ordered queue, so that none overtakes another.
#[derive(Debug)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Write>,
}

/// Reads the log.
#[derive(Debug, Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

impl LogStore {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Sender<Write>) -> Self {
        Self { shared, queue }
    }

    /// A reader, also after the store was given away.
    pub(crate) fn reader(&self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }

    async fn enqueue(&self, write: Write) -> io::Result<()> {
        self.queue.send(write).await.map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    async fn write_durably(&self, record: Record) -> io::Result<()> {
        let (told, done) = oneshot::channel();
        self.enqueue(Write::of(record, Done::Told(told))).await?;
        done.await.unwrap_or_else(|_| Err(io::Error::other("the log's writer has stopped")))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.shared.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write_durably(Record::Vote(*vote)).await?;
        // Read back by replication, so not before it is durable.
        self.shared.tail.lock().vote = Some(*vote);
        Ok(())
    }

    /// Goes to disk with the next group. A crash before it costs nothing: the entries are in the log, and a leader says
    /// again that they are committed.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.tail.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.tail.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut written = Vec::new();
        {
            let mut tail = self.shared.tail.lock();
            for entry in entries {
                let start = put_entry_record(&mut records, &entry);
                written.push(WrittenEntry { id: entry.log_id, start, length: records.len() - start });
                tail.append(entry, None);
            }
        }
        self.enqueue(Write { records, entries: written, fact: None, done: Done::Flushed(callback) }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut tail = self.shared.tail.lock();
            if last >= tail.last() {
                return Ok(());
            }
            tail.truncate(last);
        }
        self.write_durably(Record::Truncate(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.tail.lock().purge(upto);
        self.enqueue(Write::of(Record::Purge(upto), Done::Purged)).await
    }
}

impl LogReader {
    fn read(&self, range: Range<u64>, bytes: usize) -> io::Result<Vec<Entry>> {
        let known = self.shared.tail.lock().read(range, bytes);
        let mut entries = Vec::with_capacity(known.len());
        let mut frame: Option<(u64, u64, Bytes)> = None;
        for known in known {
            let (place, file) = match known {
                Known::Entry(entry) => {
                    entries.push(entry);
                    continue;
                }
                Known::OnDisk(place, file) => (place, file),
            };
            let bytes = match &frame {
                Some((segment, start, bytes)) if (*segment, *start) == (place.segment, place.frame) => {
                    bytes.clone()
                }
                _ => read_frame(&*file, &place)?,
            };
            let entry = read_entry(bytes.slice(place.offset..place.offset + place.length))
                .map_err(io::Error::other)?;
            frame = Some((place.segment, place.frame, bytes));
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The index of the last entry, 0 when there is none, and the newest vote that is durable.
    pub(crate) fn standing(&self) -> (u64, Option<Vote>) {
        let tail = self.shared.tail.lock();
        (tail.last().map_or(0, |last| last.index()), tail.vote)
    }

    /// The newest vote that is durable.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.tail.lock().vote
    }

    /// Whether this entry is in the log, durable or soon to be.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        let found = self.read(id.index()..id.index() + 1, usize::MAX);
        found.is_ok_and(|entries| entries.first().is_some_and(|entry| entry.log_id == id))
    }

    /// The last entry that is gone.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.tail.lock().purged
    }
}

fn read_frame(file: &dyn streamhouse_env::LogFile, place: &Place) -> io::Result<Bytes> {
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("log segment {} is damaged", place.segment));
    let mut bytes = vec![0; place.frame_length];
    if file.read_at(place.frame, &mut bytes)? < place.frame_length {
        return Err(damaged());
    }
    let bytes = Bytes::from(bytes);
    frame::decode(&bytes).ok_or_else(damaged)?;
    Ok(bytes)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote())
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
