//! A folder of this machine as an object store. Why it is our own: `docs/adr/0003-local-store.md`.
//!
//! An object is written into a staging file, synced, renamed to its name, and then the folder is synced: after a crash
//! an object is there whole or not at all, and one that was answered is there. Staging files live in a folder of their
//! own that no key can name, and are held locked while they are written; what a crash left of them goes at the next
//! start.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use streamhouse_env::is_no_room;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::blob::{Blob, BlobError, BlobMeta, Page};
use crate::error::OpenError;
use crate::layout::{Key, Prefix};
use crate::payload::Payload;

use self::disk::{Disk, Pieces};

mod disk;

/// No key has a segment that starts with a dot.
const STAGING: &str = ".staging";
/// How many objects a page of a listing holds. Each page reads its folders anew, so pages are large.
const PAGE_OBJECTS: usize = 10_000;

/// How many reads are at work at a time. Each moves up to 1 MiB at once and takes a thread; a virtual disk was full with two.
const READS_AT_ONCE: usize = 8;

/// A folder as an object store.
#[derive(Debug, Clone)]
pub struct LocalBlob {
    folder: Arc<Folder>,
    reads: Arc<Semaphore>,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Device and inode of the root, once it is there. A root that is moved away, or whose disk is taken away, is not made
    /// anew: what was acknowledged lies in the old one, and what is written to a new one would be lost to it.
    home: OnceLock<(u64, u64)>,
    staged: AtomicU64,
    disk: Disk,
    /// Folders that exist and whose names are synced.
    known: RwLock<BTreeSet<PathBuf>>,
}

impl LocalBlob {
    /// Opens a folder, which the first write makes if it is not there, and removes what a crash left of unfinished writes.
    /// Several processes may have it open.
    ///
    /// # Errors
    /// When there is something else, or what is there cannot be used.
    pub async fn open(root: PathBuf) -> Result<Self, OpenError> {
        let folder = Folder {
            root,
            home: OnceLock::new(),
            staged: AtomicU64::new(0),
            disk: Disk::default(),
            known: RwLock::default(),
        };
        blocking(move || match folder.prepare() {
            Ok(()) => Ok(Self { folder: Arc::new(folder), reads: Arc::new(Semaphore::new(READS_AT_ONCE)) }),
            Err(source) => Err(OpenError::Folder { path: folder.root, source }),
        })
        .await
    }
}

/// Runs what waits for the disk where waiting is allowed. It goes on when the caller stops to wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down; whoever waits is dropped next.
            Err(_) => std::future::pending().await,
        },
    }
}

#[async_trait]
impl Blob for LocalBlob {
    async fn put(&self, key: &Key, payload: &Payload) -> Result<(), BlobError> {
        let (folder, key, payload) = (self.folder.clone(), key.clone(), payload.clone());
        blocking(move || folder.put(&key, &payload)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>, cut: u64) -> Result<Vec<Bytes>, BlobError> {
        let (folder, path) = (self.folder.clone(), self.folder.path(key));
        let reads = Arc::clone(&self.reads);
        // A task of its own, which ends with its caller: a place must not wait for one who is not at work.
        let mut task = JoinSet::new();
        task.spawn(async move {
            let place = reads.acquire_owned().await.expect("the semaphore is never closed");
            // Taken here: what threads that come and go had taken, and others give back, is long in coming to use again.
            let (end, pieces) = (range.end, Pieces::new(range, cut).ok_or(BlobError::OutOfRange)?);
            blocking(move || {
                // As long as it is at work, also when nobody waits for it any more.
                let _place = place;
                folder.judged(folder.read(&path, end, pieces))
            })
            .await
        });
        let read = task.join_next().await.expect("there is one task");
        read.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    async fn head(&self, key: &Key) -> Result<BlobMeta, BlobError> {
        let (folder, path) = (self.folder.clone(), self.folder.path(key));
        let look = move || folder.judged(fs::metadata(path).map(|meta| meta.len()).map_err(read_error));
        let length = blocking(look).await?;
        Ok(BlobMeta { key: key.clone(), length })
    }

    async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        let (folder, path) = (self.folder.clone(), self.folder.path(key));
        // Not synced: an object that a crash brings back is an orphan, and the sweep finds it again. The next write
        // into the folder makes the deletion durable anyway.
        match blocking(move || folder.judged(fs::remove_file(path).map_err(read_error))).await {
            Err(BlobError::NotFound) => Ok(()),
            result => result,
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&str>) -> Result<Page, BlobError> {
        let (folder, prefix, after) = (self.folder.clone(), prefix.clone(), after.map(str::to_owned));
        blocking(move || {
            folder.at_home().map_err(read_error)?;
            let mut walk = Walk { after, page: Page::default() };
            walk.folder(&folder.root.join(prefix.as_str()), prefix.as_str()).map_err(read_error)?;
            Ok(walk.page)
        })
        .await
    }

    fn is_local(&self) -> bool {
        true
    }
}

impl Folder {
    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn prepare(&self) -> io::Result<()> {
        self.at_home()?;
        if self.home.get().is_none() {
            return Ok(());
        }
        let staging = self.root.join(STAGING);
        self.ensure(&staging)?;
        for entry in fs::read_dir(&staging)? {
            let path = entry?.path();
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                // Nobody writes it any more.
                Ok(()) => match fs::remove_file(&path) {
                    // Its writer came to its end meanwhile, or another process that opens the folder was faster.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    removed => removed?,
                },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fails when the root is not the folder that it was. One that is not there yet is no fault.
    fn at_home(&self) -> io::Result<()> {
        let found = match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => Some((meta.dev(), meta.ino())),
            Ok(_) => return Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match (found, self.home.get()) {
            (None, None) => Ok(()),
            (Some(found), _) if *self.home.get_or_init(|| found) == found => Ok(()),
            _ => Err(io::Error::other(format!(
                "the folder {} is not the one that was opened: it was moved away, or its disk is not mounted. Bring it \
                 back, or start the node again if this is as it should be",
                self.root.display()
            ))),
        }
    }

    /// What is not there may lie where the root has gone.
    fn judged<T>(&self, read: Result<T, BlobError>) -> Result<T, BlobError> {
        if matches!(read, Err(BlobError::NotFound)) {
            self.at_home().map_err(read_error)?;
        }
        read
    }

    /// Makes a folder and those above it, and syncs the names of all that are new or not known. The root is made once.
    fn ensure(&self, folder: &Path) -> io::Result<()> {
        if self.known.read().contains(folder) {
            return Ok(());
        }
        // What exists above the root of the store was made by somebody else.
        let above = !folder.starts_with(&self.root);
        if (above || folder == self.root) && self.home.get().is_some() {
            self.at_home()?;
            // It may be new, made by another process that has not synced its name.
            let parent = folder.parent().filter(|parent| !above && parent.is_dir());
            parent.map_or(Ok(()), sync_folder)?;
            self.known.write().insert(folder.to_owned());
            return Ok(());
        }
        if let Some(parent) = folder.parent().filter(|_| !(above && folder.is_dir())) {
            self.ensure(parent)?;
            match fs::create_dir(folder) {
                Ok(()) => {}
                // Its name is synced all the same: whoever made it may not have come to that.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !folder.is_dir() {
                        return Err(ErrorKind::NotADirectory.into());
                    }
                }
                Err(error) => return Err(error),
            }
            sync_folder(parent)?;
        }
        if folder == self.root {
            self.at_home()?;
        }
        self.known.write().insert(folder.to_owned());
        Ok(())
    }

    fn put(&self, key: &Key, payload: &Payload) -> Result<(), BlobError> {
        let path = self.path(key);
        let parent = path.parent().expect("a key lies below the root").to_owned();
        self.at_home().map_err(write_error)?;
        self.ensure(&parent).map_err(write_error)?;
        let staged = self.stage(payload).map_err(write_error)?;
        let placed = place(&staged.path, &path).or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            // Somebody removed the folder behind our back.
            self.known.write().clear();
            self.ensure(&parent)?;
            place(&staged.path, &path)
        });
        if let Err(error) = placed {
            return Err(match error.kind() {
                ErrorKind::AlreadyExists => BlobError::AlreadyExists,
                _ => write_error(error),
            });
        }
        // From here on the object may be there after a crash.
        let unknown = |error| BlobError::Unknown(Box::new(error));
        sync_folder(&parent).map_err(unknown)?;
        // The root may have gone while this was written, to where nobody finds it.
        self.at_home().map_err(unknown)
    }

    fn read(&self, path: &Path, end: u64, pieces: Pieces) -> Result<Vec<Bytes>, BlobError> {
        let mut file = File::open(path).map_err(read_error)?;
        let length = file.metadata().map_err(read_error)?.len();
        // Checked first, so that nothing is touched for bytes that are not there.
        if length < end {
            return Err(BlobError::OutOfRange);
        }
        self.disk.read(&mut file, length, pieces).map_err(read_error)
    }

    /// Writes and syncs a staging file.
    fn stage(&self, payload: &Payload) -> io::Result<Staged> {
        let (path, mut file) = loop {
            let number = self.staged.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(STAGING).join(format!("{}-{number}", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                // Of an earlier process with our number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.known.write().clear();
                    self.ensure(&self.root.join(STAGING))?;
                }
                Err(error) => return Err(error),
            }
        };
        let staged = Staged { path };
        file.try_lock().map_err(io::Error::from)?;
        self.disk.write(&mut file, payload)?;
        file.sync_all()?;
        Ok(staged)
    }
}

/// A staging file, removed when it is dropped and still there.
struct Staged {
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "staging file stays until the next start");
            }
            _ => {}
        }
    }
}

/// Gives a file its name, which must be free.
fn place(staged: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE) {
        // Some file systems do not know this flag; they know links.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(staged, path),
        result => result.map_err(io::Error::from),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A listing in the order of keys.
struct Walk {
    after: Option<String>,
    page: Page,
}

impl Walk {
    /// Lists what lies in a folder, whose keys start with `prefix`, until the page is full.
    fn folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for name in sorted_names(folder)? {
            if self.page.next_after.is_some() {
                return Ok(());
            }
            let key = format!("{prefix}{name}");
            if key.ends_with('/') {
                let passed =
                    self.after.as_ref().is_some_and(|after| *after >= key && !after.starts_with(&key));
                if !passed {
                    self.folder(&folder.join(&name), &key)?;
                }
            } else if self.after.as_ref().is_none_or(|after| *after < key) {
                self.object(&folder.join(&name), &key)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, path: &Path, key: &str) -> io::Result<()> {
        let Ok(key) = key.parse::<Key>() else { return Ok(()) };
        let length = match fs::metadata(path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.page.objects.push(BlobMeta { key, length });
        if self.page.objects.len() == PAGE_OBJECTS {
            self.page.next_after = self.page.objects.last().map(|last| last.key.to_string());
        }
        Ok(())
    }
}

/// The names in a folder in the order of their keys; those of folders end in `/`. A folder that is not there is empty.
fn sorted_names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(mut name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

fn read_error(error: io::Error) -> BlobError {
    match error.kind() {
        ErrorKind::NotFound => BlobError::NotFound,
        ErrorKind::PermissionDenied => BlobError::Refused(Box::new(error)),
        _ => BlobError::NotHappened(Box::new(error)),
    }
}

/// Of a write that has not yet reached its name.
fn write_error(error: io::Error) -> BlobError {
    match error.kind() {
        _ if is_no_room(&error) => BlobError::NoSpace(Some(error)),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            BlobError::Refused(Box::new(error))
        }
        _ => BlobError::NotHappened(Box::new(error)),
    }
}

#[cfg(test)]
mod tests;
