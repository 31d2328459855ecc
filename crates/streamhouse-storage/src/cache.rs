//! Blocks of objects in memory, each fetched once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use metrics::{counter, gauge};
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use streamhouse_types::ObjectId;

use crate::error::GetError;
use crate::layout::Key;
use crate::metrics as names;
use crate::store::{Purpose, Store};

/// Blocks that lie side by side are fetched with one request of at most so many bytes.
const RUN_BYTES: u64 = 8 << 20;

/// How much is kept, and in what portions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Most bytes that are kept.
    pub capacity_bytes: u64,
    /// Size of a block: the least that is fetched, and the unit that is dropped.
    pub block_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { capacity_bytes: 128 << 20, block_bytes: 1 << 20 }
    }
}

/// An object to read from: its name and length as the metadata have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedObject {
    /// Which object. Names are never reused, so this identifies its bytes.
    pub id: ObjectId,
    /// Where it is.
    pub key: Key,
    /// Its length in bytes.
    pub length: u64,
}

type BlockId = (ObjectId, u64);
type Blocks = Cache<BlockId, Bytes, BlockWeight, DefaultHashBuilder, DefaultLifecycle<BlockId, Bytes>>;
type Guard<'a> =
    PlaceholderGuard<'a, BlockId, Bytes, BlockWeight, DefaultHashBuilder, DefaultLifecycle<BlockId, Bytes>>;

#[derive(Debug, Clone)]
struct BlockWeight;

impl Weighter<BlockId, Bytes> for BlockWeight {
    fn weight(&self, _: &BlockId, block: &Bytes) -> u64 {
        // The entry itself costs something, too.
        block.len() as u64 + 128
    }
}

/// A bounded cache of blocks of objects, aligned to their size. Concurrent readers of a block share one request;
/// missing blocks that lie side by side are fetched together. Clones share everything.
#[derive(Debug, Clone)]
pub struct BlockCache {
    store: Store,
    blocks: Arc<Blocks>,
    block_bytes: u64,
}

impl BlockCache {
    /// An empty cache in front of a store.
    ///
    /// # Panics
    /// When the block size is 0.
    #[must_use]
    pub fn new(store: Store, settings: CacheSettings) -> Self {
        assert!(settings.block_bytes > 0, "a block has at least one byte");
        let blocks = settings.capacity_bytes / settings.block_bytes;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(blocks).unwrap_or(usize::MAX).max(16))
            .weight_capacity(settings.capacity_bytes)
            // Each shard holds its part of the capacity only, and must have room for several blocks.
            .shards(usize::try_from(blocks / 16).unwrap_or(usize::MAX).clamp(1, 16))
            .build()
            .expect("all options are given");
        let blocks = Cache::with_options(
            options,
            BlockWeight,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Self { store, blocks: Arc::new(blocks), block_bytes: settings.block_bytes }
    }

    /// The store behind the cache.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads a range into one piece. Nothing is copied when the range lies within one block.
    ///
    /// Cancel-safe; what other readers wait for goes on.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn read(
        &self,
        object: &CachedObject,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<Bytes, GetError> {
        let mut pieces = self.read_pieces(object, range.clone(), purpose).await?;
        if pieces.len() <= 1 {
            return Ok(pieces.pop().unwrap_or_default());
        }
        let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        Ok(joined.freeze())
    }

    /// Reads a range as the pieces of the blocks that it lies in; nothing is copied.
    ///
    /// Cancel-safe; what other readers wait for goes on.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn read_pieces(
        &self,
        object: &CachedObject,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<Vec<Bytes>, GetError> {
        if range.end > object.length {
            return Err(GetError::OutOfRange { key: object.key.clone(), end: range.end });
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (first, end) = (range.start / self.block_bytes, range.end.div_ceil(self.block_bytes));
        let mut pieces = Vec::new();
        let mut block = first;
        while block < end {
            for bytes in self.blocks_from(object, block, end, purpose).await? {
                let start = block * self.block_bytes;
                let (from, to) =
                    (range.start.max(start) - start, range.end.min(start + bytes.len() as u64) - start);
                let in_block = |at| usize::try_from(at).expect("a block fits into memory");
                pieces.push(bytes.slice(in_block(from)..in_block(to)));
                block += 1;
            }
        }
        Ok(pieces)
    }

    /// Fetches what is missing of a range in the background, for a reader that will come to it.
    pub fn prefetch(&self, object: CachedObject, range: Range<u64>) {
        let cache = self.clone();
        let range = range.start..range.end.min(object.length);
        tokio::spawn(async move {
            if let Err(error) = cache.read_pieces(&object, range, Purpose::Prefetch).await {
                tracing::debug!(%error, "reading ahead gave nothing");
            }
        });
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// One or more blocks from `first` on, at least one and all before `end`.
    async fn blocks_from(
        &self,
        object: &CachedObject,
        first: u64,
        end: u64,
        purpose: Purpose,
    ) -> Result<Vec<Bytes>, GetError> {
        let guard = match self.blocks.get_value_or_guard_async(&(object.id, first)).await {
            Ok(block) => {
                counter!(names::CACHE_HITS).increment(1);
                return Ok(vec![block]);
            }
            Err(guard) => guard,
        };
        let mut guards = vec![guard];
        let most = (RUN_BYTES / self.block_bytes).max(1);
        for next in first + 1..end.min(first.saturating_add(most)) {
            // Without waiting: a block that is there, or that somebody else fetches, ends the run.
            match self.blocks.get_value_or_guard(&(object.id, next), Some(Duration::ZERO)) {
                GuardResult::Guard(guard) => guards.push(guard),
                GuardResult::Value(_) | GuardResult::Timeout => break,
            }
        }
        self.fetch(object, first, guards, purpose).await
    }

    /// Fetches the blocks that the guards stand for. A guard that is dropped lets the next reader try.
    async fn fetch(
        &self,
        object: &CachedObject,
        first: u64,
        guards: Vec<Guard<'_>>,
        purpose: Purpose,
    ) -> Result<Vec<Bytes>, GetError> {
        let count = guards.len() as u64;
        let start = first * self.block_bytes;
        let end = (start + count * self.block_bytes).min(object.length);
        let blocks = self.store.get_pieces(&object.key, start..end, self.block_bytes, purpose).await?;
        let blocks = self.cut(start, blocks);
        counter!(names::CACHE_MISSES).increment(count);
        for (guard, block) in guards.into_iter().zip(&blocks) {
            // The cache may be too small for the block; its reader has it all the same.
            let _ = guard.insert(block.clone());
        }
        gauge!(names::CACHE_BYTES).set(self.blocks.weight() as f64);
        Ok(blocks)
    }

    /// Pieces as they came, as blocks; copies only what does not come as a block already.
    fn cut(&self, start: u64, pieces: Vec<Bytes>) -> Vec<Bytes> {
        let mut blocks = Vec::with_capacity(pieces.len());
        let mut open = BytesMut::new();
        let mut position = start;
        let last = start + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        for mut piece in pieces {
            while !piece.is_empty() {
                let room = self.block_bytes - position % self.block_bytes;
                let taken =
                    piece.split_to(usize::try_from(room).map_or(piece.len(), |room| room.min(piece.len())));
                position += taken.len() as u64;
                let ends = position.is_multiple_of(self.block_bytes) || position == last;
                if ends && open.is_empty() && piece.is_empty() {
                    blocks.push(taken);
                } else {
                    open.extend_from_slice(&taken);
                    if ends {
                        // Its own allocation: a slice would keep the whole reply in memory.
                        blocks.push(open.split().freeze());
                        open = BytesMut::new();
                    }
                }
            }
        }
        blocks
    }
}

#[cfg(test)]
mod tests;
