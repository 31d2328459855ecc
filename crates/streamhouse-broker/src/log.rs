//! The metadata log as the broker sees it: propose commands, look at the state, make sure it is current.

use std::time::Duration;

use async_trait::async_trait;
use streamhouse_metadata::{Command, Outcome, State};
use streamhouse_types::LogIndex;

/// The replicated log of metadata commands. The server puts Raft behind it, tests a [`crate::local_log::LocalLog`].
#[async_trait]
pub trait MetadataLog: Send + Sync + 'static {
    /// Proposes commands in this order and waits until each is applied on this node or is known not to be.
    /// The answers are in the order of the commands, one for each.
    ///
    /// Not cancel-safe: a dropped call may have happened.
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>>;

    /// The applied state as it is now. A cheap clone that nothing changes any more.
    fn state(&self) -> State;

    /// Looks at the applied state under its read lock. `look` must be brief and must not propose.
    fn read(&self, look: &mut dyn FnMut(&State));

    /// Waits until this node has applied everything that was committed when the call began, and returns the index
    /// that it then stands at or beyond. Cancel-safe.
    ///
    /// # Errors
    /// When no quorum confirms it in time; the state at hand may then be old.
    async fn read_index(&self) -> Result<LogIndex, ReadIndexError>;

    /// Waits until this node has applied the entry at `index`, at most until `deadline` by the node's clock; tells
    /// whether it has. Cancel-safe.
    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool;
}

/// Why a command has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// The command is not in the log and never will be by this proposal.
    #[error("{reason}")]
    NotHappened {
        /// Why, for a person.
        reason: String,
    },
    /// The command may be in the log, or may yet appear in it.
    #[error("the answer of the metadata log was lost: {reason}")]
    Unknown {
        /// Why, for a person.
        reason: String,
    },
}

/// The state could not be shown to be current.
#[derive(Debug, Clone, thiserror::Error)]
#[error("metadata cannot be confirmed to be current: {reason}")]
pub struct ReadIndexError {
    /// Why, for a person.
    pub reason: String,
}

/// Reads something out of the applied state under its read lock.
pub(crate) fn read<T>(log: &dyn MetadataLog, look: impl FnOnce(&State) -> T) -> T {
    let mut look = Some(look);
    let mut found = None;
    log.read(&mut |state| {
        if let Some(look) = look.take() {
            found = Some(look(state));
        }
    });
    found.expect("MetadataLog::read calls the closure")
}
