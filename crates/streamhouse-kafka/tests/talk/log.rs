//! The metadata log of a house: it can be cut off from those who would confirm that it is current.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streamhouse_broker::local_log::LocalLog;
use streamhouse_broker::metadata::{Command, Outcome, State};
use streamhouse_broker::{HighWatermarks, MetadataLog, ProposeError, ReadIndexError};
use streamhouse_types::LogIndex;

pub(crate) struct HouseLog {
    local: LocalLog,
    cut_off: AtomicBool,
}

impl HouseLog {
    pub(crate) fn new(watermarks: HighWatermarks) -> Self {
        Self { local: LocalLog::new(watermarks), cut_off: AtomicBool::new(false) }
    }

    pub(crate) fn apply(&self, command: &Command) -> Outcome {
        self.local.apply(command)
    }

    /// From now on nobody confirms that it is current.
    pub(crate) fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl MetadataLog for HouseLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        self.local.propose(commands).await
    }

    fn state(&self) -> State {
        self.local.state()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        self.local.read(look);
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(ReadIndexError { reason: "cut off".to_owned() });
        }
        self.local.read_index().await
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        self.local.wait_applied(index, deadline).await
    }
}
