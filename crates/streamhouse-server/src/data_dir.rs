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

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use streamhouse_env::{FileLock, LogFile, LogFs};

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
    fs: Arc<dyn LogFs>,
    path: PathBuf,
    _lock: Box<dyn FileLock>,
}

impl DataDir {
    /// Makes the directory if there is none and locks it.
    ///
    /// # Errors
    /// When another process uses it, or the system refuses.
    pub fn claim(fs: &Arc<dyn LogFs>, path: &Path) -> Result<Self, DataDirError> {
        fs.create_dir(path).map_err(|source| DataDirError::Io { path: path.to_owned(), source })?;
        Self::lock(fs, path)
    }

    /// Locks a directory that must be there, for looking at a stopped node.
    ///
    /// # Errors
    /// When it is not there, when another process uses it, or the system refuses.
    pub fn claim_existing(fs: &Arc<dyn LogFs>, path: &Path) -> Result<Self, DataDirError> {
        fs.list(path).map_err(|source| DataDirError::Io { path: path.to_owned(), source })?;
        Self::lock(fs, path)
    }

    fn lock(fs: &Arc<dyn LogFs>, path: &Path) -> Result<Self, DataDirError> {
        let refused = |source| DataDirError::Io { path: path.to_owned(), source };
        let file = path.join("lock");
        let lock = fs.lock(&file).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let told = fs.read(&file).unwrap_or_default();
                let pid = std::str::from_utf8(&told).ok().and_then(|text| text.trim().parse().ok());
                DataDirError::InUse { path: path.to_owned(), pid }
            }
            _ => refused(error),
        })?;
        write_whole(&**fs, &file, std::process::id().to_string().as_bytes()).map_err(refused)?;
        Ok(Self { fs: Arc::clone(fs), path: path.to_owned(), _lock: lock })
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
        drop(self.fs.remove(&fresh));
        drop(self.fs.create(&fresh)?);
        write_whole(&*self.fs, &fresh, format!("{text}\n").as_bytes())?.sync_data()?;
        self.fs.rename(&fresh, &self.path.join("endpoints.json"))
    }

    /// Takes the addresses away: the node does not answer any more.
    pub fn remove_endpoints(&self) {
        drop(self.fs.remove(&self.path.join("endpoints.json")));
    }

    /// Whether nothing was ever kept in the folder of the metadata log.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.fs.list(&self.raft()).map_or(true, |files| files.is_empty())
    }
}

/// Makes `bytes` the content of a file that is there.
fn write_whole(fs: &dyn LogFs, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn LogFile>> {
    let file = fs.open(path)?;
    file.set_length(0)?;
    file.write_at(0, bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use streamhouse_env::Env;

    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let fs = Env::system().fs;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let first = DataDir::claim(&fs, &path).expect("free");
        let second = DataDir::claim(&fs, &path).expect_err("in use").to_string();
        assert!(second.contains(&format!("already in use by pid {}", std::process::id())), "{second}");
        drop(first);
        assert!(DataDir::claim(&fs, &path).is_ok());
    }

    #[test]
    fn looking_at_a_directory_does_not_make_it() {
        let fs = Env::system().fs;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("missing");
        assert!(DataDir::claim_existing(&fs, &path).is_err());
        assert!(!path.exists());
    }
}
