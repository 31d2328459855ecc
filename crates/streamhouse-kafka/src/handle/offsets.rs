//! From times, ends and epochs to offsets.

use std::sync::Arc;

use futures::stream::StreamExt as _;
use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{Partition, State, TimestampType};
use streamhouse_broker::{FoundOffset, Position};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionId, Timestamp};

use super::{AT_ONCE, Found, answer, partition, wire_offset};
use crate::codec::{DecodeError, TopicRef};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// Times that stand for places.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const GREATEST_TIME: i64 = -3;
/// The first record that is kept outside of tiered storage; everything is kept in one place here.
const EARLIEST_LOCAL: i64 = -4;
/// The last record that lies in tiered storage: there is none.
const LATEST_TIERED: i64 = -5;

/// Where something was found.
struct Spot {
    offset: i64,
    timestamp: i64,
    epoch: i32,
}

impl Spot {
    const NOWHERE: Self = Self { offset: -1, timestamp: -1, epoch: -1 };
}

impl Kafka {
    pub(super) async fn list_offsets(
        &self,
        version: i16,
        query: g::ListOffsetsRequestData,
    ) -> Result<Answer, DecodeError> {
        // What any node has acknowledged is seen, also by a node that is a moment behind.
        let current = self.broker().confirm_current().await;
        let mut codes = Vec::new();
        let mut topics = Vec::with_capacity(query.topics.len());
        for topic in query.topics {
            let found = match &current {
                Ok(()) => self.find(&TopicRef::Name(topic.name.to_string())).await,
                Err(_) => Err(Code::from(ErrorCode::MetadataUnavailable)),
            };
            let found = Arc::new(found);
            let lookups: Vec<_> = topic
                .partitions
                .iter()
                .map(|asked| {
                    let (found, kafka) = (Arc::clone(&found), self.clone());
                    let (index, epoch, time) =
                        (asked.partition_index, asked.current_leader_epoch, asked.timestamp);
                    async move {
                        let spot = match &*found {
                            Ok(found) => kafka.spot(found, (index, epoch), time).await,
                            Err(code) => Err(*code),
                        };
                        (index, spot)
                    }
                })
                .collect();
            let spots: Vec<_> = futures::stream::iter(lookups).buffered(AT_ONCE).collect().await;
            let partitions = spots.into_iter().map(|(partition_index, spot)| {
                let (code, spot) = match spot {
                    Ok(spot) => (Code::NONE, spot),
                    Err(code) => (code, Spot::NOWHERE),
                };
                codes.push(code);
                g::ListOffsetsPartitionResponse {
                    partition_index,
                    error_code: code.get(),
                    timestamp: spot.timestamp,
                    offset: spot.offset,
                    // A field that a version does not have is an error to write.
                    leader_epoch: if version >= 4 { spot.epoch } else { -1 },
                    ..Default::default()
                }
            });
            let partitions = partitions.collect();
            topics.push(g::ListOffsetsTopicResponse { name: topic.name, partitions, ..Default::default() });
        }
        let message = g::ListOffsetsResponseData { topics, ..Default::default() };
        answer(&message, version, codes)
    }

    async fn spot(&self, found: &Found, (index, epoch): (i32, i32), time: i64) -> Result<Spot, Code> {
        let id = partition(found.id, index).ok_or(Code::from(ErrorCode::PartitionNotFound))?;
        self.check_epoch(id, epoch).await?;
        let at = match time {
            LATEST => Position::End,
            EARLIEST | EARLIEST_LOCAL => Position::Start,
            LATEST_TIERED => return Ok(Spot::NOWHERE),
            GREATEST_TIME => match self.broker().look(|state| greatest_time(state, id)) {
                Some(time) => Position::Time(time),
                None => return Ok(Spot::NOWHERE),
            },
            time if time >= 0 => Position::Time(Timestamp::from_millis(time)),
            _ => return Err(Code::UNSUPPORTED_VERSION),
        };
        let listed = self.broker().list_offset(id, at).await;
        let FoundOffset { offset, timestamp } = listed.map_err(|error| Code::from(error.code()))?;
        if matches!(at, Position::Time(_)) && timestamp.is_none() {
            return Ok(Spot::NOWHERE);
        }
        let epoch = self.broker().look(|state| state.partition(id).map(|found| epoch_at(found, offset)));
        Ok(Spot {
            offset: wire_offset(offset),
            timestamp: timestamp.map_or(-1, Timestamp::as_millis),
            epoch: epoch.unwrap_or(-1),
        })
    }

    pub(super) async fn epoch_ends(
        &self,
        version: i16,
        query: g::OffsetForLeaderEpochRequestData,
    ) -> Result<Answer, DecodeError> {
        let mut codes = Vec::new();
        let mut topics = Vec::with_capacity(query.topics.len());
        for topic in query.topics {
            let found = self.find(&TopicRef::Name(topic.topic.to_string())).await;
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let end = match &found {
                    Ok(found) => self.epoch_end(found, &asked).await,
                    Err(code) => Err(*code),
                };
                let (code, (leader_epoch, end_offset)) = match end {
                    Ok(end) => (Code::NONE, end),
                    Err(code) => (code, (-1, -1)),
                };
                codes.push(code);
                partitions.push(g::offset_for_leader_epoch_response::EpochEndOffset {
                    error_code: code.get(),
                    partition: asked.partition,
                    leader_epoch,
                    end_offset,
                    ..Default::default()
                });
            }
            topics.push(g::OffsetForLeaderTopicResult {
                topic: topic.topic,
                partitions,
                ..Default::default()
            });
        }
        let message = g::OffsetForLeaderEpochResponseData { topics, ..Default::default() };
        answer(&message, version, codes)
    }

    async fn epoch_end(
        &self,
        found: &Found,
        asked: &g::OffsetForLeaderPartition,
    ) -> Result<(i32, i64), Code> {
        let no_such = Code::from(ErrorCode::PartitionNotFound);
        let id = partition(found.id, asked.partition).ok_or(no_such)?;
        self.check_epoch(id, asked.current_leader_epoch).await?;
        let end = self.broker().look(|state| Some(epoch_end(state.partition(id)?, asked.leader_epoch)));
        end.ok_or(no_such)
    }
}

/// The greatest timestamp of a record that is still there; `None` when none is.
fn greatest_time(state: &State, id: PartitionId) -> Option<Timestamp> {
    let stamped = state.topic(id.topic)?.settings().timestamp_type == TimestampType::LogAppend;
    let partition = state.partition(id)?;
    let extents = partition.extents_from(partition.log_start());
    extents.map(|extent| if stamped { extent.append_time } else { extent.max_timestamp }).max()
}

/// The epoch under which the record at `offset` was appended; of the end, that of the record to come.
fn epoch_at(partition: &Partition, offset: Offset) -> i32 {
    let of_end = (offset >= partition.high_watermark()).then(|| partition.epoch());
    let of_record = || partition.epochs().iter().rev().find(|row| row.start <= offset).map(|row| row.epoch);
    of_end.or_else(of_record).map_or(-1, |epoch| i32::try_from(epoch.get()).unwrap_or(i32::MAX))
}

/// The greatest epoch up to `asked` that the partition has had, and where its records end. Nothing that was readable is
/// ever taken back, so this never tells a client to step back.
fn epoch_end(partition: &Partition, asked: i32) -> (i32, i64) {
    let raw = |epoch: streamhouse_types::Epoch| i32::try_from(epoch.get()).unwrap_or(i32::MAX);
    let (now, end) = (raw(partition.epoch()), wire_offset(partition.high_watermark()));
    if asked < 0 || asked > now {
        return (-1, -1);
    }
    let rows = partition.epochs();
    let later = rows.iter().position(|row| raw(row.epoch) > asked);
    let end = later.map_or(end, |place| wire_offset(rows[place].start));
    let last = rows[..later.unwrap_or(rows.len())].last().map(|row| raw(row.epoch));
    match last {
        _ if asked == now => (now, end),
        Some(epoch) => (epoch, end),
        // Of epochs before the first that is remembered only where they ended is known.
        None => (asked, end),
    }
}
