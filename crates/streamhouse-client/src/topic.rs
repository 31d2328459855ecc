//! A topic: the door to producers, readers and single calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use streamhouse_proto::v1;
use streamhouse_types::batch::RecordHeader;
use streamhouse_types::{Offset, PartitionIndex, Timestamp};

use crate::call::Repeat;
use crate::connect::StreamHouse;
use crate::consumer::ReadBuilder;
use crate::error::CallError;
use crate::producer::ProducerBuilder;
use crate::record::Record;
use crate::ways::Way;
use streamhouse_api::Position;
use streamhouse_api::{ReadToken, TopicInfo, proto_timestamp, timestamp};

/// A topic of a cluster. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Topic {
    pub(crate) house: StreamHouse,
    pub(crate) name: Arc<str>,
    floor: ReadToken,
}

/// An offset that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// Where the position lies now.
    pub offset: Offset,
    /// Of the record found by its time.
    pub timestamp: Option<Timestamp>,
}

/// Where a record was stored by [`Topic::append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendedAt {
    /// The partition.
    pub partition: PartitionIndex,
    /// The record's offset.
    pub offset: Offset,
    read_token: ReadToken,
}

impl AppendedAt {
    /// A read that presents it sees the record, on any node.
    #[must_use]
    pub fn read_token(&self) -> ReadToken {
        self.read_token
    }
}

/// Where and under what condition [`Topic::append_to`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppendTo {
    /// The partition; `None`: by each record's key, or one for all that have none.
    pub partition: Option<PartitionIndex>,
    /// Append only if the first record gets this offset. Needs `partition`.
    pub expected_offset: Option<Offset>,
}

/// How much [`Topic::fetch`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// At most this many bytes; a batch larger than this comes alone.
    pub max_bytes: u32,
    /// Wait for this many bytes.
    pub min_bytes: u32,
    /// Wait at most this long, at most a minute.
    pub max_wait: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { max_bytes: 1 << 20, min_bytes: 0, max_wait: Duration::ZERO }
    }
}

/// One answer of record batches.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fetched {
    /// Whole batches one after the other. The first may begin before the wanted offset.
    pub record_batches: Bytes,
    /// Where to go on.
    pub next_offset: Offset,
    /// First offset that is not readable.
    pub high_watermark: Offset,
    /// First readable offset.
    pub log_start: Offset,
    read_token: ReadToken,
}

impl Fetched {
    /// A read that presents it is at least as new, on any node.
    #[must_use]
    pub fn read_token(&self) -> ReadToken {
        self.read_token
    }
}

impl Topic {
    pub(crate) fn new(house: StreamHouse, name: &str) -> Self {
        Self { house, name: name.into(), floor: ReadToken::default() }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same topic, of which nothing is read that is older than `token`: a node that is not as new waits, or the
    /// read goes to another. For writes of other clients; its own a client sees anyway, see
    /// [`Builder::read_your_writes`](crate::Builder::read_your_writes).
    #[must_use]
    pub fn at_least(mut self, token: ReadToken) -> Self {
        self.floor = self.floor.max(token);
        self
    }

    /// What a read presents now.
    pub(crate) fn floor(&self) -> ReadToken {
        self.floor.max(self.house.read_token())
    }

    /// A producer for this topic.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// A reader of this topic.
    pub fn read(&self, from: Position) -> ReadBuilder {
        ReadBuilder::new(self.clone(), from)
    }

    /// The topic with its partitions and settings.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn describe(&self) -> Result<TopicInfo, CallError> {
        self.house.admin().describe_topic(&self.name).await
    }

    /// Looks offsets up, in the order of the request. Cancel-safe.
    ///
    /// # Errors
    /// When the topic or a partition does not exist.
    pub async fn list_offsets(
        &self,
        positions: &[(PartitionIndex, Position)],
    ) -> Result<Vec<ListedOffset>, CallError> {
        let now = self.house.0.env.clock.wall();
        // "So many after the start" is counted here: it needs the start, and the end as a limit.
        let mut wanted = Vec::with_capacity(positions.len());
        for (partition, position) in positions {
            let partition = partition.get();
            let mut want = |position: Position| {
                wanted.push(v1::PartitionPosition { partition, position: Some(position.to_message(now)) });
            };
            match position {
                Position::AfterStart(_) => [Position::Start, Position::End].into_iter().for_each(want),
                other => want(*other),
            }
        }
        let request = v1::ListOffsetsRequest {
            topic: self.name.to_string(),
            positions: wanted,
            read_token: self.floor().get(),
        };
        let call = |way: Way, request| async move { way.streams().list_offsets(request).await };
        let answer = self.house.caller().call(Repeat::ChangesNothing, request, call).await?;
        let mut answers = answer.offsets.into_iter().map(ListedOffset::from);
        let mut next = || answers.next().ok_or(CallError::BadAnswer { what: "too few offsets" });
        let listed = positions.iter().map(|(partition, position)| {
            let mut found = next()?;
            if let Position::AfterStart(records) = position {
                let end = next()?.offset;
                let wanted = Offset::new(found.offset.get().saturating_add(*records));
                found.offset = wanted.min(end);
            }
            if found.partition == *partition {
                Ok(found)
            } else {
                Err(CallError::BadAnswer { what: "offsets of other partitions" })
            }
        });
        listed.collect()
    }

    /// Fetches batches once. For simple needs: a reader does more and is faster. Cancel-safe.
    ///
    /// # Errors
    /// When the topic or partition does not exist, or the offset is out of range.
    pub async fn fetch(
        &self,
        partition: PartitionIndex,
        offset: Offset,
        options: FetchOptions,
    ) -> Result<Fetched, CallError> {
        let request = v1::FetchRequest {
            topic: self.name.to_string(),
            partition: partition.get(),
            offset: offset.get(),
            max_bytes: options.max_bytes,
            min_bytes: options.min_bytes,
            max_wait_ms: u32::try_from(options.max_wait.as_millis()).unwrap_or(u32::MAX),
            read_token: self.floor().get(),
        };
        let call = |way: Way, request| async move { way.streams().fetch(request).await };
        let caller = self.house.caller().with_more_time(options.max_wait);
        let answer = caller.call(Repeat::ChangesNothing, request, call).await?;
        let read_token = ReadToken::new(answer.read_token);
        self.house.saw(read_token);
        Ok(Fetched {
            record_batches: answer.record_batches,
            next_offset: Offset::new(answer.next_offset),
            high_watermark: Offset::new(answer.high_watermark),
            log_start: Offset::new(answer.log_start),
            read_token,
        })
    }

    /// Appends records, at most 1 MiB, and waits until they are durable; returns their places in order. For simple
    /// needs: a producer is many times faster, and repeats what is uncertain without repeating records.
    ///
    /// Repeated only while nothing can have happened. Cancelling leaves open whether they were appended.
    ///
    /// # Errors
    /// `may_have_happened()` tells whether the records may be stored.
    pub async fn append(&self, records: Vec<Record>) -> Result<Vec<AppendedAt>, CallError> {
        self.append_to(AppendTo::default(), records).await
    }

    /// [`append`](Self::append) to a partition, or under a condition. A record's own partition is not looked at.
    ///
    /// # Errors
    /// As [`append`](Self::append), and when the condition does not hold.
    pub async fn append_to(&self, to: AppendTo, records: Vec<Record>) -> Result<Vec<AppendedAt>, CallError> {
        let count = records.len();
        let request = v1::AppendRequest {
            topic: self.name.to_string(),
            partition: to.partition.map(PartitionIndex::get),
            records: records.into_iter().map(proto_record).collect(),
            expected_offset: to.expected_offset.map(Offset::get),
        };
        let call = |way: Way, request| async move { way.streams().append(request).await };
        let answer = self.house.caller().call(Repeat::OnlyIfNothingHappened, request, call).await?;
        let read_token = ReadToken::new(answer.read_token);
        self.house.saw(read_token);
        if answer.appended.len() != count {
            return Err(CallError::BadAnswer { what: "not one place per record" });
        }
        let place = |place: v1::AppendedAt| AppendedAt {
            partition: PartitionIndex::new(place.partition),
            offset: Offset::new(place.offset),
            read_token,
        };
        Ok(answer.appended.into_iter().map(place).collect())
    }
}

impl From<v1::PartitionOffset> for ListedOffset {
    fn from(found: v1::PartitionOffset) -> Self {
        Self {
            partition: PartitionIndex::new(found.partition),
            offset: Offset::new(found.offset),
            timestamp: timestamp(found.timestamp),
        }
    }
}

fn proto_record(record: Record) -> v1::Record {
    let header = |header: RecordHeader| v1::Header {
        key: String::from_utf8_lossy(&header.key).into_owned(),
        value: header.value,
    };
    v1::Record {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
        timestamp: record.timestamp.map(proto_timestamp),
    }
}
