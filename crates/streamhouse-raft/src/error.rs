//! What can go wrong, by operation.

use std::io;
use std::path::PathBuf;

use streamhouse_env::is_no_room;
use streamhouse_types::NodeId;

use crate::identity::IdentityError;
use crate::propose::{PROPOSAL_BYTES_MAX, PROPOSAL_COMMANDS_MAX};

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
    #[error("the identity of this data directory cannot be used")]
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
pub(crate) const RESTORE_OR_REPLACE: &str = "in a cluster, remove this node and start it with a new node id and \
                                             an empty directory; a copy of its data directory helps only a node that is \
                                             alone, and lacks what was written since";

/// Why a node that ran has stopped. No record that was acknowledged is lost by it.
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
    /// The cluster has agreed on something that this release does not know.
    #[error("the release is too old: {problem}")]
    Outdated {
        /// What it is.
        problem: String,
    },
    /// The data directory is an older copy of itself, or its disk has not kept what it had synced.
    #[error(
        "the data directory ends at entry {last} of the metadata log, and this node has acknowledged up to entry \
         {acknowledged}: it is an older copy. Remove the node from another one (streamhouse node remove), and start it \
         with an empty data directory under a new id"
    )]
    Rolled {
        /// Up to where the leader knows that the node had it.
        acknowledged: u64,
        /// What is left.
        last: u64,
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
        if is_no_room(error) { Self::DiskFull { problem } } else { Self::Disk { problem } }
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
    /// The proposal is larger than any node takes; nothing was appended.
    #[error(
        "{commands} commands of {bytes} bytes are too much for one proposal; \
         {PROPOSAL_COMMANDS_MAX} commands of {PROPOSAL_BYTES_MAX} bytes are allowed"
    )]
    TooLarge {
        /// Commands in it.
        commands: usize,
        /// Their encoded bytes.
        bytes: usize,
    },
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
pub enum MembershipError {
    /// This node does not lead: nothing was changed.
    #[error("this node does not lead, so it cannot change the membership{}", ask(*leader))]
    NotLeader {
        /// Who leads, when that is known and is another node.
        leader: Option<NodeId>,
    },
    /// Refused.
    #[error(
        "{voters} voters survive no more failures than {} do, and a tie stops them; choose an odd number", voters - 1
    )]
    EvenVoters {
        /// How many there would be.
        voters: usize,
    },
    /// Refused.
    #[error("a cluster without voters could never do anything again; name 1, 3 or 5 of them")]
    NoVoters,
    /// Refused.
    #[error("node {node} is not a member; let it join first")]
    NotMember {
        /// Who is not.
        node: NodeId,
    },
    /// Refused.
    #[error("node {node} has no vote; make it a voter first")]
    NotVoter {
        /// Who has none.
        node: NodeId,
    },
    /// Refused: leadership would go to a node that lags, and the cluster would stand still until it or another one leads.
    #[error("node {node} is silent or behind; let it catch up first")]
    Behind {
        /// Who is.
        node: NodeId,
    },
    /// Refused: another change is not committed yet.
    #[error("another change of the membership is under way; try again when it is done")]
    InProgress,
    /// The change was begun, and then leadership was lost or time ran out: it may have happened, in whole or in part. To
    /// ask for it again is safe and completes it.
    #[error("the change of the membership may have happened: {problem}; ask for it again")]
    Unknown {
        /// What came between.
        problem: String,
    },
    /// This node has stopped.
    #[error("the node has stopped")]
    Stopped,
    /// Refused by the consensus library.
    #[error("the membership was not changed: {problem}")]
    Refused {
        /// In its words.
        problem: String,
    },
}

fn ask(leader: Option<NodeId>) -> String {
    leader.map(|leader| format!("; ask node {leader}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_told_as_a_full_disk_whoever_grants_none() {
        // ENOSPC, EDQUOT, EFBIG
        for errno in [28, 122, 27] {
            let failure = Failure::of_io(&io::Error::from_raw_os_error(errno));
            assert!(matches!(failure, Failure::DiskFull { .. }), "{failure}");
        }
        let failure = Failure::of_io(&io::Error::from_raw_os_error(5));
        assert!(matches!(failure, Failure::Disk { .. }), "{failure}");
    }
}
