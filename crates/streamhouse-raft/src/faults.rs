//! A file system in memory for tests: it fills up, fails at a chosen operation, and loses what was not synced when the
//! power goes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_env::{FileEntry, FileLock, LogFile, LogFs, Rng, SeededRng};

const SECTOR: usize = 64;

/// What becomes of unsynced changes when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    /// Each sector and each name by itself.
    Mixed(u64),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    synced: Vec<u8>,
    now: Vec<u8>,
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
    locked: bool,
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
        self.inode(id).now.resize(length, 0);
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
pub(crate) struct MemoryFs {
    disk: Arc<Mutex<Disk>>,
}

impl MemoryFs {
    /// Lets `changes` more changes happen; then each fails.
    pub(crate) fn cut_power_after(&self, changes: u64) {
        self.disk.lock().changes_left = Some(changes);
    }

    /// How many changes have happened.
    pub(crate) fn changes(&self) -> u64 {
        self.disk.lock().changes
    }

    /// From now on files together get no longer than `bytes`.
    pub(crate) fn limit(&self, bytes: Option<u64>) {
        self.disk.lock().room = bytes;
    }

    pub(crate) fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// The disk after a power cut, as a disk of its own.
    pub(crate) fn crashed(&self, unsynced: Unsynced) -> Self {
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
            let content = survive(inode, &keep);
            after.inodes.insert(*id, Inode { synced: content.clone(), now: content });
        }
        after.names = after.synced_names.clone();
        Self { disk: Arc::new(Mutex::new(after)) }
    }

    /// A disk of its own with the same content, all of it synced.
    pub(crate) fn copied(&self) -> Self {
        self.crashed(Unsynced::Kept)
    }

    /// Changes a file behind everybody's back.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        let id = disk.find(path).expect("the file is there");
        let inode = disk.inode(id);
        change(&mut inode.now);
        inode.synced = inode.now.clone();
    }

    /// All files and their content.
    pub(crate) fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.iter().map(|(path, id)| (path.clone(), disk.inodes[id].now.clone())).collect()
    }
}

fn survive(inode: &Inode, keep: &impl Fn() -> bool) -> Vec<u8> {
    let longer = inode.now.len().max(inode.synced.len());
    let mut content = if keep() { inode.now.clone() } else { inode.synced.clone() };
    let length = content.len();
    content.resize(longer, 0);
    for start in (0..longer).step_by(SECTOR) {
        let end = longer.min(start + SECTOR);
        let from = if keep() { &inode.now } else { &inode.synced };
        for (position, byte) in content[start..end].iter_mut().enumerate() {
            *byte = from.get(start + position).copied().unwrap_or(0);
        }
    }
    content.truncate(length);
    content
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

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut disk = self.disk.lock();
        if disk.locked {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        disk.locked = true;
        Ok(Box::new(MemoryLock { disk: self.disk.clone() }))
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: Arc<Mutex<Disk>>,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.lock().locked = false;
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
        disk.inode(self.id).now[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.change()?;
        let inode = disk.inode(self.id);
        inode.synced = inode.now.clone();
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
