//! How far groups are behind.

use std::time::Duration;

use streamhouse_broker::metadata::{CommittedOffset, GroupEntry, State};
use streamhouse_types::{GroupId, Offset, PartitionId};

use crate::{GroupAdminError, Groups};

/// How far a group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: PartitionId,
    /// How far it has read.
    pub committed: CommittedOffset,
    /// The first record that is there.
    pub log_start: Offset,
    /// The first offset that is not readable yet.
    pub high_watermark: Offset,
    /// Offsets from the committed one to the high watermark.
    pub records: u64,
    /// How long the first record that it has not read has been there, in cluster time; zero when there is none.
    pub behind: Duration,
}

/// What a group has to read yet, partition by partition. Partitions that are gone are left out.
pub(crate) fn lag_of(state: &State, group: &GroupEntry) -> Vec<PartitionLag> {
    let lag = |(id, committed): (PartitionId, &CommittedOffset)| {
        let partition = state.partition(id)?;
        let (log_start, high_watermark) = (partition.log_start(), partition.high_watermark());
        let next = partition.extent_at(committed.offset.max(log_start));
        let waiting = next
            .map_or(0, |next| state.cluster_time().as_millis().saturating_sub(next.append_time.as_millis()));
        Some(PartitionLag {
            partition: id,
            committed: committed.clone(),
            log_start,
            high_watermark,
            records: high_watermark.get().saturating_sub(committed.offset.get()),
            // Appends may run ahead of cluster time.
            behind: Duration::from_millis(u64::try_from(waiting).unwrap_or(0)),
        })
    };
    group.offsets().filter_map(lag).collect()
}

impl Groups {
    /// How far a group is behind in each partition of which it has committed an offset, by the metadata of this node.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`GroupAdminError::NotFound`] only by metadata known to be current.
    pub async fn lag(&self, group: &GroupId) -> Result<Vec<PartitionLag>, GroupAdminError> {
        self.find_group(group, lag_of).await
    }
}
