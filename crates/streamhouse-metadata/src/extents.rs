//! Where the batches of a partition lie: extents in offset order, kept in chunks that snapshots share.

use std::fmt;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use streamhouse_types::{Epoch, ObjectId, Offset, Timestamp};

/// How many extents share one allocation. A write after a snapshot copies at most this many, in each partition.
const CHUNK_EXTENTS: usize = 64;

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

impl Extent {
    /// This extent and `next` as one, when `next` lies right behind it in offsets and in bytes and nothing tells
    /// them apart.
    fn joined(&self, next: &Self) -> Option<Self> {
        let side_by_side = self.object == next.object
            && self.end == next.base
            && self.position.checked_add(u64::from(self.length)) == Some(next.position);
        if !side_by_side || self.epoch != next.epoch || self.append_time != next.append_time {
            return None;
        }
        Some(Self {
            end: next.end,
            length: self.length.checked_add(next.length)?,
            batches: self.batches.checked_add(next.batches)?,
            max_timestamp: self.max_timestamp.max(next.max_timestamp),
            ..*self
        })
    }
}

type Chunk = Arc<Vec<Extent>>;

/// The extents of one partition: gapless, in offset order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extents {
    /// What no append changes any more. No chunk is empty, none holds more than `CHUNK_EXTENTS`.
    sealed: Arc<Vec<Chunk>>,
    /// The newest extents, at most `CHUNK_EXTENTS`.
    tail: Chunk,
}

impl Extents {
    /// Appends, joining with the last extent where that loses nothing. Returns how many extents were added: 0 or 1.
    pub(crate) fn append(&mut self, extent: Extent) -> u32 {
        if let Some(joined) = self.tail.last().and_then(|last| last.joined(&extent)) {
            *Arc::make_mut(&mut self.tail).last_mut().expect("it was joined with") = joined;
            return 0;
        }
        self.push(extent);
        1
    }

    fn push(&mut self, extent: Extent) {
        if self.tail.len() >= CHUNK_EXTENTS {
            let full = std::mem::take(&mut self.tail);
            Arc::make_mut(&mut self.sealed).push(full);
        }
        Arc::make_mut(&mut self.tail).push(extent);
    }

    /// Drops the extents that end at or before `offset`, handing each to `dropped`.
    pub(crate) fn drop_before(&mut self, offset: Offset, mut dropped: impl FnMut(&Extent)) {
        let whole = self.sealed_before(offset);
        let partly = self.sealed.get(whole).is_some_and(|chunk| ends_before(chunk, offset) > 0);
        if whole > 0 || partly {
            let sealed = Arc::make_mut(&mut self.sealed);
            for chunk in sealed.drain(..whole) {
                chunk.iter().for_each(&mut dropped);
            }
            if let Some(chunk) = sealed.first_mut() {
                drop_in(chunk, offset, &mut dropped);
            }
        }
        if self.sealed.is_empty() {
            drop_in(&mut self.tail, offset, &mut dropped);
        }
    }

    /// All extents, in offset order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.chunks_from(0)
    }

    fn chunks_from(&self, first: usize) -> impl Iterator<Item = Extent> + '_ {
        let chunks = self.sealed[first..].iter().chain(std::iter::once(&self.tail));
        chunks.flat_map(|chunk| chunk.iter().copied())
    }

    /// How many of the sealed chunks end at or before `offset`.
    fn sealed_before(&self, offset: Offset) -> usize {
        self.sealed.partition_point(|chunk| chunk.last().is_none_or(|last| last.end <= offset))
    }

    /// The extents from the one that holds `offset`, or that follows it.
    pub(crate) fn at_or_after(&self, offset: Offset) -> impl Iterator<Item = Extent> + '_ {
        let first = self.sealed_before(offset);
        let skip = ends_before(self.sealed.get(first).unwrap_or(&self.tail), offset);
        self.chunks_from(first).skip(skip)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.sealed.iter().map(|chunk| chunk.len()).sum::<usize>() + self.tail.len()
    }
}

/// How many extents of the chunk end at or before `offset`.
fn ends_before(chunk: &Chunk, offset: Offset) -> usize {
    chunk.partition_point(|extent| extent.end <= offset)
}

fn drop_in(chunk: &mut Chunk, offset: Offset, dropped: &mut impl FnMut(&Extent)) {
    let part = ends_before(chunk, offset);
    if part > 0 {
        Arc::make_mut(chunk).drain(..part).for_each(|extent| dropped(&extent));
    }
}

/// Where chunks begin depends on what was trimmed; it is no part of the value.
impl PartialEq for Extents {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Extents {}

impl Serialize for Extents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut seq = serializer.serialize_seq(Some(self.count()))?;
        for extent in self.iter() {
            seq.serialize_element(&extent)?;
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Flat;
        impl<'de> Visitor<'de> for Flat {
            type Value = Extents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("extents")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Extents, A::Error> {
                let mut extents = Extents::default();
                while let Some(extent) = seq.next_element()? {
                    extents.push(extent);
                }
                Ok(extents)
            }
        }
        deserializer.deserialize_seq(Flat)
    }
}

#[cfg(test)]
mod tests;
