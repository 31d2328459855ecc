//! A metadata log of one process without a disk, over the real state machine. For tests and tools.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use streamhouse_metadata::{Command, Outcome, State};
use streamhouse_types::LogIndex;

use crate::log::{MetadataLog, ProposeError, ReadIndexError};
use crate::watermark::HighWatermarks;

/// Applies each command as it is proposed. Nothing of it survives the process.
#[derive(Debug, Clone)]
pub struct LocalLog {
    state: Arc<RwLock<State>>,
    watermarks: HighWatermarks,
}

impl LocalLog {
    /// An empty log whose changes are told to `watermarks`.
    #[must_use]
    pub fn new(watermarks: HighWatermarks) -> Self {
        Self { state: Arc::new(RwLock::new(State::new())), watermarks }
    }

    /// Applies one command.
    pub fn apply(&self, command: &Command) -> Outcome {
        let applied = {
            let mut state = self.state.write();
            let index = LogIndex::new(state.applied().get() + 1);
            state.apply(index, command)
        };
        self.watermarks.advanced(&applied.changes);
        applied.outcome
    }
}

#[async_trait]
impl MetadataLog for LocalLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        commands.iter().map(|command| Ok(self.apply(command))).collect()
    }

    fn state(&self) -> State {
        self.state.read().clone()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        look(&self.state.read());
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        Ok(self.state.read().applied())
    }

    /// There is nobody to wait for: what is not applied here was never proposed.
    async fn wait_applied(&self, index: LogIndex, _deadline: Duration) -> bool {
        self.state.read().applied() >= index
    }
}
