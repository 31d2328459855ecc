//! One run: the writing, the reading, and when each goes on.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_client::{CallError, Error, Offset, PartitionIndex, ReadError, SendError};
use streamhouse_env::Env;
use tokio::sync::watch;

use crate::load::{Load, Plan, Work};
use crate::tail::{Tail, Tailed};

/// When what is written is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// While it is written: the time from sending to reading means something.
    WhileWriting,
    /// When all of it is durable.
    Afterwards,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Records that were sent, and how long that took.
    Written(u64, Duration),
    /// Records that were read.
    Read(u64),
}

/// What a run has from its surroundings.
#[derive(Clone)]
pub struct Seams {
    /// Time and randomness.
    pub env: Env,
    /// Turns true when the user has seen enough.
    pub interrupt: watch::Receiver<bool>,
    /// Hears how far the run is, a few times a second and on any thread.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl Seams {
    /// Waits until the user has seen enough; for ever where nobody can say so. Cancel-safe.
    pub(crate) async fn interrupted(&mut self) {
        if self.interrupt.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a run found.
#[derive(Debug)]
pub struct Measured {
    /// The writing.
    pub load: Load,
    /// The reading, and the proof.
    pub tail: Tailed,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A record could not be written or read.
    #[error(transparent)]
    Client(Error),
    /// The user wanted no more before everything written was read.
    #[error("interrupted before everything was read")]
    Interrupted,
    /// A part of the run stopped by itself.
    #[error(transparent)]
    Stopped(#[from] tokio::task::JoinError),
}

impl From<CallError> for BenchError {
    fn from(error: CallError) -> Self {
        Self::Client(error.into())
    }
}

impl From<SendError> for BenchError {
    fn from(error: SendError) -> Self {
        Self::Client(error.into())
    }
}

impl From<ReadError> for BenchError {
    fn from(error: ReadError) -> Self {
        Self::Client(error.into())
    }
}

/// Writes by `plan` and reads what was written. `starts` names every partition of the topic and where it ends now: what
/// lies before is left alone. Records that were written stay when the call is dropped.
///
/// # Errors
/// When a record cannot be written, when the topic cannot be read, or when the user interrupts the reading. A break of
/// a chain is no error but a finding.
pub async fn run(
    plan: Plan,
    starts: Vec<(PartitionIndex, Offset)>,
    reading: Reading,
    seams: Seams,
) -> Result<Measured, BenchError> {
    let partitions = u32::try_from(starts.len()).unwrap_or(u32::MAX);
    let work = Arc::new(Work::new(plan, partitions, seams.clone()));
    let (written, written_seen) = watch::channel(None);
    let tail = Tail::new(work.clone(), starts, written_seen);
    match reading {
        Reading::WhileWriting => {
            let tailing = tokio::spawn(tail.read_all());
            let load = Load::run(&work).await?;
            written.send_replace(Some(load.chains.clone()));
            Ok(Measured { load, tail: tailing.await?? })
        }
        Reading::Afterwards => {
            let load = Load::run(&work).await?;
            written.send_replace(Some(load.chains.clone()));
            let mut seams = seams;
            let tail = tokio::select! {
                tail = tail.read_all() => tail?,
                () = seams.interrupted() => return Err(BenchError::Interrupted),
            };
            Ok(Measured { load, tail })
        }
    }
}
