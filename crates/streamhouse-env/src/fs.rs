//! Files of the Raft log: synchronous, positional, with each sync asked for by name.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

/// A file in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
}

/// Whether a write failed because there is no room for it: the disk is full, a quota is used up, or the process may not
/// make files so long (`ulimit -f`, `LimitFSIZE`).
#[must_use]
pub fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The file system under the Raft log. All calls block. What is not synced may be lost by a crash, in any part.
pub trait LogFs: fmt::Debug + Send + Sync + 'static {
    /// Makes `dir` and its missing parents, and syncs each parent it changed.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The files of `dir` in the order of their names; names that are not Unicode and directories are left out.
    ///
    /// # Errors
    /// The operating system's, such as `NotFound`.
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>>;

    /// Makes a new file. Its name is durable after [`sync_dir`](LogFs::sync_dir).
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, else the operating system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// Opens a file that exists for reading and writing.
    ///
    /// # Errors
    /// The operating system's, such as `NotFound`.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// The operating system's, such as `NotFound`.
    fn read(&self, path: &Path) -> io::Result<Bytes>;

    /// Gives a file another name in the same directory, replacing what had it. Durable after
    /// [`sync_dir`](LogFs::sync_dir).
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`sync_dir`](LogFs::sync_dir).
    ///
    /// # Errors
    /// The operating system's, such as `NotFound`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the file at `path`, made when missing, for one process alone until the answer is dropped or the process
    /// ends, however it ends.
    ///
    /// # Errors
    /// `WouldBlock` when somebody has it, else the operating system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// Holds a file for this process alone; dropping it lets the next one in.
pub trait FileLock: fmt::Debug + Send + Sync + 'static {}

impl FileLock for File {}

/// An open file. Closed when dropped, without a sync.
pub trait LogFile: fmt::Debug + Send + Sync + 'static {
    /// Reads from `position` until `buffer` is full or the file ends; returns how many bytes were read.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `position`. After an error any part of them may have been written.
    ///
    /// # Errors
    /// The operating system's, such as `StorageFull`.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable.
    ///
    /// # Errors
    /// The operating system's. After one, nothing that was not durable before can be trusted to become so.
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves the first `length` bytes of the file, which reads as zeros where nothing was written, so that later
    /// writes there change no size. Never shortens.
    ///
    /// # Errors
    /// The operating system's, such as `StorageFull`.
    fn preallocate(&self, length: u64) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros, to `length`.
    ///
    /// # Errors
    /// The operating system's.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdFs;

impl LogFs for StdFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new("."));
        self.create_dir(parent)?;
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                entries.push(FileEntry { name, length: metadata.len() });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        std::fs::read(path).map(Bytes::from)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }
}

impl LogFile for File {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, length) {
            // A file system without preallocation still works, with dearer syncs.
            Err(rustix::io::Errno::OPNOTSUPP) if self.metadata()?.len() < length => self.set_len(length),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            outcome => outcome.map_err(io::Error::from),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preallocated_file_reads_zeros_until_it_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/log");
        StdFs.create_dir(path.parent().expect("has a parent")).expect("made");
        let file = StdFs.create(&path).expect("created");
        file.preallocate(4_096).expect("reserved");
        file.write_at(10, b"hello").expect("written");
        file.sync_data().expect("synced");
        let mut seen = [1; 6];
        assert_eq!(file.read_at(10, &mut seen).expect("read"), 6);
        assert_eq!(&seen, b"hello\0");
        assert_eq!(file.read_at(4_094, &mut seen).expect("read"), 2);
        assert_eq!(StdFs.read(&path).expect("read").len(), 4_096);
    }

    #[test]
    fn a_locked_file_lets_nobody_else_in_until_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let held = StdFs.lock(&path).expect("free");
        assert_eq!(StdFs.lock(&path).expect_err("held").kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(StdFs.lock(&path).is_ok());
    }

    #[test]
    fn a_name_is_created_once_listed_in_order_and_moved() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["b", "a"] {
            StdFs.create(&dir.path().join(name)).expect("created");
        }
        let again = StdFs.create(&dir.path().join("a")).expect_err("taken");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        StdFs.rename(&dir.path().join("b"), &dir.path().join("c")).expect("renamed");
        StdFs.remove(&dir.path().join("a")).expect("removed");
        StdFs.sync_dir(dir.path()).expect("synced");
        let names = StdFs.list(dir.path()).expect("listed");
        assert_eq!(names, [FileEntry { name: "c".to_owned(), length: 0 }]);
    }
}
