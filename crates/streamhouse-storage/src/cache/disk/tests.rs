use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Condvar;
use streamhouse_env::{Env, FileEntry, FileLock, StdFs};
use tempfile::TempDir;

use super::*;
use crate::cache::tests::{BLOCK, Ruler, byte, object, read};
use crate::cache::{BlockCache, CacheSettings};
use crate::metrics::CACHE_REQUESTS;
use crate::metrics::testing::Counted;
use crate::{Purpose, Store};

/// Two objects fit into each file.
const CAPACITY: u64 = 64 * 2_000;

/// A disk that fails and waits when it is told to.
#[derive(Debug, Default)]
struct FaultyFs {
    /// Writes fail so.
    write_error: Mutex<Option<ErrorKind>>,
    reads_fail: AtomicBool,
    reads: AtomicUsize,
    writes: AtomicUsize,
    held: Mutex<Held>,
    let_go: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    reads: bool,
    writes: bool,
}

impl FaultyFs {
    fn wait_while(&self, held: fn(&Held) -> bool) {
        self.let_go.wait_while(&mut self.held.lock(), |state| held(state));
    }

    fn hold(&self, held: Held) {
        *self.held.lock() = held;
        self.let_go.notify_all();
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Box<dyn LogFile>,
    fs: Arc<FaultyFs>,
}

impl LogFile for FaultyFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.fs.reads.fetch_add(1, Ordering::SeqCst);
        self.fs.wait_while(|held| held.reads);
        if self.fs.reads_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("told to"));
        }
        self.inner.read_at(position, buffer)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.fs.writes.fetch_add(1, Ordering::SeqCst);
        self.fs.wait_while(|held| held.writes);
        match *self.fs.write_error.lock() {
            // As a full disk does: a part of it is there.
            Some(kind) => self.inner.write_at(position, &bytes[..bytes.len() / 2]).and(Err(kind.into())),
            None => self.inner.write_at(position, bytes),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        panic!("nothing is synced")
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.inner.preallocate(length)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }
}

/// The file system that the cache is given.
#[derive(Debug)]
struct Handle(Arc<FaultyFs>);

impl LogFs for Handle {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        StdFs.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        StdFs.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(FaultyFile { inner: StdFs.create(path)?, fs: Arc::clone(&self.0) }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        StdFs.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        StdFs.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        StdFs.remove(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        panic!("nothing is synced")
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        StdFs.lock(path)
    }
}

/// A cache that keeps nothing in memory, over a disk that fails when it is told to.
struct Bench {
    dir: TempDir,
    fs: Arc<FaultyFs>,
    ruler: Arc<Ruler>,
    cache: BlockCache,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A thread that waits would keep a test that fails from ending.
        self.fs.hold(Held::default());
    }
}

impl Bench {
    fn new() -> Self {
        Self::over(tempfile::tempdir().expect("a folder"), CAPACITY)
    }

    fn over(dir: TempDir, capacity_bytes: u64) -> Self {
        let (fs, ruler) = (Arc::new(FaultyFs::default()), Arc::new(Ruler::default()));
        let env = Env { fs: Arc::new(Handle(Arc::clone(&fs))), ..Env::system() };
        let store = Store::new(ruler.clone(), &env);
        let disk = Some(DiskSettings { dir: dir.path().join("cache"), capacity_bytes });
        let settings = CacheSettings { capacity_bytes: 1, block_bytes: BLOCK, disk };
        let bench = Self { dir, fs, ruler, cache: BlockCache::new(store, &settings) };
        if capacity_bytes > 0 {
            bench.settle();
        }
        bench
    }

    /// Waits until everything that was offered so far is written or dropped.
    fn settle(&self) {
        let (done, settled) = sync_channel(1);
        let disk = self.cache.disk.as_ref().expect("a disk");
        disk.queue.send(Job::Report(done)).expect("the writer lives");
        settled.recv().expect("the writer lives");
    }

    /// Reads an object of 95 bytes; returns how many requests that took.
    async fn read(&self, sequence: u64) -> usize {
        let before = self.ruler.requests();
        let bytes = read(&self.cache, &object(sequence, 95), 0..95).await;
        assert_eq!(bytes, (0..95).map(byte).collect::<Vec<u8>>());
        self.ruler.requests() - before
    }

    /// Reads an object when it is written to the disk already.
    async fn read_settled(&self, sequence: u64) -> usize {
        let requests = self.read(sequence).await;
        self.settle();
        requests
    }

    fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = StdFs.list(&self.dir.path().join("cache")).expect("listed");
        files.into_iter().map(|file| (self.dir.path().join("cache").join(file.name), file.length)).collect()
    }

    /// Changes the bytes of the only file.
    fn spoil(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let [(path, _)] = &self.files()[..] else { panic!("one file") };
        let mut bytes = std::fs::read(path).expect("read");
        change(&mut bytes);
        std::fs::write(path, bytes).expect("written");
    }
}

const ENTRY: usize = entry::HEADER_BYTES + 10;

#[tokio::test]
async fn a_block_that_left_memory_comes_from_the_disk() {
    let bench = Bench::new();
    assert_eq!(bench.read_settled(1).await, 1);
    assert_eq!(bench.read_settled(1).await, 0);
    assert_eq!(bench.cache.read(&object(1, 95), 33..57, Purpose::Fetch).await.unwrap().len(), 24);
    assert_eq!((bench.ruler.requests(), bench.read(2).await), (1, 1));
}

#[tokio::test]
async fn only_what_the_disk_lacks_is_fetched() {
    let bench = Bench::new();
    let object = object(1, 600);
    read(&bench.cache, &object, 20..40).await;
    read(&bench.cache, &object, 100..270).await;
    read(&bench.cache, &object, 300..460).await;
    bench.settle();
    let before = bench.ruler.requests();
    let bytes = read(&bench.cache, &object, 0..600).await;
    assert_eq!(bytes, (0..600).map(byte).collect::<Vec<u8>>());
    // Before and behind the 17 blocks; the other runs of 16 and less are not worth a request more.
    assert_eq!(bench.ruler.requests() - before, 2);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_wiped_fails_no_reader_and_is_made_anew() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    std::fs::remove_dir_all(bench.dir.path().join("cache")).expect("wiped");
    // The open file is still there; the next one cannot be made.
    assert_eq!(bench.read(1).await, 0);
    for sequence in 2..10 {
        assert_eq!(bench.read_settled(sequence).await, 1);
    }
    tokio::time::advance(REST).await;
    assert_eq!((bench.read_settled(1).await, bench.read(1).await), (1, 0));
    assert_eq!(bench.files().len(), 1);
}

#[tokio::test]
async fn each_tier_counts_what_it_has_and_what_it_lacks() {
    let counted = Counted::default();
    let _guard = metrics::set_default_local_recorder(&counted);
    let bench = Bench::new();
    read(&bench.cache, &object(1, 95), 20..40).await;
    bench.settle();
    bench.read(1).await;
    let requests = |tier: &str, outcome: &str| counted.get(CACHE_REQUESTS, &[tier, outcome]);
    assert_eq!((requests("memory", "hit"), requests("memory", "miss")), (0, 12));
    assert_eq!((requests("disk", "hit"), requests("disk", "miss")), (2, 10));
}

#[tokio::test]
async fn a_changed_bit_is_never_served_and_the_block_is_fetched_again() {
    for place in [0, 8, 10, 13, 16, 24, 32, 40, 44, 56, 64, 68, 72, 81] {
        let bench = Bench::new();
        bench.read_settled(1).await;
        bench.spoil(|bytes| bytes[ENTRY * 3 + place] ^= 4);
        assert_eq!(bench.read_settled(1).await, 1, "byte {place}");
        assert_eq!(bench.read(1).await, 0, "it is kept anew");
    }
}

#[tokio::test]
async fn a_torn_or_emptied_file_is_never_served() {
    for length in [0, 1, ENTRY * 4 + 5, ENTRY * 5 + entry::HEADER_BYTES] {
        let bench = Bench::new();
        bench.read_settled(1).await;
        bench.spoil(|bytes| bytes.truncate(length));
        assert_eq!(bench.read(1).await, 1, "{length}");
        bench.settle();
        assert_eq!(bench.read(1).await, 0, "{length}");
    }
}

#[tokio::test]
async fn a_whole_block_in_the_wrong_place_is_never_served() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    bench.read_settled(2).await;
    // Blocks of another object, and another block of the same.
    bench.spoil(|bytes| {
        let (first, second) = bytes.split_at_mut(ENTRY * 10 - 5);
        first[..ENTRY].copy_from_slice(&second[..ENTRY]);
        first.copy_within(ENTRY * 4..ENTRY * 5, ENTRY * 6);
    });
    assert_eq!(bench.read(1).await, 1, "both at once");
    assert_eq!(bench.read(2).await, 0);
}

#[tokio::test]
async fn what_was_forgotten_is_gone_from_the_disk_too() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    bench.cache.forget(&object(1, 95), 25..31);
    assert_eq!(bench.read(1).await, 1);
}

#[tokio::test]
async fn what_was_forgotten_on_its_way_to_the_disk_does_not_arrive() {
    let bench = Bench::new();
    bench.fs.hold(Held { writes: true, reads: false });
    bench.read(1).await;
    bench.cache.forget(&object(1, 95), 0..95);
    bench.fs.hold(Held::default());
    bench.settle();
    assert_eq!(bench.read(1).await, 1);
}

#[tokio::test]
async fn what_was_forgotten_on_its_way_from_the_store_is_not_kept() {
    let bench = Bench::new();
    bench.ruler.gate.forget_permits(1_000);
    let object = object(1, 95);
    let mut reader = Box::pin(bench.cache.read(&object, 0..95, Purpose::Fetch));
    assert!(futures::poll!(&mut reader).is_pending());
    while bench.ruler.requests() == 0 {
        assert!(futures::poll!(&mut reader).is_pending());
        tokio::task::yield_now().await;
    }
    bench.cache.forget(&object, 0..95);
    bench.ruler.gate.add_permits(1_000);
    assert_eq!(reader.await.unwrap().len(), 95);
    bench.settle();
    assert_eq!(bench.read(1).await, 1);
}

#[tokio::test]
async fn the_files_never_hold_more_than_they_may_and_the_oldest_blocks_go() {
    let bench = Bench::new();
    for sequence in 1..=200 {
        bench.read_settled(sequence).await;
        let bytes: u64 = bench.files().iter().map(|(_, length)| length).sum();
        assert!(bytes <= CAPACITY, "{bytes}");
    }
    assert!(bench.files().len() > 60);
    assert_eq!((bench.read(1).await, bench.read(200).await), (1, 0));
}

#[tokio::test]
async fn nothing_is_left_of_it_after_a_restart() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    std::fs::write(bench.dir.path().join("cache/other"), b"of somebody else").expect("written");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::rename(bench.dir.path().join("cache"), dir.path().join("cache")).expect("moved");
    let again = Bench::over(dir, CAPACITY);
    assert_eq!(again.files().len(), 1, "what is not ours stays");
    assert_eq!(again.read(1).await, 1);
}

#[tokio::test]
async fn a_cache_that_is_switched_off_gives_back_what_it_took() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::rename(bench.dir.path().join("cache"), dir.path().join("cache")).expect("moved");
    let off = Bench::over(dir, 0);
    assert_eq!(off.files(), []);
    assert_eq!((off.read(1).await, off.read(1).await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_gets_its_room_back_and_is_tried_again_later() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    *bench.fs.write_error.lock() = Some(ErrorKind::StorageFull);
    assert_eq!(bench.read_settled(2).await, 1);
    assert_eq!(bench.files(), []);
    let writes = bench.fs.writes.load(Ordering::SeqCst);
    for sequence in 1..10 {
        assert_eq!(bench.read_settled(sequence).await, 1, "reads go on");
    }
    assert_eq!(bench.fs.writes.load(Ordering::SeqCst), writes, "and the disk is left alone");
    *bench.fs.write_error.lock() = None;
    tokio::time::advance(REST).await;
    assert_eq!((bench.read_settled(1).await, bench.read(1).await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_read_fails_no_reader_and_is_left_alone() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    bench.read_settled(2).await;
    bench.fs.reads_fail.store(true, Ordering::SeqCst);
    assert_eq!(bench.read(1).await, 1);
    let reads = bench.fs.reads.load(Ordering::SeqCst);
    assert_eq!((bench.read(1).await, bench.read(2).await), (1, 1));
    assert_eq!(bench.fs.reads.load(Ordering::SeqCst), reads);
    bench.fs.reads_fail.store(false, Ordering::SeqCst);
    tokio::time::advance(REST).await;
    assert_eq!((bench.read_settled(1).await, bench.read(1).await), (1, 0));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_fails_no_reader() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("cache"), b"a file").expect("written");
    let bench = Bench::over(dir, CAPACITY);
    assert_eq!((bench.read_settled(1).await, bench.read_settled(1).await), (1, 1));
}

#[tokio::test]
async fn a_disk_that_writes_slowly_holds_nobody_up_and_misses_blocks() {
    let bench = Bench::new();
    bench.fs.hold(Held { writes: true, reads: false });
    let disk = bench.cache.disk.as_ref().unwrap();
    for block in 0..QUEUE_BLOCKS + 10 {
        disk.offer((object(1, 95).id, block), &Bytes::from_static(b"0123456789"));
    }
    assert_eq!(bench.read(2).await, 1, "the queue is full");
    bench.fs.hold(Held::default());
    bench.settle();
    assert_eq!(bench.read_settled(2).await, 1, "so it was not kept");
    assert_eq!(bench.read(2).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_reads_slowly_is_passed_over() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    bench.fs.hold(Held { reads: true, writes: false });
    let object = object(1, 95);
    let mut reader = Box::pin(bench.cache.read(&object, 0..95, Purpose::Fetch));
    while bench.fs.reads.load(Ordering::SeqCst) == 0 {
        assert!(futures::poll!(&mut reader).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.ruler.requests(), 1);
    tokio::time::advance(READ_PATIENCE).await;
    assert_eq!(reader.await.unwrap().len(), 95);
    assert_eq!(bench.ruler.requests(), 2);
    assert_eq!(bench.read(1).await, 1, "it is left alone");
}

#[tokio::test]
async fn when_many_read_the_disk_the_next_one_asks_the_store() {
    let bench = Bench::new();
    let last = READS_AT_ONCE as u64 + 1;
    for sequence in 1..=last {
        bench.read_settled(sequence).await;
    }
    bench.fs.hold(Held { reads: true, writes: false });
    let readers: Vec<_> = (1..last)
        .map(|sequence| {
            let cache = bench.cache.clone();
            tokio::spawn(async move { read(&cache, &object(sequence, 95), 0..95).await.len() })
        })
        .collect();
    while bench.fs.reads.load(Ordering::SeqCst) < READS_AT_ONCE {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.read(last).await, 1);
    bench.fs.hold(Held::default());
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 95);
    }
}

#[tokio::test]
async fn readers_at_the_same_time_share_what_is_read_from_the_disk() {
    let bench = Bench::new();
    bench.read_settled(1).await;
    let readers = (0..20).map(|_| bench.read(1));
    assert_eq!(futures::future::join_all(readers).await.iter().sum::<usize>(), 0);
    assert_eq!(bench.fs.reads.load(Ordering::SeqCst), 10);
}
