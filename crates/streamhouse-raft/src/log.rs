//! The log on disk: segments of frames, written and synced in groups by one thread.
//!
//! `docs/formats/raft-log.md` is the reference for the bytes.

pub(crate) mod frame;
mod judge;
mod recovery;
mod store;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use streamhouse_env::{Env, FileLock, LongRun};
use streamhouse_types::NodeId;
use tokio::sync::watch;

use crate::error::{Failure, StartError};
pub use judge::judge_log_record;
pub(crate) use store::{LogReader, LogStore};
use tail::Tail;

/// What a log is opened with.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) node: NodeId,
    /// The directory of the segments.
    pub(crate) dir: PathBuf,
    pub(crate) env: Env,
    pub(crate) segment_bytes: u64,
    pub(crate) cache_bytes: usize,
    /// Where a failure of the disk is told; the first one stays.
    pub(crate) failure: Arc<watch::Sender<Option<Failure>>>,
}

/// What the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    tail: Mutex<Tail>,
    failure: Arc<watch::Sender<Option<Failure>>>,
}

impl Shared {
    /// Notes the first failure; it stays.
    fn fail(&self, failure: Failure) {
        report(&self.failure, failure);
    }
}

/// Tells `failure` unless one was told before.
pub(crate) fn report(to: &watch::Sender<Option<Failure>>, failure: Failure) {
    to.send_if_modified(|told| {
        let first = told.is_none();
        if first {
            tracing::error!(%failure, "metadata log stopped");
            *told = Some(failure);
        }
        first
    });
}

/// Opens the log in a directory, or begins one, and starts its writer, which keeps `lock` until it ends.
///
/// # Errors
/// When what is on disk is not what was written, or the disk refuses; nothing is changed then.
pub(crate) fn open(options: &LogOptions, lock: Box<dyn FileLock>) -> Result<(LogStore, LongRun), StartError> {
    let recovered = recovery::recover(options)?;
    let shared = Arc::new(Shared { tail: Mutex::new(recovered.tail), failure: options.failure.clone() });
    let (queue, writer) = writer::spawn(options, shared.clone(), recovered.writer, lock);
    Ok((LogStore::new(shared, queue), writer))
}

/// Whether the directory holds any segment.
pub(crate) fn exists(options: &LogOptions) -> std::io::Result<bool> {
    match options.env.fs.list(&options.dir) {
        Ok(files) => Ok(files.iter().any(|file| recovery::segment_number(&file.name).is_some())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
