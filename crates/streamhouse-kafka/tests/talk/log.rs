//! The metadata log of a house: it can be cut off from those who would confirm that it is current, and have changes of
//! settings meet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streamhouse_broker::local_log::LocalLog;
use streamhouse_broker::metadata::{Command, Outcome, State};
use streamhouse_broker::{HighWatermarks, MetadataLog, ProposeError, ReadIndexError};
use streamhouse_types::LogIndex;
use tokio::sync::{Barrier, Mutex};

pub(crate) struct HouseLog {
    local: LocalLog,
    cut_off: AtomicBool,
    in_pairs: AtomicBool,
    pair: Barrier,
    /// While it is held, whoever asks whether the metadata are current waits.
    pub(crate) confirming: Mutex<()>,
    /// While it is held, what is committed waits for its answer.
    pub(crate) committing: Mutex<()>,
}

impl HouseLog {
    pub(crate) fn new(watermarks: HighWatermarks) -> Self {
        Self {
            local: LocalLog::new(watermarks),
            cut_off: AtomicBool::new(false),
            in_pairs: AtomicBool::new(false),
            pair: Barrier::new(2),
            confirming: Mutex::new(()),
            committing: Mutex::new(()),
        }
    }

    pub(crate) fn apply(&self, command: &Command) -> Outcome {
        self.local.apply(command)
    }

    /// From now on nobody confirms that it is current.
    pub(crate) fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    /// From now on a change of settings waits for another one, so that neither can know what the other has done.
    pub(crate) fn pair_edits(&self) {
        self.in_pairs.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl MetadataLog for HouseLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        let edits = |command: &Command| {
            matches!(
                command,
                Command::AlterTopic { .. } | Command::AlterTopicAt { .. } | Command::EditTopic { .. }
            )
        };
        if self.in_pairs.load(Ordering::Relaxed) && commands.iter().any(edits) {
            self.pair.wait().await;
        }
        let commits = commands.iter().any(|command| matches!(command, Command::CommitObject(_)));
        let answers = self.local.propose(commands).await;
        if commits {
            drop(self.committing.lock().await);
        }
        answers
    }

    fn state(&self) -> State {
        self.local.state()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        self.local.read(look);
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        drop(self.confirming.lock().await);
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(ReadIndexError { reason: "cut off".to_owned() });
        }
        self.local.read_index().await
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        self.local.wait_applied(index, deadline).await
    }
}
