//! From what a person wants a group to read next, to offsets.

use std::collections::BTreeMap;

use streamhouse_broker::Position;
use streamhouse_broker::metadata::State;
use streamhouse_proto::v1;
use streamhouse_proto::v1::group_seek::To;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{GroupId, Offset, PartitionId, PartitionIndex};
use tonic::Status;

use super::limited;
use crate::Services;
use crate::convert::position;
use crate::status::Fault;

/// What becomes of one partition.
pub(super) struct Sought {
    pub(super) partition: PartitionId,
    topic: String,
    from: Option<Offset>,
    /// `None`: what is committed is forgotten.
    pub(super) to: Option<Offset>,
    log_start: Offset,
    high_watermark: Offset,
}

impl From<Sought> for v1::SoughtPartition {
    fn from(sought: Sought) -> Self {
        Self {
            topic: sought.topic,
            partition: sought.partition.index.get(),
            from_offset: sought.from.map(Offset::get),
            to_offset: sought.to.map(Offset::get),
            log_start: sought.log_start.get(),
            high_watermark: sought.high_watermark.get(),
        }
    }
}

impl Services {
    /// What the wishes mean for each partition, by topic and partition; of two for one partition the later counts.
    pub(super) async fn sought(
        &self,
        group: &GroupId,
        seeks: Vec<v1::GroupSeek>,
    ) -> Result<Vec<Sought>, Status> {
        // What is committed now decides where "by" leads, and is shown next to what will be.
        let current = self.broker.confirm_current().await;
        current.map_err(|error| Fault::new(ErrorCode::MetadataUnavailable, error.to_string()))?;
        let mut sought = BTreeMap::new();
        for seek in seeks {
            let Some(to) = seek.to else {
                return Err(Fault::argument("seeks.to", "where to is missing").into());
            };
            let topic = self.topic("seeks.topic", &seek.topic).await?;
            let partitions = match seek.partition {
                Some(index) => vec![self.partition_of(&topic, index).await?],
                None => (0..topic.partitions)
                    .map(|index| PartitionId::new(topic.id, PartitionIndex::new(index)))
                    .collect(),
            };
            for partition in partitions {
                let found = self.seek_one(group, partition, &seek.topic, &to).await?;
                sought.insert((seek.topic.clone(), partition.index), found);
            }
            limited("seeks", sought.len())?;
        }
        Ok(sought.into_values().collect())
    }

    async fn seek_one(
        &self,
        group: &GroupId,
        partition: PartitionId,
        topic: &str,
        to: &To,
    ) -> Result<Sought, Fault> {
        let look = |state: &State| {
            let found = state.partition(partition)?;
            let committed = state.group(group).and_then(|group| group.offset(partition));
            Some((found.log_start(), found.high_watermark(), committed.map(|committed| committed.offset)))
        };
        let found = self.broker.look(look);
        let (log_start, high_watermark, from) =
            found.ok_or_else(|| Fault::new(ErrorCode::PartitionNotFound, "the partition is gone"))?;
        let within = |offset: Offset| offset.clamp(log_start, high_watermark);
        let to = match to {
            To::Position(wanted) => match position("seeks.position", Some(*wanted))? {
                Some(Position::Offset(offset)) => Some(within(offset)),
                Some(at) => Some(self.broker.list_offset(partition, at).await?.offset),
                None => return Err(Fault::argument("seeks.position", "where to is missing")),
            },
            To::By(records) => {
                let Some(from) = from else {
                    let text = format!("{topic}/{}: nothing is committed to count from", partition.index);
                    return Err(Fault::new(ErrorCode::InvalidPosition, text).field("seeks.by"));
                };
                Some(within(Offset::new(from.get().saturating_add_signed(*records))))
            }
            To::AfterStart(records) => Some(within(Offset::new(log_start.get().saturating_add(*records)))),
            To::Forget(_) => None,
        };
        Ok(Sought { partition, topic: topic.to_owned(), from, to, log_start, high_watermark })
    }
}
