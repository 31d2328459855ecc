//! How far groups are behind.

use std::time::Duration;

use streamhouse_broker::metadata::{CommittedOffset, GroupEntry, State};
use streamhouse_types::{GroupId, Offset, PartitionId, Timestamp};

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
    /// How long the first record that it has not read has been there; zero when there is none.
    pub behind: Duration,
}

/// Cluster time goes on with what is written, and by itself once a minute: it may be behind the leader's clock by this
/// much on a cluster that is idle.
const STANDS_STILL_MS: i64 = 61_000;

/// What time it is in the cluster: this node's clock, as far as it can be right.
pub(crate) fn present(state: &State, wall: Timestamp) -> Timestamp {
    let cluster = state.cluster_time();
    wall.clamp(cluster, cluster.plus_millis(STANDS_STILL_MS))
}

/// What a group has to read yet at `now`, partition by partition. Partitions that are gone are left out.
pub(crate) fn lag_of(state: &State, group: &GroupEntry, now: Timestamp) -> Vec<PartitionLag> {
    let lag = |(id, committed): (PartitionId, &CommittedOffset)| {
        let partition = state.partition(id)?;
        let (log_start, high_watermark) = (partition.log_start(), partition.high_watermark());
        let next = partition.extent_at(committed.offset.max(log_start));
        let waiting = next.map_or(0, |next| now.as_millis().saturating_sub(next.append_time.as_millis()));
        Some(PartitionLag {
            partition: id,
            committed: committed.clone(),
            log_start,
            high_watermark,
            records: high_watermark.get().saturating_sub(committed.offset.get()),
            // Appends may run ahead of it.
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
        let wall = self.room().env.clock.wall();
        self.find_group(group, |state, group| lag_of(state, group, present(state, wall))).await
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_broker::metadata::Command;
    use streamhouse_types::{ClusterId, LogIndex};

    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_not_believed() {
        let mut state = State::new();
        let began = Timestamp::from_millis(1_000_000);
        state.apply(
            LogIndex::new(1),
            &Command::Bootstrap { cluster: ClusterId::from_bytes([7; 16]), now: began },
        );
        let at = |millis| present(&state, began.plus_millis(millis)).as_millis() - began.as_millis();
        assert_eq!([-3_600_000, 0, 42_000, 61_000, 3_600_000].map(at), [0, 0, 42_000, 61_000, 61_000]);
    }
}
