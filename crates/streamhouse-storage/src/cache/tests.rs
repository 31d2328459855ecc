use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamhouse_env::Env;
use streamhouse_types::{Attempt, Incarnation, Lane, NodeId, Slot, SlotSequence};
use tokio::sync::Semaphore;

use super::*;
use crate::blob::{Blob, BlobError, BlobMeta, Page};
use crate::layout::Prefix;
use crate::payload::Payload;

pub(super) const BLOCK: u64 = 10;

/// Objects whose byte at `n` is `n % 251`; counts requests and can hold them back.
#[derive(Debug)]
pub(super) struct Ruler {
    requests: AtomicUsize,
    pub(super) gate: Semaphore,
    fail: AtomicUsize,
}

impl Default for Ruler {
    fn default() -> Self {
        Self { requests: AtomicUsize::new(0), gate: Semaphore::new(1_000), fail: AtomicUsize::new(0) }
    }
}

#[async_trait::async_trait]
impl Blob for Ruler {
    async fn put(&self, _: &Key, _: &Payload) -> Result<(), BlobError> {
        Ok(())
    }

    async fn get_range(&self, _: &Key, range: Range<u64>, _: u64) -> Result<Vec<Bytes>, BlobError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let _pass = self.gate.acquire().await.expect("never closed");
        if self.fail.load(Ordering::SeqCst) > 0 {
            self.fail.fetch_sub(1, Ordering::SeqCst);
            return Err(BlobError::Refused("told to".into()));
        }
        // Pieces of 7, which are no blocks.
        let bytes: Vec<u8> = range.map(byte).collect();
        Ok(bytes.chunks(7).map(Bytes::copy_from_slice).collect())
    }

    async fn head(&self, key: &Key) -> Result<BlobMeta, BlobError> {
        Ok(BlobMeta { key: key.clone(), length: 0 })
    }

    async fn delete(&self, _: &Key) -> Result<(), BlobError> {
        Ok(())
    }

    async fn list(&self, _: &Prefix, _: Option<&str>) -> Result<Page, BlobError> {
        Ok(Page::default())
    }
}

pub(super) fn byte(position: u64) -> u8 {
    u8::try_from(position % 251).unwrap()
}

pub(super) fn object(sequence: u64, length: u64) -> CachedObject {
    let slot = Slot {
        node: NodeId::new(1),
        incarnation: Incarnation::new(1),
        lane: Lane::Wal,
        sequence: SlotSequence::new(sequence),
    };
    let id = ObjectId { slot, attempt: Attempt::new(0) };
    CachedObject { id, key: id.to_string().parse().unwrap(), length }
}

fn cache(capacity_bytes: u64) -> (Arc<Ruler>, BlockCache) {
    let ruler = Arc::new(Ruler::default());
    let store = Store::new(ruler.clone(), &Env::system());
    (ruler, BlockCache::new(store, &CacheSettings { capacity_bytes, block_bytes: BLOCK, disk: None }))
}

impl Ruler {
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(super) async fn read(cache: &BlockCache, object: &CachedObject, range: Range<u64>) -> Bytes {
    cache.read(object, range, Purpose::Fetch).await.unwrap()
}

#[tokio::test]
async fn any_range_gives_its_bytes() {
    let (_, cache) = cache(1 << 20);
    for (start, end) in [(0, 0), (0, 1), (9, 11), (10, 20), (3, 95), (90, 95), (94, 95)] {
        for object in [object(1, 95), object(start * 100 + end, 95)] {
            let expected: Vec<u8> = (start..end).map(byte).collect();
            assert_eq!(read(&cache, &object, start..end).await, expected, "{start}..{end}");
        }
    }
}

#[tokio::test]
async fn a_block_is_fetched_once_and_a_range_within_it_is_not_copied() {
    let (ruler, cache) = cache(1 << 20);
    let first = read(&cache, &object(1, 95), 12..14).await;
    let second = read(&cache, &object(1, 95), 12..19).await;
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert_eq!(ruler.requests(), 1);
}

#[tokio::test]
async fn missing_neighbours_come_with_one_request() {
    let (ruler, cache) = cache(1 << 20);
    read(&cache, &object(1, 95), 0..95).await;
    assert_eq!(ruler.requests(), 1);
    let (ruler, cache) = super::tests::cache(1 << 20);
    read(&cache, &object(1, 95), 45..46).await;
    read(&cache, &object(1, 95), 0..95).await;
    // The block in the middle was there: one request for those before it, one for those after it.
    assert_eq!(ruler.requests(), 3);
}

#[tokio::test]
async fn readers_at_the_same_time_share_one_request() {
    let (ruler, cache) = cache(1 << 20);
    ruler.gate.forget_permits(1_000);
    let readers: Vec<_> = (0..20)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { read(&cache, &object(1, 95), n % 10..20).await.len() })
        })
        .collect();
    while ruler.requests() == 0 {
        tokio::task::yield_now().await;
    }
    ruler.gate.add_permits(1_000);
    for reader in readers {
        assert!(reader.await.unwrap() > 10);
    }
    assert_eq!(ruler.requests(), 1);
}

#[tokio::test]
async fn a_failed_request_fails_its_reader_and_the_next_one_tries_again() {
    let (ruler, cache) = cache(1 << 20);
    ruler.fail.store(1, Ordering::SeqCst);
    assert!(cache.read(&object(1, 95), 0..95, Purpose::Fetch).await.is_err());
    assert_eq!(read(&cache, &object(1, 95), 0..95).await.len(), 95);
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_the_block_to_the_next() {
    let (ruler, cache) = cache(1 << 20);
    ruler.gate.forget_permits(1_000);
    let gone = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, &object(1, 95), 0..30).await.len() }
    });
    while ruler.requests() == 0 {
        tokio::task::yield_now().await;
    }
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, &object(1, 95), 0..30).await.len() }
    });
    tokio::task::yield_now().await;
    gone.abort();
    ruler.gate.add_permits(1_000);
    assert_eq!(waiting.await.unwrap(), 30);
}

#[tokio::test]
async fn the_cache_keeps_no_more_than_its_capacity() {
    let (_, cache) = cache(10_000);
    for sequence in 0..200 {
        read(&cache, &object(sequence, 95), 0..95).await;
        assert!(cache.bytes() <= 10_000, "{}", cache.bytes());
    }
    assert!(cache.bytes() > 5_000, "{}", cache.bytes());
}

#[tokio::test]
async fn a_cache_smaller_than_a_block_still_reads() {
    let (_, cache) = cache(1);
    assert_eq!(read(&cache, &object(1, 95), 3..92).await.len(), 89);
}

#[tokio::test]
async fn nothing_is_read_beyond_the_length_that_the_metadata_say() {
    let (ruler, cache) = cache(1 << 20);
    let error = cache.read(&object(1, 95), 90..96, Purpose::Fetch).await.unwrap_err();
    assert!(matches!(error, GetError::OutOfRange { end: 96, .. }), "{error}");
    assert_eq!(ruler.requests(), 0);
}

#[tokio::test]
async fn a_block_that_was_read_ahead_is_there_for_its_reader() {
    let (ruler, cache) = cache(1 << 20);
    let ahead = cache.ahead(object(1, 95), 50..1_000);
    assert!(ahead.is_whole());
    ahead.load().await.unwrap();
    assert_eq!(read(&cache, &object(1, 95), 50..95).await.len(), 45);
    assert_eq!(ruler.requests(), 1);
}

#[tokio::test]
async fn a_reader_waits_for_what_is_being_read_ahead_and_fetches_it_when_that_ends() {
    let (ruler, cache) = cache(1 << 20);
    let object = object(1, 95);
    let ahead = cache.ahead(object.clone(), 0..95);
    let mut reader = Box::pin(cache.read_pieces(&object, 0..95, Purpose::Fetch));
    assert!(futures::poll!(&mut reader).is_pending());
    assert_eq!(ruler.requests(), 0);
    drop(ahead);
    assert_eq!(reader.await.unwrap().len(), 10);
    assert_eq!(ruler.requests(), 1);
}

#[tokio::test]
async fn what_was_read_ahead_outlives_what_others_read_meanwhile() {
    let (ruler, cache) = cache(10_000);
    cache.ahead(object(1, 95), 0..95).load().await.unwrap();
    for sequence in 2..10 {
        read(&cache, &object(sequence, 95), 0..95).await;
    }
    let before = ruler.requests();
    assert_eq!(read(&cache, &object(1, 95), 0..95).await.len(), 95);
    assert_eq!(ruler.requests(), before);
}

#[tokio::test]
async fn no_more_is_read_ahead_than_there_is_room_for_until_readers_come_to_it() {
    let (ruler, cache) = cache(10_000);
    let mut all = 0;
    for sequence in 0.. {
        let ahead = cache.ahead(object(sequence, 95), 0..95);
        let whole = ahead.is_whole();
        ahead.load().await.unwrap();
        if !whole {
            break;
        }
        all = sequence + 1;
    }
    assert!((3..=4).contains(&all), "half of the cache, and not {all} objects");
    assert!(cache.bytes() <= 5_000 && cache.ahead_room() < 200, "{} {}", cache.bytes(), cache.ahead_room());
    let before = ruler.requests();
    for sequence in 0..all {
        read(&cache, &object(sequence, 95), 0..95).await;
    }
    assert_eq!(ruler.requests(), before);
    assert!(cache.ahead(object(99, 95), 0..95).is_whole(), "what was read makes room");
}

#[tokio::test]
async fn what_nobody_comes_for_does_not_keep_its_room_for_ever() {
    let (_, cache) = cache(10_000);
    let room = cache.ahead_room();
    cache.ahead(object(1, 95), 0..95).load().await.unwrap();
    assert!(cache.ahead_room() < room);
    for sequence in 2..30 {
        read(&cache, &object(sequence, 95), 0..95).await;
    }
    assert_eq!(cache.ahead_room(), room);
}

#[tokio::test]
async fn forgotten_blocks_are_fetched_again_and_their_neighbours_are_not() {
    let (ruler, cache) = cache(1 << 20);
    read(&cache, &object(1, 95), 0..95).await;
    cache.forget(&object(1, 95), 25..31);
    read(&cache, &object(1, 95), 0..20).await;
    read(&cache, &object(1, 95), 40..95).await;
    assert_eq!(ruler.requests(), 1);
    assert_eq!(read(&cache, &object(1, 95), 20..40).await.len(), 20);
    assert_eq!(ruler.requests(), 2);
}

#[tokio::test]
async fn a_block_that_is_forgotten_on_its_way_is_handed_over_and_not_kept() {
    let (ruler, cache) = cache(1 << 20);
    ruler.gate.forget_permits(1_000);
    let object = object(1, 95);
    let mut reader = Box::pin(cache.read(&object, 0..10, Purpose::Fetch));
    assert!(futures::poll!(&mut reader).is_pending());
    cache.forget(&object, 0..10);
    ruler.gate.add_permits(1_000);
    assert_eq!(reader.await.unwrap().len(), 10);
    assert_eq!(cache.bytes(), 0);
    read(&cache, &object, 0..10).await;
    assert_eq!(ruler.requests(), 2);
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_up_nobody_who_waits_for_the_same_blocks() {
    let (ruler, cache) = cache(1 << 20);
    let held = ruler.gate.acquire_many(1_000).await.unwrap();
    let object = object(1, 95);
    let mut still = std::pin::pin!(read(&cache, &object, 0..20));
    assert!(futures::poll!(still.as_mut()).is_pending());
    drop(held);
    let other = tokio::time::timeout(Duration::from_secs(10), read(&cache, &object, 5..15));
    assert_eq!(other.await.expect("not held up").len(), 10);
    assert_eq!(still.await.len(), 20);
    assert_eq!(ruler.requests(), 1);
}
