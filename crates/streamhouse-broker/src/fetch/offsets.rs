//! From positions to offsets.

use streamhouse_metadata::State;
use streamhouse_types::batch::{BatchLimits, RecordBatch};
use streamhouse_types::{Offset, PartitionId, Timestamp};

use super::plan::PlannedRead;
use super::source::{ReadFault, Via};
use super::walk::{Cursor, Damage, Walked};
use crate::broker::Shared;
use crate::{Broker, FetchError, FoundOffset, Position};

/// How much of an extent is read at once while looking for a time.
const WINDOW: u64 = 1 << 20;

impl Broker {
    /// Finds the offset of a position. Cancel-safe.
    ///
    /// # Errors
    /// [`FetchError::OutOfRange`] and [`FetchError::UnknownPartition`] only by metadata known to be current.
    pub async fn list_offset(&self, id: PartitionId, at: Position) -> Result<FoundOffset, FetchError> {
        let bounds =
            |state: &State| state.partition(id).map(|found| (found.log_start(), found.high_watermark()));
        let mut found = crate::log::read(&*self.0.log, bounds);
        let inside = |(start, end): (Offset, Offset)| match at {
            Position::Offset(offset) => (start..=end).contains(&offset),
            _ => true,
        };
        if !found.is_some_and(inside) {
            self.0.log.read_index().await?;
            found = crate::log::read(&*self.0.log, bounds);
        }
        let (log_start, high_watermark) = found.ok_or(FetchError::UnknownPartition { partition: id })?;
        let offset = match at {
            Position::Start => log_start,
            Position::End => high_watermark,
            Position::BeforeEnd(records) => high_watermark.before(records).max(log_start),
            Position::Offset(offset) if inside((log_start, high_watermark)) => offset,
            Position::Offset(offset) => {
                return Err(FetchError::OutOfRange { offset, log_start, high_watermark });
            }
            Position::Time(time) => return self.0.find_time(id, time).await,
        };
        Ok(FoundOffset { offset, timestamp: None })
    }
}

impl Shared {
    /// The first record at or after a time; the high watermark when there is none.
    async fn find_time(&self, id: PartitionId, time: Timestamp) -> Result<FoundOffset, FetchError> {
        let look = |state: &State| (state.clone(), self.pins.pin(state));
        let (state, _pin) = crate::log::read(&*self.log, look);
        let Some(partition) = state.partition(id) else {
            return Err(FetchError::UnknownPartition { partition: id });
        };
        let log_start = partition.log_start();
        for extent in partition.extents_from(log_start) {
            let reads = super::plan::look(&state, id, extent.base.max(log_start), 1);
            let super::Look::Found(plan) = reads else { continue };
            let Some(read) = plan.reads.first() else { continue };
            if let Some(stamp) = read.stamp {
                if stamp >= time {
                    return Ok(FoundOffset { offset: extent.base.max(log_start), timestamp: Some(stamp) });
                }
                continue;
            }
            if extent.max_timestamp < time {
                continue;
            }
            let _room = self.room(&plan, WINDOW).await;
            let mut found = self.find_in_extent(read, log_start, time, Via::Caches).await;
            for _ in 0..super::READS_AGAIN {
                if !found.as_ref().is_err_and(ReadFault::is_damage) {
                    break;
                }
                self.source.forget(read);
                found = self.find_in_extent(read, log_start, time, Via::Store).await;
            }
            if let Some(found) = found.map_err(|fault| fault.into_error(id, extent.base))? {
                return Ok(found);
            }
        }
        Ok(FoundOffset { offset: partition.high_watermark(), timestamp: None })
    }

    async fn find_in_extent(
        &self,
        read: &PlannedRead,
        log_start: Offset,
        time: Timestamp,
        via: Via,
    ) -> Result<Option<FoundOffset>, ReadFault> {
        let mut cursor = Cursor::at_start(read);
        while cursor.offset < read.extent.end {
            let found = self.source.read(read, cursor, WINDOW, via).await?;
            for batch in found.batches {
                if batch.header.max_timestamp >= time
                    && batch.end() > log_start
                    && let Some(found) = find_in_batch(&batch, log_start, time)?
                {
                    return Ok(Some(found));
                }
            }
            cursor = found.next;
        }
        Ok(None)
    }
}

fn find_in_batch(batch: &Walked, log_start: Offset, time: Timestamp) -> Result<Option<FoundOffset>, Damage> {
    let damage = |what: String| Damage { what, position: batch.position };
    let mut bytes = batch.joined().freeze();
    let parsed = RecordBatch::split_first(&mut bytes, &BatchLimits::MAX)
        .map_err(|error| damage(error.to_string()))?
        .ok_or_else(|| damage("batch is empty".to_owned()))?;
    for record in parsed.records().map_err(|error| damage(error.to_string()))? {
        let record = record.map_err(|error| damage(error.to_string()))?;
        let offset = batch.base.after(record.offset_delta);
        if record.timestamp >= time && offset >= log_start {
            return Ok(Some(FoundOffset { offset, timestamp: Some(record.timestamp) }));
        }
    }
    Ok(None)
}
