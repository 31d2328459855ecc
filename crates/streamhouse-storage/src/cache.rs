//! Blocks of objects in memory and on disk, each fetched once.

mod disk;
mod shelf;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use streamhouse_types::ObjectId;
use tokio::task::JoinSet;

pub use self::disk::DiskSettings;
use self::disk::DiskTier;
use self::shelf::{Claim, Found, Shelf, Want};
use crate::error::GetError;
use crate::layout::Key;
use crate::metrics as names;
use crate::store::{Purpose, Store};

/// Blocks that lie side by side are fetched with one request of at most so many bytes.
const RUN_BYTES: u64 = 8 << 20;
/// Up to so many blocks of the disk between others that it lacks are fetched along with those: a request more would take
/// longer, and cost more, than their bytes.
const BRIDGED_BLOCKS: usize = 16;

/// How much is kept, and in what portions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Most bytes that are kept in memory.
    pub capacity_bytes: u64,
    /// Size of a block: the least that is fetched, and the unit that is dropped.
    pub block_bytes: u64,
    /// What is kept on disk besides; `None` for nothing.
    pub disk: Option<DiskSettings>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        // Small against the extents of a busy object: what a reader does not want of its first and last block is
        // then little, even when the readers of the neighbouring extents come at quite another time.
        Self { capacity_bytes: 128 << 20, block_bytes: 64 << 10, disk: None }
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

/// Blocks that lie side by side, which nobody else fetches.
#[derive(Debug)]
struct Run {
    first: u64,
    guards: Vec<Guard>,
}

/// The task of fetching a block. Dropping it lets the next reader try.
#[derive(Debug)]
struct Guard {
    shelf: Arc<Mutex<Shelf>>,
    claim: Claim,
}

impl Guard {
    /// Hands the block over. Returns whether it is kept: it is not when it was forgotten meanwhile.
    fn settle(self, block: Bytes) -> bool {
        // The claim is settled, so that dropping the guard changes nothing.
        self.shelf.lock().settle(&self.claim, block)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shelf.lock().abandon(&self.claim);
    }
}

/// Blocks that are to be read ahead: they have their room in the cache already. Readers that come to them wait for
/// [`Ahead::load`]; dropping this leaves the blocks to them.
#[derive(Debug)]
#[must_use = "readers wait for the blocks"]
pub struct Ahead {
    cache: BlockCache,
    object: CachedObject,
    runs: Vec<Run>,
    whole: bool,
}

impl Ahead {
    /// Whether there was room for the whole range.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Fetches the blocks. When this is dropped, whoever needs them fetches them.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn load(self) -> Result<(), GetError> {
        for run in self.runs {
            self.cache.load(&self.object, run, Purpose::Prefetch).await?;
        }
        Ok(())
    }
}

/// A bounded cache of blocks of objects, aligned to their size: in memory, and behind that on disk, where that is
/// wanted. Concurrent readers of a block share one request; missing blocks that lie side by side are fetched together.
/// Blocks that were read ahead are kept until their reader comes, and take up to half of the memory. Clones share
/// everything.
#[derive(Debug, Clone)]
pub struct BlockCache {
    store: Store,
    shelf: Arc<Mutex<Shelf>>,
    disk: Option<DiskTier>,
    block_bytes: u64,
}

impl BlockCache {
    /// An empty cache in front of a store. With a disk, a thread is started that ends with the last clone.
    ///
    /// # Panics
    /// When the block size is 0.
    #[must_use]
    pub fn new(store: Store, settings: &CacheSettings) -> Self {
        let block_bytes = settings.block_bytes;
        assert!(block_bytes > 0, "a block has at least one byte");
        let shelf = Arc::new(Mutex::new(Shelf::new(settings.capacity_bytes)));
        let disk = settings.disk.as_ref().and_then(|disk| DiskTier::start(disk, block_bytes, &store));
        Self { store, shelf, disk, block_bytes }
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
        let wanted = self.blocks_of(&range);
        let mut start = wanted.start * self.block_bytes;
        let mut pieces = Vec::new();
        for bytes in self.blocks(object, wanted, purpose).await? {
            let end = start + bytes.len() as u64;
            let in_block = |at: u64| usize::try_from(at - start).expect("a block fits into memory");
            pieces.push(bytes.slice(in_block(range.start.max(start))..in_block(range.end.min(end))));
            start = end;
        }
        Ok(pieces)
    }

    /// Sets aside room for what is missing of a range, up to [`Self::ahead_room`], for a reader that will come to it.
    /// Does not wait.
    pub fn ahead(&self, object: CachedObject, range: Range<u64>) -> Ahead {
        let range = range.start..range.end.min(object.length);
        let (mut runs, mut whole) = (Vec::new(), true);
        for block in self.blocks_of(&range) {
            match self.claim(&object, block, Want::Ahead) {
                Found::Here(_) | Found::Coming(_) => {}
                Found::Missing(claim) => self.add_to_runs(&mut runs, block, claim),
                Found::NoRoom => {
                    whole = false;
                    break;
                }
            }
        }
        Ahead { cache: self.clone(), object, runs, whole }
    }

    /// How many bytes may be read ahead now: half of the cache, less what is read ahead and was not asked for yet.
    #[must_use]
    pub fn ahead_room(&self) -> u64 {
        self.shelf.lock().ahead_room()
    }

    /// Drops the blocks of a range, because their bytes turned out to be wrong; the next reader fetches them.
    pub fn forget(&self, object: &CachedObject, range: Range<u64>) {
        let blocks = self.blocks_of(&range);
        let forget_on_disk = || {
            if let Some(disk) = &self.disk {
                disk.forget(object.id, blocks.clone());
            }
        };
        // From the disk twice: first, so that nobody brings the block back into memory; and again for those who offer
        // it meanwhile, see `fetch`.
        forget_on_disk();
        self.shelf.lock().forget(object.id, blocks.clone());
        forget_on_disk();
    }

    /// Bytes that are kept in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shelf.lock().bytes()
    }

    /// The blocks that a range lies in.
    fn blocks_of(&self, range: &Range<u64>) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        range.start / self.block_bytes..range.end.div_ceil(self.block_bytes)
    }

    fn claim(&self, object: &CachedObject, block: u64, want: Want) -> Found {
        let length = self.block_bytes.min(object.length.saturating_sub(block * self.block_bytes));
        self.shelf.lock().claim((object.id, block), length, want)
    }

    fn add_to_runs(&self, runs: &mut Vec<Run>, block: u64, claim: Claim) {
        let guard = Guard { shelf: Arc::clone(&self.shelf), claim };
        let most = usize::try_from(RUN_BYTES / self.block_bytes).unwrap_or(usize::MAX).max(1);
        match runs.last_mut() {
            Some(run) if run.first + run.guards.len() as u64 == block && run.guards.len() < most => {
                run.guards.push(guard);
            }
            _ => runs.push(Run { first: block, guards: vec![guard] }),
        }
    }

    /// Blocks of an object, in order: those that are here, those that others fetch, and the rest from the store.
    async fn blocks(
        &self,
        object: &CachedObject,
        wanted: Range<u64>,
        purpose: Purpose,
    ) -> Result<Vec<Bytes>, GetError> {
        let place = |block: u64| usize::try_from(block - wanted.start).expect("blocks fit into memory");
        let mut blocks: Vec<Option<Bytes>> = vec![None; place(wanted.end)];
        // Once more for the blocks that somebody else was to fetch, and did not.
        while blocks.iter().any(Option::is_none) {
            let (mut runs, mut coming) = (Vec::new(), Vec::new());
            for block in wanted.clone().filter(|block| blocks[place(*block)].is_none()).collect::<Vec<_>>() {
                match self.claim(object, block, Want::Now) {
                    Found::Here(bytes) => {
                        count_in_memory("hit", 1);
                        blocks[place(block)] = Some(bytes);
                    }
                    Found::Coming(loaded) => {
                        count_in_memory("shared", 1);
                        coming.push((block, loaded));
                    }
                    Found::Missing(claim) => self.add_to_runs(&mut runs, block, claim),
                    Found::NoRoom => unreachable!("only reading ahead needs room"),
                }
            }
            let firsts: Vec<u64> = runs.iter().map(|run| run.first).collect();
            let loads = runs.into_iter().map(|run| self.clone().load_apart(object.clone(), run, purpose));
            let loaded = futures::future::try_join_all(loads).await?;
            for (first, run) in firsts.into_iter().zip(loaded) {
                for (block, bytes) in (first..).zip(run) {
                    blocks[place(block)] = Some(bytes);
                }
            }
            for (block, mut loaded) in coming {
                if let Ok(bytes) = loaded.wait_for(Option::is_some).await {
                    blocks[place(block)].clone_from(&bytes);
                }
            }
        }
        Ok(blocks.into_iter().flatten().collect())
    }

    /// Gets the blocks of a run in a task of its own, which ends with its caller: others wait for them as well, and must
    /// not have to wait until the caller is at work again.
    async fn load_apart(
        self,
        object: CachedObject,
        run: Run,
        purpose: Purpose,
    ) -> Result<Vec<Bytes>, GetError> {
        let mut task = JoinSet::new();
        task.spawn(async move { self.load(&object, run, purpose).await });
        let loaded = task.join_next().await.expect("there is one task");
        loaded.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Gets the blocks of a run from the disk, and those that are not there from the store.
    async fn load(&self, object: &CachedObject, run: Run, purpose: Purpose) -> Result<Vec<Bytes>, GetError> {
        let Run { first, guards } = run;
        let end = first + guards.len() as u64;
        count_in_memory("miss", end - first);
        let Some(disk) = &self.disk else { return self.fetch(object, Run { first, guards }, purpose).await };
        let mut blocks = disk.read(object.id, first..end).await;
        bridge(&mut blocks);
        let mut missing: Vec<Run> = Vec::new();
        for ((number, guard), block) in (first..).zip(guards).zip(&blocks) {
            match (block, missing.last_mut()) {
                (Some(block), _) => {
                    guard.settle(block.clone());
                }
                (None, Some(run)) if run.first + run.guards.len() as u64 == number => run.guards.push(guard),
                (None, _) => missing.push(Run { first: number, guards: vec![guard] }),
            }
        }
        self.show_memory();
        let fetches = missing.into_iter().map(|run| async move {
            Ok::<_, GetError>((run.first, self.fetch(object, run, purpose).await?))
        });
        for (start, fetched) in futures::future::try_join_all(fetches).await? {
            let start = usize::try_from(start - first).expect("blocks fit into memory");
            for (place, block) in blocks[start..].iter_mut().zip(fetched) {
                *place = Some(block);
            }
        }
        Ok(blocks.into_iter().flatten().collect())
    }

    /// Fetches the blocks of a run from the store with one request.
    async fn fetch(&self, object: &CachedObject, run: Run, purpose: Purpose) -> Result<Vec<Bytes>, GetError> {
        let count = run.guards.len() as u64;
        let start = run.first * self.block_bytes;
        let end = (start + count * self.block_bytes).min(object.length);
        let blocks = self.store.get_pieces(&object.key, start..end, self.block_bytes, purpose).await?;
        let blocks = self.cut(start, blocks);
        for ((number, guard), block) in (run.first..).zip(run.guards).zip(&blocks) {
            // Wrong bytes may be forgotten at any moment. Before the offer or between the two: settling tells.
            // Afterwards: the block is dropped from memory and then from the disk.
            if let Some(disk) = &self.disk {
                disk.offer((object.id, number), block);
            }
            let is_kept = guard.settle(block.clone());
            if let Some(disk) = &self.disk
                && !is_kept
            {
                disk.forget(object.id, number..number + 1);
            }
        }
        self.show_memory();
        Ok(blocks)
    }

    fn show_memory(&self) {
        let evicted = self.shelf.lock().take_evicted();
        counter!(names::CACHE_EVICTIONS, "tier" => "memory").increment(evicted);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        gauge!(names::CACHE_BYTES, "tier" => "memory").set(self.bytes() as f64);
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

/// Leaves out what was found between two gaps that lie close together, so that they become one.
fn bridge(blocks: &mut [Option<Bytes>]) {
    let mut gap_end = None;
    for place in 0..blocks.len() {
        if blocks[place].is_none() {
            if let Some(end) = gap_end
                && place - end <= BRIDGED_BLOCKS
            {
                blocks[end..place].fill(None);
            }
            gap_end = Some(place + 1);
        }
    }
}

fn count_in_memory(outcome: &'static str, blocks: u64) {
    counter!(names::CACHE_REQUESTS, "tier" => "memory", "outcome" => outcome).increment(blocks);
}

#[cfg(test)]
mod tests;
