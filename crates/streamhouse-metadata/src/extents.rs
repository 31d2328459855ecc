//! Where the batches of a partition lie: extents in offset order, kept in chunks that snapshots share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{Epoch, ObjectId, Offset, Timestamp};

/// How many extents share one allocation. A write after a snapshot copies at most this many.
const CHUNK_EXTENTS: usize = 256;

/// A run of batches of one partition that lie side by side in one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset of the first record.
    pub base: Offset,
    /// The offset just past the last record.
    pub end: Offset,
    /// The object that holds the bytes.
    pub object: ObjectId,
    /// Where the run starts in the object, in bytes.
    pub position: u64,
    /// Its length in bytes.
    pub length: u32,
    /// How many batches it holds.
    pub batches: u32,
    /// Greatest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// When it was appended, in cluster time; never goes back from extent to extent.
    pub append_time: Timestamp,
    /// The partition's epoch when it was appended.
    pub epoch: Epoch,
}

/// The extents of one partition: gapless, in offset order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Extents {
    /// None is empty; all but the first and the last hold `CHUNK_EXTENTS`.
    chunks: Vec<Arc<Vec<Extent>>>,
}

impl Extents {
    pub(crate) fn push(&mut self, extent: Extent) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_EXTENTS => Arc::make_mut(chunk).push(extent),
            _ => self.chunks.push(Arc::new(vec![extent])),
        }
    }

    /// The extents from the one that holds `offset`, or that follows it.
    pub(crate) fn from_offset(&self, offset: Offset) -> impl Iterator<Item = Extent> + '_ {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_none_or(|last| last.end <= offset));
        let skip = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|e| e.end <= offset));
        self.chunks[chunk..].iter().flat_map(|chunk| chunk.iter().copied()).skip(skip)
    }
}
