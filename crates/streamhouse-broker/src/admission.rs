//! What is checked at the door, before a batch takes any room. Pure.

use streamhouse_metadata::State;

use crate::AppendError;
use crate::flush::Load;

/// Whether the partitions exist and the batches are within their topics' limits.
pub(crate) fn check(state: &State, load: &Load) -> Result<(), AppendError> {
    for (partition, batch) in &load.batches {
        let unknown = AppendError::UnknownPartition { partition: *partition };
        let topic = state.topic(partition.topic).ok_or_else(|| unknown.clone())?;
        if partition.index.get() >= topic.partition_count() {
            return Err(unknown);
        }
        let (actual, limit) = (batch.header().length_bytes, topic.settings().max_message_bytes);
        if actual > limit {
            return Err(AppendError::TooLarge { actual, limit });
        }
        let records = batch.without_key();
        if !records.is_empty() && topic.settings().compacts() {
            return Err(AppendError::NoKey { records: records.to_vec() });
        }
    }
    for (partition, _) in &load.expected {
        if state.partition(*partition).is_none() {
            return Err(AppendError::UnknownPartition { partition: *partition });
        }
    }
    Ok(())
}
