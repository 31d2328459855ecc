//! What can go wrong, by operation.

use std::io;
use std::path::PathBuf;

use streamhouse_types::NodeId;

use crate::identity::IdentityError;

/// Why a node did not start. All of them need a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings do not fit together.
    #[error("{problem}")]
    Settings {
        /// What is wrong.
        problem: String,
    },
    /// Another process works in the directory.
    #[error("another process uses {}; stop it, or choose another data directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another node for ever.
    #[error("{} belongs to node {found}, not to node {expected}; start with that node id, or give this node a directory of its own", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who wanted it.
        expected: NodeId,
    },
    /// The identity file cannot be used.
    #[error("the identity of this data directory cannot be read")]
    Identity(#[source] IdentityError),
    /// The directory has an identity but its log is gone: the node has forgotten what it promised to others.
    #[error("{} has an identity but no log; restore the directory, or remove the node from the cluster and start it with a new node id and an empty directory", dir.display())]
    LogMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// Synced bytes are not what was written. Nothing was changed on disk.
    #[error("{} is damaged at byte {position}: {problem}; {fix}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong there.
        problem: String,
        /// What a person can do.
        fix: &'static str,
    },
    /// The operating system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The consensus library did not start.
    #[error("raft does not start: {problem}")]
    Raft {
        /// In its words.
        problem: String,
    },
}

/// What to do about damage, for [`StartError::Corrupt`].
pub(crate) const RESTORE_OR_REPLACE: &str = "restore the data directory from a copy, or, in a cluster, remove this \
                                             node and start it with a new node id and an empty directory";

/// Why a node that ran has stopped. Nothing that it acknowledged is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No room for the log or a snapshot.
    #[error("the disk is full: {problem}")]
    DiskFull {
        /// In the words of the operating system.
        problem: String,
    },
    /// The log or a snapshot could not be written or read.
    #[error("the disk failed: {problem}")]
    Disk {
        /// In the words of the operating system.
        problem: String,
    },
    /// The consensus library stopped.
    #[error("raft stopped: {problem}")]
    Raft {
        /// In its words.
        problem: String,
    },
}

impl Failure {
    pub(crate) fn of_io(error: &io::Error) -> Self {
        let problem = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { problem },
            _ => Self::Disk { problem },
        }
    }
}

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not appended, here or elsewhere: it may be proposed again as it is.
    #[error("no leader took the command")]
    NotHappened {
        /// Who leads, when that is known and is another node.
        leader: Option<NodeId>,
    },
    /// It was appended, and then this node stopped leading or working: it may or may not be committed.
    #[error("the outcome of the command is unknown")]
    Unknown,
    /// This node has stopped: the command was not appended.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a read could not be shown to be current.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader was found in time.
    #[error("no leader confirmed that it leads")]
    NoLeader {
        /// Who leads, when that is known and is another node.
        leader: Option<NodeId>,
    },
    /// This node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a change of the membership did not happen, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the membership was not changed: {problem}")]
pub struct MembershipError {
    /// In the words of the consensus library.
    pub problem: String,
}
