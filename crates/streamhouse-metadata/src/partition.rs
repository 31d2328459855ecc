//! One partition: its log start, high watermark, extents, epochs and producers.

use serde::{Deserialize, Serialize};
use streamhouse_types::{Epoch, NodeId, Offset, PartitionId, Timestamp};

use crate::extents::{Extent, Extents};

/// A row of the leader-epoch table: the first offset that was appended under an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The first offset appended under it.
    pub start: Offset,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    id: PartitionId,
    home: NodeId,
    epoch: Epoch,
    log_start: Offset,
    high_watermark: Offset,
    last_append: Timestamp,
    stored_bytes: u64,
    epochs: Vec<EpochStart>,
    extents: Extents,
}

impl Partition {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The node that placement prefers for it.
    #[must_use]
    pub fn home(&self) -> NodeId {
        self.home
    }

    /// How often the home has changed.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first offset that is still readable; equals the high watermark when nothing is.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The first offset that is not readable yet.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Append time of the newest extent ever appended, in cluster time; 0 before the first.
    #[must_use]
    pub fn last_append(&self) -> Timestamp {
        self.last_append
    }

    /// Bytes of all its extents. An extent counts until no record of it is readable.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The leader-epoch table, in order; rows that only concern trimmed offsets are gone.
    #[must_use]
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The extents from the one that holds `offset` on, in offset order. The first may start before `offset`.
    pub fn extents_from(&self, offset: Offset) -> impl Iterator<Item = Extent> + '_ {
        self.extents.from_offset(offset)
    }

    /// The extent that holds `offset`; `None` outside `log_start..high_watermark`.
    #[must_use]
    pub fn extent_at(&self, offset: Offset) -> Option<Extent> {
        if offset < self.log_start || offset >= self.high_watermark {
            return None;
        }
        self.extents.from_offset(offset).next()
    }
}
