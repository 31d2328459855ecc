//! The data directory: who uses it, and what it tells others about the running node.
//!
//! ```text
//! lock             the process that uses it (locked, with its number inside)
//! identity         cluster, node, lineage: written by the metadata log
//! raft/            the metadata log and its snapshots
//! cache/           blocks of objects, when they are cached on disk; emptied at the start
//! store/           objects, when `dev` keeps them locally
//! endpoints.json   addresses in use, while a node runs
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::run::Addresses;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error("the data directory {} is already in use by {}", path.display(), Holder(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, when it said who it is.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("the data directory {} cannot be used: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// A data directory that this process alone uses, until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if there is none and locks it.
    ///
    /// # Errors
    /// When another process uses it, or the system refuses.
    pub fn claim(path: &Path) -> Result<Self, DataDirError> {
        let refused = |source| DataDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(refused)?;
        Self::lock(path)
    }

    /// Locks a directory that must be there, for looking at a stopped node.
    ///
    /// # Errors
    /// When it is not there, when another process uses it, or the system refuses.
    pub fn claim_existing(path: &Path) -> Result<Self, DataDirError> {
        let refused = |source| DataDirError::Io { path: path.to_owned(), source };
        fs::metadata(path).map_err(refused)?;
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self, DataDirError> {
        let refused = |source| DataDirError::Io { path: path.to_owned(), source };
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("lock"));
        let mut lock = open.map_err(refused)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                drop(lock.read_to_string(&mut text));
                return Err(DataDirError::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(errno) => return Err(refused(errno.into())),
        }
        lock.set_len(0).map_err(refused)?;
        lock.write_all(std::process::id().to_string().as_bytes()).map_err(refused)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of the metadata log.
    #[must_use]
    pub fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Tells other programs the addresses in use: whole or not at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_endpoints(&self, addresses: &Addresses) -> io::Result<()> {
        let text = serde_json::json!({
            "kafka": addresses.kafka.to_string(),
            "grpc": addresses.grpc.to_string(),
            "http": addresses.http.to_string(),
        });
        let fresh = self.path.join("endpoints.json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(format!("{text}\n").as_bytes())?;
        file.sync_data()?;
        fs::rename(&fresh, self.path.join("endpoints.json"))
    }

    /// Takes the addresses away: the node does not answer any more.
    pub fn remove_endpoints(&self) {
        drop(fs::remove_file(self.path.join("endpoints.json")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let first = DataDir::claim(&path).expect("free");
        let second = DataDir::claim(&path).expect_err("in use").to_string();
        assert!(second.contains(&format!("already in use by pid {}", std::process::id())), "{second}");
        drop(first);
        assert!(DataDir::claim(&path).is_ok());
    }

    #[test]
    fn looking_at_a_directory_does_not_make_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("missing");
        assert!(DataDir::claim_existing(&path).is_err());
        assert!(!path.exists());
    }
}
