//! Who is told what was applied.

use async_trait::async_trait;
use bytes::Bytes;
use streamhouse_metadata::{Changes, Command, State};
use streamhouse_types::LogIndex;

/// Hears of every applied entry on this node, in order.
pub trait ApplyObserver: Send + Sync + 'static {
    /// `changes` of the command at `index`, encoded in `command`, are in the state. Called right after each apply, before
    /// the proposer is answered; must not block.
    fn applied(&self, index: LogIndex, command: &Bytes, changes: &Changes);

    /// The entry at `index` holds no command; the state stands at it now. Must not block.
    fn skipped(&self, _index: LogIndex) {}

    /// The whole state was replaced: at start, and when a node that lagged far behind got a snapshot. Must not block.
    fn replaced(&self, _state: &State) {}
}

/// Hears nothing.
impl ApplyObserver for () {
    fn applied(&self, _index: LogIndex, _command: &Bytes, _changes: &Changes) {}
}

/// What the leader has to propose of its own accord, such as the time.
pub trait LeaderCommands: Send + Sync + 'static {
    /// What is due by the applied state. Asked on the node that leads before each proposal, its own or a forwarded one;
    /// the commands go right in front of it, and nobody hears their outcomes. Must be brief and few, and must not block.
    fn due(&self, state: &State) -> Vec<Command>;
}

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last entry that it includes.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: u64,
}

/// Takes copies of snapshots, such as into the object store.
#[async_trait]
pub trait SnapshotSink: Send + Sync + 'static {
    /// A snapshot is durable on this node; `bytes` is the file. May take its time: a newer snapshot waits. What fails
    /// here is the sink's to log and to try again with the next one.
    async fn put(&self, info: SnapshotInfo, bytes: Bytes);
}
