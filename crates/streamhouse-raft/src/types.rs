//! What the consensus library is told about us. No other crate sees these names.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::{BasicNode, EntryPayload};
use parking_lot::Mutex;
use streamhouse_metadata::codec::{self, CodecError};
use streamhouse_metadata::{Command, Outcome};

use crate::runtime::Runtime;

openraft::declare_raft_types!(
    /// One leader a term; the commands are bytes; the answers are outcomes, or nothing for entries without command.
    pub(crate) TypeConfig:
        D = LoggedCommand,
        R = Option<Outcome>,
        NodeId = u64,
        Node = BasicNode,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<leader_id_std::LeaderId<u64, u64>>;
pub(crate) type Payload = EntryPayload<LoggedCommand, u64, BasicNode>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, BasicNode>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, BasicNode, Bytes>;

/// The log id of `index` in `term`.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// A command in the log: its bytes, and on the node that proposed it the command itself until it is applied.
#[derive(Clone)]
pub(crate) struct LoggedCommand {
    bytes: Bytes,
    decoded: Option<Arc<Mutex<Option<Command>>>>,
}

impl LoggedCommand {
    /// A command as it came from the disk or another node.
    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        Self { bytes, decoded: None }
    }

    /// A command that another node wants proposed, with bytes of its own.
    ///
    /// # Errors
    /// When this release cannot read it.
    pub(crate) fn checked(bytes: &Bytes) -> Result<Self, CodecError> {
        let command = codec::decode_command(bytes)?;
        let decoded = Some(Arc::new(Mutex::new(Some(command))));
        Ok(Self { bytes: Bytes::copy_from_slice(bytes), decoded })
    }

    /// A command that this node proposes.
    pub(crate) fn from_command(command: Command) -> Self {
        let bytes = codec::encode_command(&command);
        Self { bytes, decoded: Some(Arc::new(Mutex::new(Some(command)))) }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The command, to apply it. Lets go of the decoded form, so that a long log keeps only bytes.
    pub(crate) fn take(&self) -> Result<Command, CodecError> {
        let decoded = self.decoded.as_ref().and_then(|slot| slot.lock().take());
        decoded.map_or_else(|| codec::decode_command(&self.bytes), Ok)
    }
}

impl PartialEq for LoggedCommand {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for LoggedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for LoggedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.bytes.len())
    }
}
