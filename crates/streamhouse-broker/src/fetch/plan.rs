//! Where the bytes lie that a reader asks for. Pure.

use streamhouse_metadata::{Extent, State, TimestampType};
use streamhouse_types::{Offset, PartitionId, Timestamp};

/// Most extents that one fetch follows.
const EXTENTS_MAX: usize = 1_024;
/// Most of them that are not in memory: each may be a request to the store.
const FAR_MAX: usize = 64;
/// Who reads what was appended within this time of the cluster reads at the end of the log.
const RECENT_MS: i64 = 10_000;

/// What the metadata says about an offset.
#[derive(Debug)]
pub(crate) enum Look {
    /// There is no such partition here.
    UnknownPartition,
    /// The offset is outside the log as it is here.
    OutOfRange { log_start: Offset, high_watermark: Offset },
    /// Inside, or right at the end.
    Found(Plan),
}

/// What to read.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    /// In offset order; the first holds the wanted offset. Empty at the end of the log.
    pub(crate) reads: Vec<PlannedRead>,
    /// About how many bytes there are from the wanted offset on, counted up to what was asked for.
    pub(crate) available: u64,
    /// Whether its reader is at the end of the log, or a few seconds behind.
    pub(crate) is_recent: bool,
    /// Whether it follows as many extents as one fetch may.
    pub(crate) is_full: bool,
}

impl Plan {
    /// How many bytes lie in its extents.
    pub(crate) fn bytes(&self) -> u64 {
        self.reads.iter().map(|read| u64::from(read.extent.length)).sum()
    }

    /// Ends it before it follows more extents than it may of those that are not near.
    pub(crate) fn within_reach(mut self, is_near: impl Fn(&PlannedRead) -> bool) -> Self {
        let mut far = 0;
        let reach = self.reads.iter().take_while(|read| {
            far += usize::from(!is_near(read));
            far <= FAR_MAX
        });
        let reach = reach.count();
        self.is_full |= reach < self.reads.len();
        self.reads.truncate(reach);
        self
    }
}

/// An extent to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedRead {
    pub(crate) extent: Extent,
    /// Length of its object.
    pub(crate) object_length: u64,
    /// What the records' timestamps become, where the topic says so.
    pub(crate) stamp: Option<Timestamp>,
}

impl PlannedRead {
    /// Where the extent ends in its object.
    pub(crate) fn end(&self) -> u64 {
        self.extent.position + u64::from(self.extent.length)
    }
}

/// Looks up what lies from `offset` on, up to about `bytes`.
pub(crate) fn look(state: &State, id: PartitionId, offset: Offset, bytes: u64) -> Look {
    let (Some(partition), Some(topic)) = (state.partition(id), state.topic(id.topic)) else {
        return Look::UnknownPartition;
    };
    let (log_start, high_watermark) = (partition.log_start(), partition.high_watermark());
    if offset < log_start || offset > high_watermark {
        return Look::OutOfRange { log_start, high_watermark };
    }
    let mut plan =
        Plan { log_start, high_watermark, reads: Vec::new(), available: 0, is_recent: true, is_full: false };
    let stamped = topic.settings().timestamp_type == TimestampType::LogAppend;
    for extent in partition.extents_from(offset) {
        plan.is_full = plan.reads.len() == EXTENTS_MAX;
        if offset >= high_watermark || plan.available >= bytes.max(1) || plan.is_full {
            break;
        }
        plan.available += remaining_bytes(&extent, offset);
        plan.is_recent &= state.cluster_time() <= extent.append_time.plus_millis(RECENT_MS);
        plan.reads.push(PlannedRead {
            extent,
            object_length: state.object(&extent.object).map_or(0, |object| object.length),
            stamp: stamped.then_some(extent.append_time),
        });
    }
    Look::Found(plan)
}

/// About how many bytes of an extent lie from `offset` on: batches are taken for equally large.
fn remaining_bytes(extent: &Extent, offset: Offset) -> u64 {
    let (left, all) = (extent.end.since(offset.max(extent.base)), extent.end.since(extent.base));
    let bytes = u128::from(extent.length) * u128::from(left) / u128::from(all.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// The extents from `offset` on of which at least `bytes` lie behind it, for reading ahead.
pub(crate) fn ahead(state: &State, id: PartitionId, from: Offset, bytes: u64) -> Vec<PlannedRead> {
    match look(state, id, from, bytes) {
        Look::Found(plan) => plan.within_reach(|_| false).reads,
        Look::UnknownPartition | Look::OutOfRange { .. } => Vec::new(),
    }
}
