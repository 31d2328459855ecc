//! Applies committed entries to the metadata state, in order, and takes snapshots of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use streamhouse_env::Threads;
use streamhouse_metadata::codec::{CodecError, check_level};
use streamhouse_metadata::{Outcome, State};
use streamhouse_types::LogIndex;
use tokio::sync::{Notify, watch};

use crate::error::Failure;
use crate::log::report;
use crate::observer::{ApplyObserver, SnapshotInfo};
use crate::snapshot::{SnapshotDir, SnapshotFile};
use crate::types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Runs `work`; when it panics, says why and aborts the process. A node whose state may be half changed must not go on,
/// whoever would catch the panic.
pub(crate) fn abort_on_panic<T>(reason: &'static str, work: impl FnOnce() -> T) -> T {
    struct Guard(&'static str);
    impl Drop for Guard {
        fn drop(&mut self) {
            tracing::error!(reason = self.0, "the process aborts");
            eprintln!("streamhouse aborts: {}", self.0);
            std::process::abort();
        }
    }
    let guard = Guard(reason);
    let result = work();
    std::mem::forget(guard);
    result
}

/// What the rest of the process sees of the state machine.
pub(crate) struct View {
    pub(crate) state: RwLock<State>,
    pub(crate) applied: watch::Sender<LogIndex>,
    /// Bytes of commands applied since the last snapshot was begun.
    bytes_since_snapshot: AtomicU64,
    snapshot_bytes: u64,
    /// Told when those bytes ask for a snapshot.
    pub(crate) snapshot_due: Notify,
    /// The newest snapshot taken, for the sink.
    pub(crate) taken: watch::Sender<Option<(SnapshotInfo, Bytes)>>,
    /// The last entry in the newest snapshot.
    pub(crate) snapshot_index: AtomicU64,
    failure: Arc<watch::Sender<Option<Failure>>>,
}

impl View {
    /// A view of `file`'s state, or of an empty one. A snapshot is due every `snapshot_bytes` bytes of commands.
    pub(crate) fn new(
        file: Option<&SnapshotFile>,
        snapshot_bytes: u64,
        failure: Arc<watch::Sender<Option<Failure>>>,
    ) -> Self {
        let index = file.and_then(|file| file.meta.last_log_id).map_or(0, |id| id.index());
        Self {
            state: RwLock::new(file.map_or_else(State::new, |file| file.state.clone())),
            applied: watch::Sender::new(LogIndex::new(index)),
            bytes_since_snapshot: AtomicU64::new(0),
            snapshot_bytes,
            snapshot_due: Notify::new(),
            taken: watch::Sender::new(None),
            snapshot_index: AtomicU64::new(index),
            failure,
        }
    }

    fn fail(&self, error: &io::Error) {
        report(&self.failure, Failure::of_io(error));
    }
}

/// The state machine.
pub(crate) struct Machine {
    view: Arc<View>,
    snapshots: Arc<SnapshotDir>,
    observer: Arc<dyn ApplyObserver>,
    threads: Arc<dyn Threads>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// Goes on from `file`, or from nothing.
    pub(crate) fn new(
        view: Arc<View>,
        snapshots: Arc<SnapshotDir>,
        observer: Arc<dyn ApplyObserver>,
        threads: Arc<dyn Threads>,
        file: Option<SnapshotFile>,
    ) -> Self {
        observer.replaced(&view.state.read());
        let meta = file.map(|file| file.meta).unwrap_or_default();
        Self {
            view,
            snapshots,
            observer,
            threads,
            last_applied: meta.last_log_id,
            membership: meta.last_membership,
        }
    }

    /// Applies one entry. Panics when the state does not take it.
    fn apply_entry(&mut self, entry: &Entry) -> io::Result<Option<Outcome>> {
        let index = LogIndex::new(entry.log_id.index());
        let outcome = match &entry.payload {
            EntryPayload::Normal(logged) => {
                let command = logged.take().map_err(|error| undecodable(index, &error))?;
                let applied = self.view.state.write().apply(index, &command);
                check_level(&self.view.state.read()).map_err(|error| undecodable(index, &error))?;
                self.observer.applied(index, logged.bytes(), &applied.changes);
                self.count_bytes(logged.bytes().len());
                Some(applied.outcome)
            }
            payload => {
                if let EntryPayload::Membership(membership) = payload {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                }
                // The first entry of a log is at 0, which is also where an empty state stands.
                if index > LogIndex::ZERO {
                    self.view.state.write().skip_to(index);
                }
                self.observer.skipped(index);
                None
            }
        };
        self.last_applied = Some(entry.log_id);
        self.view.applied.send_replace(index);
        Ok(outcome)
    }

    fn count_bytes(&self, bytes: usize) {
        let before = self.view.bytes_since_snapshot.fetch_add(bytes as u64, Ordering::Relaxed);
        let limit = self.view.snapshot_bytes;
        if before < limit && before.saturating_add(bytes as u64) >= limit {
            self.view.snapshot_due.notify_one();
        }
    }
}

fn undecodable(index: LogIndex, error: &CodecError) -> io::Error {
    let text =
        format!("entry {index} cannot be read by this release ({error}); start the release that wrote it");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let applied = item.and_then(|(entry, responder)| {
                let outcome = abort_on_panic("the metadata state did not take a committed command", || {
                    self.apply_entry(&entry)
                })?;
                Ok((outcome, responder))
            });
            match applied {
                Ok((outcome, Some(responder))) => responder.send(outcome),
                Ok((_, None)) => {}
                Err(error) => {
                    self.view.fail(&error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.view.bytes_since_snapshot.store(0, Ordering::Relaxed);
        let meta = SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() };
        let state = self.view.state.read().clone();
        Builder {
            file: Some(SnapshotFile { meta, state }),
            view: self.view.clone(),
            snapshots: self.snapshots.clone(),
            threads: self.threads.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        let installed = blocking(&*self.threads, move || {
            let file = SnapshotFile::decode(&snapshot).map_err(io::Error::other)?;
            snapshots.store(&file.meta, &snapshot)?;
            Ok(file)
        });
        let file = installed.await.inspect_err(|error| self.view.fail(error))?;
        if file.meta != *meta {
            return Err(io::Error::other("the snapshot is not the one that was announced"));
        }
        let index = meta.last_log_id.map_or(0, |id| id.index());
        *self.view.state.write() = file.state;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.view.snapshot_index.store(index, Ordering::Relaxed);
        self.observer.replaced(&self.view.state.read());
        self.view.applied.send_replace(LogIndex::new(index));
        tracing::info!(index, "snapshot of the leader installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshots = self.snapshots.clone();
        blocking(&*self.threads, move || snapshots.newest()).await
    }
}

/// Takes one snapshot, off the apply path.
pub(crate) struct Builder {
    file: Option<SnapshotFile>,
    view: Arc<View>,
    snapshots: Arc<SnapshotDir>,
    threads: Arc<dyn Threads>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let file = self.file.take().ok_or_else(|| io::Error::other("the snapshot was taken already"))?;
        let snapshots = self.snapshots.clone();
        let meta = file.meta.clone();
        let stored = blocking(&*self.threads, move || {
            let bytes = Bytes::from(file.encode()?);
            snapshots.store(&file.meta, &bytes)?;
            Ok(bytes)
        });
        let bytes = stored.await.inspect_err(|error| self.view.fail(error))?;
        if let Some(last) = meta.last_log_id {
            let info =
                SnapshotInfo { index: LogIndex::new(last.index()), term: last.committed_leader_id().term };
            self.view.snapshot_index.store(last.index(), Ordering::Relaxed);
            self.view.taken.send_if_modified(|taken| {
                // Nobody listens: do not keep the bytes.
                let heard = self.view.taken.receiver_count() > 0;
                if heard {
                    *taken = Some((info, bytes.clone()));
                }
                heard
            });
        }
        Ok(Snapshot { meta, snapshot: bytes })
    }
}

/// Runs disk work where it holds up nobody. A panic in it is an error of the disk's.
async fn blocking<T: Send + 'static>(
    threads: &dyn Threads,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    threads.blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    const CHILD: &str = "STREAMHOUSE_TEST_ABORT_CHILD";

    #[test]
    fn a_panic_in_apply_aborts_the_process() {
        if std::env::var_os(CHILD).is_some() {
            // Caught by anybody above, it would be survived.
            let _ = std::panic::catch_unwind(|| abort_on_panic("a test wants it", || panic!("as it should")));
            return;
        }
        let name = "machine::tests::a_panic_in_apply_aborts_the_process";
        let binary = std::env::current_exe().expect("this test");
        let output = Command::new(binary).args([name, "--exact", "--nocapture"]).env(CHILD, "1").output();
        let output = output.expect("the test starts itself");
        assert_eq!(output.status.signal(), Some(6), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("streamhouse aborts: a test wants it"));
    }

    #[test]
    fn work_that_does_not_panic_gives_its_result() {
        assert_eq!(abort_on_panic("never", || 7), 7);
    }
}
