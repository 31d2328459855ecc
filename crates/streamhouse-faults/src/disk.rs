//! A file system in memory for tests: it fills up, fails at a chosen operation, and loses what was not synced when the
//! power goes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_env::{FileEntry, FileLock, LogFile, LogFs, Rng, SeededRng};

/// What is written whole or not at all. Smaller than any disk's, so that more is torn.
const SECTOR: usize = 64;

/// What becomes of unsynced changes when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of them are gone.
    Lost,
    /// None is gone.
    Kept,
    /// Each sector and each name by itself.
    Mixed(u64),
}

/// A file: what programs see, and what a power cut may leave of it.
#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    /// What the last sync left of the sectors that were changed since.
    before: BTreeMap<usize, Vec<u8>>,
    /// The length at the last sync.
    synced_length: usize,
}

impl Inode {
    fn of(content: Vec<u8>) -> Self {
        Self { synced_length: content.len(), now: content, before: BTreeMap::new() }
    }

    /// Keeps what the last sync left of the sectors that hold these bytes.
    fn keep(&mut self, bytes: Range<usize>) {
        for sector in bytes.start / SECTOR..bytes.end.div_ceil(SECTOR) {
            let (start, end) = (sector * SECTOR, self.now.len().min((sector + 1) * SECTOR));
            if start < end {
                self.before.entry(sector).or_insert_with(|| self.now[start..end].to_vec());
            }
        }
    }

    fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        self.keep(position..end);
        self.now[position..end].copy_from_slice(bytes);
    }

    fn resize(&mut self, length: usize) {
        self.keep(length.min(self.now.len())..self.now.len());
        self.now.resize(length, 0);
    }

    fn sync(&mut self) {
        self.before.clear();
        self.synced_length = self.now.len();
    }

    /// What is there after a power cut, sector by sector.
    fn survive(&self, keep: &impl Fn() -> bool) -> Vec<u8> {
        let length = if keep() { self.now.len() } else { self.synced_length };
        let mut content = self.now.clone();
        content.resize(content.len().max(self.synced_length), 0);
        for (sector, before) in &self.before {
            if !keep() {
                // What was written and cut off again since the last sync was never there for it.
                let start = content.len().min(sector * SECTOR);
                let end = content.len().min(start + before.len());
                content[start..end].copy_from_slice(&before[..end - start]);
            }
        }
        content.resize(length, 0);
        content
    }
}

#[derive(Debug, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    synced_names: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    /// Changes still allowed before every change fails.
    changes_left: Option<u64>,
    changes: u64,
    room: Option<u64>,
    locked: BTreeSet<PathBuf>,
}

impl Disk {
    /// Counts a change; fails when the power is gone.
    fn change(&mut self) -> io::Result<()> {
        if self.changes_left == Some(0) {
            return Err(io::Error::other("the power is gone"));
        }
        self.changes_left = self.changes_left.map(|left| left - 1);
        self.changes += 1;
        Ok(())
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.now.len() as u64).sum()
    }

    fn resize(&mut self, id: u64, length: u64) -> io::Result<()> {
        let now = self.inodes[&id].now.len() as u64;
        if self.room.is_some_and(|room| length > now && self.used() + length - now > room) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let length = usize::try_from(length).expect("small");
        self.inode(id).resize(length);
        Ok(())
    }

    fn inode(&mut self, id: u64) -> &mut Inode {
        self.inodes.get_mut(&id).expect("open files stay")
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// The file system. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryFs {
    disk: Arc<Mutex<Disk>>,
}

impl MemoryFs {
    /// Lets `changes` more changes happen; then each fails.
    pub fn cut_power_after(&self, changes: u64) {
        self.disk.lock().changes_left = Some(changes);
    }

    /// Takes a cut back that has not come yet.
    pub fn keep_power(&self) {
        self.disk.lock().changes_left.take_if(|left| *left > 0);
    }

    /// Whether the power has been cut.
    #[must_use]
    pub fn is_without_power(&self) -> bool {
        self.disk.lock().changes_left == Some(0)
    }

    /// The files that were changed since they were synced last.
    #[must_use]
    pub fn unsynced(&self) -> Vec<PathBuf> {
        let disk = self.disk.lock();
        let is_unsynced = |id: &u64| {
            let inode = &disk.inodes[id];
            !inode.before.is_empty() || inode.now.len() != inode.synced_length
        };
        disk.names.iter().filter(|(_, id)| is_unsynced(id)).map(|(path, _)| path.clone()).collect()
    }

    /// How many changes have happened.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.disk.lock().changes
    }

    /// From now on files together get no longer than `bytes`.
    pub fn limit(&self, bytes: Option<u64>) {
        self.disk.lock().room = bytes;
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// The disk after a power cut, as a disk of its own.
    #[must_use]
    pub fn crashed(&self, unsynced: Unsynced) -> Self {
        let disk = self.disk.lock();
        let rng = SeededRng::new(if let Unsynced::Mixed(seed) = unsynced { seed } else { 0 });
        let keep = || match unsynced {
            Unsynced::Lost => false,
            Unsynced::Kept => true,
            Unsynced::Mixed(_) => rng.below(2) == 0,
        };
        let mut after = Disk { next_inode: disk.next_inode, ..Disk::default() };
        after.synced_names = disk.synced_names.clone();
        for (path, id) in &disk.names {
            if disk.synced_names.get(path) != Some(id) && keep() {
                after.synced_names.insert(path.clone(), *id);
            }
        }
        let gone = disk.synced_names.keys().filter(|path| !disk.names.contains_key(*path));
        for path in gone.filter(|_| keep()) {
            after.synced_names.remove(path);
        }
        for (id, inode) in &disk.inodes {
            after.inodes.insert(*id, Inode::of(inode.survive(&keep)));
        }
        after.names = after.synced_names.clone();
        Self { disk: Arc::new(Mutex::new(after)) }
    }

    /// A disk of its own with the same content, all of it synced.
    #[must_use]
    pub fn copied(&self) -> Self {
        self.crashed(Unsynced::Kept)
    }

    /// Changes a file behind everybody's back.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        let id = disk.find(path).expect("the file is there");
        let inode = disk.inode(id);
        let mut content = std::mem::take(&mut inode.now);
        change(&mut content);
        *inode = Inode::of(content);
    }

    /// All files and their content.
    #[must_use]
    pub fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.iter().map(|(path, id)| (path.clone(), disk.inodes[id].now.clone())).collect()
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
}

impl LogFs for MemoryFs {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let disk = self.disk.lock();
        let inside = disk.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, id): (&PathBuf, &u64)| FileEntry {
            name: path.file_name().expect("a file").to_string_lossy().into_owned(),
            length: disk.inodes[id].now.len() as u64,
        };
        Ok(inside.map(entry).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let mut disk = self.disk.lock();
        if disk.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        disk.change()?;
        let id = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(id, Inode::default());
        disk.names.insert(path.to_owned(), id);
        Ok(Box::new(MemoryFile { disk: self.disk.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let id = self.disk.lock().find(path)?;
        Ok(Box::new(MemoryFile { disk: self.disk.clone(), id }))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let disk = self.disk.lock();
        let id = disk.find(path)?;
        Ok(disk.inodes[&id].now.clone().into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let id = disk.find(from)?;
        disk.change()?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.find(path)?;
        disk.change()?;
        disk.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.change()?;
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let now: BTreeMap<_, _> =
            disk.names.iter().filter(|(path, _)| inside(path)).map(|(p, id)| (p.clone(), *id)).collect();
        disk.synced_names.retain(|path, _| !inside(path));
        disk.synced_names.extend(now);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut disk = self.disk.lock();
        if !disk.locked.insert(path.to_owned()) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        let id = disk.next_inode;
        if let Entry::Vacant(entry) = disk.names.entry(path.to_owned()) {
            entry.insert(id);
            disk.next_inode += 1;
            disk.inodes.insert(id, Inode::default());
        }
        Ok(Box::new(MemoryLock { disk: self.disk.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.path);
    }
}

impl LogFile for MemoryFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk.lock();
        let content = &disk.inodes[&self.id].now;
        let start = usize::try_from(position).expect("small").min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.change()?;
        let end = position + bytes.len() as u64;
        if end > disk.inodes[&self.id].now.len() as u64 {
            disk.resize(self.id, end)?;
        }
        let start = usize::try_from(position).expect("small");
        disk.inode(self.id).write(start, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.change()?;
        disk.inode(self.id).sync();
        Ok(())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.change()?;
        if length > disk.inodes[&self.id].now.len() as u64 { disk.resize(self.id, length) } else { Ok(()) }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.change()?;
        disk.resize(self.id, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with one file of which `synced` is durable and `then` was written over it from `position` on.
    fn disk(synced: &[u8], position: u64, then: &[u8]) -> MemoryFs {
        let fs = MemoryFs::default();
        let path = Path::new("/d/file");
        let file = fs.create(path).expect("created");
        fs.sync_dir(Path::new("/d")).expect("synced");
        file.write_at(0, synced).expect("written");
        file.sync_data().expect("synced");
        file.write_at(position, then).expect("written");
        fs
    }

    fn after(fs: &MemoryFs, unsynced: Unsynced) -> Vec<u8> {
        fs.crashed(unsynced).read(Path::new("/d/file")).expect("its name is durable").to_vec()
    }

    #[test]
    fn what_was_written_and_cut_off_again_since_the_last_sync_leaves_nothing() {
        for synced in [0, 3] {
            let mut inode = Inode::of(vec![1; synced]);
            inode.resize(200);
            inode.write(100, &[2; 100]);
            inode.write(150, &[3; 50]);
            inode.resize(0);
            assert_eq!(inode.survive(&|| false), vec![1; synced]);
            assert!(inode.survive(&|| true).is_empty());
        }
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
        let fs = disk(&[1; 200], 150, &[2; 200]);
        assert_eq!(after(&fs, Unsynced::Lost), [1; 200]);
        assert_eq!(after(&fs, Unsynced::Kept), [[1; 150].as_slice(), &[2; 200]].concat());
        let mixed: BTreeSet<Vec<u8>> = (0..100).map(|seed| after(&fs, Unsynced::Mixed(seed))).collect();
        assert!(mixed.len() > 8, "sectors survive each by itself");
        assert!(mixed.iter().all(|content| content[..128] == [1; 128]), "what was not touched stays");
    }

    #[test]
    fn the_power_goes_between_a_write_and_its_sync() {
        let fs = disk(&[1; 200], 0, &[]);
        fs.cut_power_after(2);
        fs.keep_power();
        let file = fs.open(Path::new("/d/file")).expect("there");
        file.write_at(0, &[2; 200]).expect("the cut was taken back");
        file.sync_data().expect("the cut was taken back");
        fs.cut_power_after(1);
        assert!(!fs.is_without_power() && fs.unsynced().is_empty());
        file.write_at(0, &[3; 200]).expect("the last change");
        assert!(file.sync_data().is_err() && fs.is_without_power());
        assert_eq!(fs.unsynced(), [Path::new("/d/file")]);
        fs.keep_power();
        assert!(fs.is_without_power(), "what has come cannot be taken back");
        assert_eq!(after(&fs, Unsynced::Lost), [2; 200]);
        assert!(!fs.crashed(Unsynced::Lost).is_without_power());
    }

    #[test]
    fn a_cut_that_was_not_synced_comes_back() {
        let fs = disk(&[1; 200], 0, &[]);
        fs.open(Path::new("/d/file")).expect("there").set_length(10).expect("cut");
        assert_eq!(after(&fs, Unsynced::Lost), [1; 200]);
        assert_eq!(after(&fs, Unsynced::Kept), [1; 10]);
    }

    #[test]
    fn a_name_lasts_once_its_directory_is_synced() {
        let fs = disk(&[1], 0, &[]);
        fs.rename(Path::new("/d/file"), Path::new("/d/other")).expect("renamed");
        assert!(fs.crashed(Unsynced::Lost).read(Path::new("/d/other")).is_err());
        fs.sync_dir(Path::new("/d")).expect("synced");
        assert!(fs.crashed(Unsynced::Lost).read(Path::new("/d/file")).is_err());
        assert_eq!(fs.crashed(Unsynced::Lost).read(Path::new("/d/other")).expect("there"), &[1][..]);
    }

    #[test]
    fn each_path_has_one_lock_that_a_power_cut_opens() {
        let fs = MemoryFs::default();
        let held = fs.lock(Path::new("/a")).expect("free");
        assert!(fs.lock(Path::new("/a")).is_err());
        assert!(fs.lock(Path::new("/b")).is_ok());
        assert!(fs.crashed(Unsynced::Kept).lock(Path::new("/a")).is_ok());
        drop(held);
        assert!(fs.lock(Path::new("/a")).is_ok());
    }
}
