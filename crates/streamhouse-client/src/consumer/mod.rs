//! Readers: batches and records as streams.

mod cursor;
mod reader;
mod records;

use std::collections::BTreeMap;
use std::time::Duration;

use streamhouse_types::{Offset, PartitionIndex};

use self::cursor::Cursor;
use self::reader::Wish;
use crate::error::ReadError;
use crate::topic::Topic;
use streamhouse_api::Position;
use streamhouse_api::ReadToken;

pub use reader::Reader;
pub use records::{BatchRecords, ConsumedBatch, ConsumedRecord, RecordStream};

/// Partitions whose offsets are looked up in one call.
const LOOK_UP_PARTITIONS: usize = 250;

/// What to read. Made by [`Topic::read`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ReadBuilder {
    topic: Topic,
    from: Position,
    until: Option<Position>,
    partitions: Vec<PartitionIndex>,
    resume: BTreeMap<PartitionIndex, Offset>,
    follow: bool,
    max_bytes: u32,
    retry_for: Duration,
}

impl ReadBuilder {
    pub(crate) fn new(topic: Topic, from: Position) -> Self {
        Self {
            topic,
            from,
            until: None,
            partitions: Vec::new(),
            resume: BTreeMap::new(),
            follow: false,
            max_bytes: 0,
            retry_for: Duration::from_secs(120),
        }
    }

    /// Where to end, exclusive. Looked up once, when the reader is opened. Without it a reader ends where the
    /// partitions end when it is opened, or never with [`follow`](Self::follow).
    pub fn until(mut self, until: Position) -> Self {
        self.until = Some(until);
        self
    }

    /// Only these partitions; all by default.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = PartitionIndex>) -> Self {
        self.partitions.extend(partitions);
        self
    }

    /// Starts a partition at an offset of its own, whatever `from` says: to go on where another reader stopped.
    pub fn resume(mut self, partition: PartitionIndex, offset: Offset) -> Self {
        self.resume.insert(partition, offset);
        self
    }

    /// Whether to go on when the end is reached; `false` by default.
    #[expect(clippy::fn_params_excessive_bools, reason = "a switch that is named by its method")]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// At most this many bytes in one answer of the server; 1 MiB by default. A larger batch comes alone.
    pub fn max_bytes(mut self, bytes: u32) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Nothing older than `token` stands for is read; see [`Topic::at_least`].
    pub fn at_least(mut self, token: ReadToken) -> Self {
        self.topic = self.topic.at_least(token);
        self
    }

    /// How long the reader goes without an answer that is due before it fails, be it that no node can be reached or that
    /// the node cannot reach its store; 120 s by default. At the end of the log no answer is due.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Looks the positions up. Cancel-safe.
    ///
    /// # Errors
    /// When the topic or a partition does not exist, or no server answers within the request timeout.
    pub async fn open(self) -> Result<Reader, ReadError> {
        let partitions = self.chosen_partitions().await?;
        let mut progress = BTreeMap::new();
        for partitions in partitions.chunks(LOOK_UP_PARTITIONS) {
            self.look_up(partitions, &mut progress).await?;
        }
        let Self { topic, follow, max_bytes, retry_for, .. } = self;
        Ok(Reader::new(Wish { topic, follow, max_bytes, retry_for }, Cursor::new(progress)))
    }

    async fn chosen_partitions(&self) -> Result<Vec<PartitionIndex>, ReadError> {
        if !self.partitions.is_empty() {
            return Ok(self.partitions.clone());
        }
        let topic = self.topic.describe().await?;
        Ok((0..topic.partition_count).map(PartitionIndex::new).collect())
    }

    fn start_of(&self, partition: PartitionIndex) -> Position {
        self.resume.get(&partition).map_or(self.from, |offset| Position::Offset(*offset))
    }

    /// Turns positions into offsets, so that a lost connection does not move them.
    async fn look_up(
        &self,
        partitions: &[PartitionIndex],
        progress: &mut BTreeMap<PartitionIndex, PartitionProgress>,
    ) -> Result<(), ReadError> {
        // An offset is taken at its word and not looked up; whether it is in range shows when it is read.
        let asked =
            |position| if matches!(position, Position::Offset(_)) { Position::Start } else { position };
        let exact =
            |position, looked_up| if let Position::Offset(offset) = position { offset } else { looked_up };
        let positions = |partition: &PartitionIndex| {
            let (from, until) = (self.start_of(*partition), self.until.unwrap_or(Position::End));
            [Position::Start, Position::End, asked(from), asked(until)].map(|position| (*partition, position))
        };
        let wanted: Vec<_> = partitions.iter().flat_map(positions).collect();
        let listed = self.topic.list_offsets(&wanted).await?;
        for (asked, found) in wanted.chunks_exact(4).zip(listed.chunks_exact(4)) {
            let [start, end, from, until] = [0, 1, 2, 3].map(|at: usize| found[at].offset);
            let from_position = self.start_of(asked[0].0);
            let until = exact(self.until.unwrap_or(Position::End), until);
            let until = match (self.follow, self.until) {
                (true, None) => None,
                (true, Some(_)) => Some(until),
                // Without following, nothing beyond the present end will come.
                (false, _) => Some(until.min(end)),
            };
            let at = PartitionProgress {
                next_offset: exact(from_position, from),
                until,
                high_watermark: end,
                log_start: start,
                caught_up: false,
                trimmed: 0,
                may_skip_trimmed: !matches!(from_position, Position::Offset(_)),
            };
            progress.insert(asked[0].0, at);
        }
        Ok(())
    }
}

/// How far a reader is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The next offset it will give.
    pub next_offset: Offset,
    /// Where it ends, exclusive; `None` when it never does.
    pub until: Option<Offset>,
    /// First offset that was not readable, when the server last told.
    pub high_watermark: Offset,
    /// First readable offset, when the server last told.
    pub log_start: Offset,
    /// Whether everything readable had been given, when the server last told.
    pub caught_up: bool,
    /// Records that were trimmed before they could be read and of which no batch has told yet.
    trimmed: u64,
    /// Whether records that are gone may be passed over: not when they were asked for by their offset.
    may_skip_trimmed: bool,
}

/// What a reader gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReadEvent {
    /// Records.
    Batch(ConsumedBatch),
    /// Everything that is readable in this partition has been given.
    CaughtUp {
        /// The partition.
        partition: PartitionIndex,
        /// The next offset.
        next_offset: Offset,
    },
}
