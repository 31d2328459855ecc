//! Blocks on a disk of this machine, behind those in memory. Why it is so: `docs/adr/0013-disk-cache.md`.
//!
//! The disk only ever saves requests: whatever is wrong with it, blocks come from the store instead, and nobody waits
//! for it to write. Nothing is synced, and nothing is left of it after a restart.

mod entry;
mod places;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use streamhouse_env::{Clock, LogFile, LogFs};
use streamhouse_types::ObjectId;
use tokio::sync::Semaphore;

use self::places::{Place, Places, Room};
use super::shelf::BlockId;
use crate::metrics as names;
use crate::store::Store;

/// Blocks that may wait to be written, and how many bytes of them. One that comes when there are more is not kept.
const QUEUE_BLOCKS: u64 = 256;
const QUEUE_BYTES: u64 = 16 << 20;
/// How many runs of blocks are read at once. When there are more, the store is asked.
const READS_AT_ONCE: usize = 16;
/// A read that takes longer is given up, and the store is asked.
const READ_PATIENCE: Duration = Duration::from_millis(500);
/// How long the disk is left alone after it failed.
const REST: Duration = Duration::from_secs(60);
/// How many entries are dropped before others get their turn at the list.
const ENTRIES_AT_ONCE: usize = 256;
/// How the names of the files end.
const SUFFIX: &str = ".blocks";

/// Where blocks are kept on disk, and how many bytes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSettings {
    /// A folder of this cache alone; it is made when it is missing, and emptied at the start.
    pub dir: PathBuf,
    /// Most bytes of files; 0 for none. The list of what they hold takes about 1/300 of it in memory, and up to 1/80
    /// when the objects are small.
    pub capacity_bytes: u64,
}

/// The blocks on the disk. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct DiskTier {
    shared: Arc<Shared>,
    queue: SyncSender<Job>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    fs: Arc<dyn LogFs>,
    clock: Arc<dyn Clock>,
    places: Mutex<Places<Arc<dyn LogFile>>>,
    condition: Mutex<Condition>,
    reads: Arc<Semaphore>,
}

/// Whether the disk is made use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    /// It has just failed; whoever knows the time says for how long it is left alone.
    Failed,
    RestsUntil(Duration),
}

/// What the writing thread is given.
#[derive(Debug)]
enum Job {
    Write {
        id: BlockId,
        ticket: u64,
        bytes: Bytes,
    },
    /// Tells when everything before it was done.
    #[cfg(test)]
    Report(SyncSender<()>),
}

impl DiskTier {
    /// Starts with nothing on the disk; `None` when nothing is to be kept there, which is so for a store whose objects
    /// are files of this machine already. What an earlier process kept is then given back.
    pub(super) fn start(settings: &DiskSettings, block_bytes: u64, store: &Store) -> Option<Self> {
        let env = store.env();
        let shared = Arc::new(Shared {
            dir: settings.dir.clone(),
            fs: Arc::clone(&env.fs),
            clock: Arc::clone(&env.clock),
            places: Mutex::new(Places::new(settings.capacity_bytes, block_bytes)),
            condition: Mutex::new(Condition::Well),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
        });
        if settings.capacity_bytes == 0 || store.is_local() {
            shared.leave_nothing();
            return None;
        }
        let room = (QUEUE_BYTES / block_bytes).clamp(1, QUEUE_BLOCKS);
        let (queue, jobs) = sync_channel(usize::try_from(room).expect("some 100"));
        let writer = Writer { shared: Arc::clone(&shared), buffer: Vec::new(), is_ready: false };
        let thread = std::thread::Builder::new().name("disk-cache".to_owned());
        match thread.spawn(move || writer.run(&jobs)) {
            Ok(_) => Some(Self { shared, queue }),
            Err(error) => {
                tracing::warn!(%error, "disk cache has no thread and is not used");
                None
            }
        }
    }

    /// Those of some blocks of an object that are here, whole and as they were written. Does not wait for long: what a
    /// slow disk does not give is not here. Cancel-safe.
    pub(super) async fn read(&self, object: ObjectId, blocks: Range<u64>) -> Vec<Option<Bytes>> {
        let ids: Vec<BlockId> = blocks.map(|block| (object, block)).collect();
        let found = self.read_found(&ids).await;
        let hits = found.iter().flatten().count();
        counter!(names::CACHE_REQUESTS, "tier" => "disk", "outcome" => "hit").increment(hits as u64);
        counter!(names::CACHE_REQUESTS, "tier" => "disk", "outcome" => "miss")
            .increment((ids.len() - hits) as u64);
        found
    }

    async fn read_found(&self, ids: &[BlockId]) -> Vec<Option<Bytes>> {
        let nothing = vec![None; ids.len()];
        if !self.shared.is_well() {
            return nothing;
        }
        let places = {
            let places = self.shared.places.lock();
            ids.iter().map(|id| Some((*id, places.find(*id)?))).collect::<Vec<_>>()
        };
        if places.iter().all(Option::is_none) {
            return nothing;
        }
        let Ok(permit) = Arc::clone(&self.shared.reads).try_acquire_owned() else { return nothing };
        let shared = Arc::clone(&self.shared);
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let read =
                |place: Option<(BlockId, Place<_>)>| place.and_then(|(id, place)| shared.read(id, place));
            places.into_iter().map(read).collect::<Vec<_>>()
        });
        tokio::select! {
            biased;
            found = work => found.unwrap_or(nothing),
            () = self.shared.clock.sleep(READ_PATIENCE) => {
                self.shared.failed(&ErrorKind::TimedOut.into());
                nothing
            }
        }
    }

    /// Keeps a block, if that is possible without waiting.
    pub(super) fn offer(&self, id: BlockId, bytes: &Bytes) {
        if self.shared.is_well() {
            let Some(ticket) = self.shared.places.lock().expect(id) else { return };
            if self.queue.try_send(Job::Write { id, ticket, bytes: bytes.clone() }).is_ok() {
                return;
            }
            self.shared.places.lock().drop_entry(id, ticket);
        }
        counter!(names::CACHE_DROPPED).increment(1);
    }

    /// Drops blocks of an object, because their bytes turned out to be wrong.
    pub(super) fn forget(&self, object: ObjectId, blocks: Range<u64>) {
        self.shared.places.lock().forget(object, blocks);
    }
}

impl Shared {
    /// Whether the disk is made use of now.
    fn is_well(&self) -> bool {
        let mut condition = self.condition.lock();
        let now = self.clock.now();
        *condition = match *condition {
            Condition::Failed => Condition::RestsUntil(now + REST),
            Condition::RestsUntil(end) if now >= end => Condition::Well,
            condition => condition,
        };
        *condition == Condition::Well
    }

    /// Leaves the disk alone for a while.
    fn failed(&self, error: &io::Error) {
        let mut condition = self.condition.lock();
        if *condition == Condition::Well {
            *condition = Condition::Failed;
            tracing::warn!(dir = %self.dir.display(), %error, "disk cache failed and is left alone for a minute");
        }
    }

    /// Reads a block; one that is not what was written is not here.
    fn read(&self, id: BlockId, place: Place<Arc<dyn LogFile>>) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(place.bytes).ok()?];
        match place.file.read_at(place.position, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                match entry::decode(id, bytes) {
                    Ok(block) => return Some(block),
                    Err(error) => {
                        tracing::debug!(object = %id.0, block = id.1, %error, "cached block is damaged");
                        counter!(names::CACHE_REQUESTS, "tier" => "disk", "outcome" => "damaged")
                            .increment(1);
                    }
                }
            }
            Err(error) => self.failed(&error),
        }
        self.places.lock().drop_entry(id, place.ticket);
        None
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}{SUFFIX}"))
    }

    /// Removes what an earlier process left, or what was written before the disk failed.
    fn empty(&self) -> io::Result<()> {
        for file in self.fs.list(&self.dir)? {
            if file.name.ends_with(SUFFIX) {
                self.remove(&self.dir.join(file.name))?;
            }
        }
        Ok(())
    }

    /// Gives back what an earlier process kept.
    fn leave_nothing(&self) {
        match self.empty() {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(dir = %self.dir.display(), %error, "disk cache is not in use and stays on disk");
            }
            _ => {}
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.fs.remove(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn show_bytes(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        gauge!(names::CACHE_BYTES, "tier" => "disk").set(self.places.lock().bytes() as f64);
    }
}

/// The one who writes, on a thread of its own.
struct Writer {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    /// Whether the folder holds nothing but what this writer wrote.
    is_ready: bool,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        if let Err(error) = self.get_ready() {
            self.give_up(&error);
        }
        for job in jobs {
            match job {
                Job::Write { id, ticket, bytes } => {
                    if let Err(error) = self.write(id, ticket, &bytes) {
                        self.give_up(&error);
                    }
                    // What was written is found without it; what was not may be offered again.
                    self.shared.places.lock().drop_expected(id, ticket);
                }
                #[cfg(test)]
                Job::Report(done) => drop(done.send(())),
            }
        }
    }

    fn get_ready(&mut self) -> io::Result<()> {
        if !self.is_ready {
            self.shared.fs.create_dir(&self.shared.dir)?;
            self.shared.empty()?;
            self.is_ready = true;
        }
        Ok(())
    }

    fn write(&mut self, id: BlockId, ticket: u64, bytes: &Bytes) -> io::Result<()> {
        let is_well = *self.shared.condition.lock() == Condition::Well;
        if !is_well || !self.shared.places.lock().is_expected(id, ticket) {
            return Ok(());
        }
        self.get_ready()?;
        entry::encode(id, bytes, &mut self.buffer);
        let length = self.buffer.len() as u64;
        let (file, position) = loop {
            let room = self.shared.places.lock().room(length);
            match room {
                Room::Here { file, position } => break (file, position),
                Room::Open => self.open_file()?,
                Room::None => return Ok(()),
            }
        };
        file.write_at(position, &self.buffer)?;
        self.shared.places.lock().written(id, ticket, position, length);
        self.shared.show_bytes();
        Ok(())
    }

    fn open_file(&self) -> io::Result<()> {
        let gone = self.shared.places.lock().make_room();
        if let Some(gone) = gone {
            self.shared.remove(&self.shared.path(gone.number))?;
            for some in gone.blocks.chunks(ENTRIES_AT_ONCE) {
                let mut places = self.shared.places.lock();
                let dropped = some.iter().filter(|(id, ticket)| places.drop_entry(*id, *ticket)).count();
                counter!(names::CACHE_EVICTIONS, "tier" => "disk").increment(dropped as u64);
            }
        }
        let number = self.shared.places.lock().next_number();
        let file = self.shared.fs.create(&self.shared.path(number))?;
        self.shared.places.lock().opened(number, Arc::from(file));
        Ok(())
    }

    /// After a failure: gives everything back, as the disk may be full and others need it more.
    fn give_up(&mut self, error: &io::Error) {
        self.shared.failed(error);
        self.is_ready = false;
        self.shared.places.lock().clear();
        self.shared.show_bytes();
        if let Err(error) = self.shared.empty() {
            tracing::debug!(%error, "disk cache is not emptied yet");
        }
    }
}
