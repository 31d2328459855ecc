//! A node's disk, which outlives its crashes.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use streamhouse_env::LogFs;
use streamhouse_faults::{MemoryFs, Unsynced};

/// A disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<MemoryFs>>);

impl Disk {
    /// As the node sees it until the next crash.
    pub(crate) fn mounted(&self) -> Arc<dyn LogFs> {
        Arc::new(self.0.lock().clone())
    }

    /// What a crash leaves of it. The node must not run any more.
    pub(crate) fn crash(&self, unsynced: Unsynced) {
        let mut disk = self.0.lock();
        *disk = disk.crashed(unsynced);
    }

    /// Lets the power go after so many more changes, also those of the node's next process.
    pub(crate) fn cut_power_after(&self, changes: u64) {
        self.0.lock().cut_power_after(changes);
    }

    /// Takes a cut back that has not come yet.
    pub(crate) fn keep_power(&self) {
        self.0.lock().keep_power();
    }

    /// Whether the power has gone: from then on the node changes nothing and says nothing.
    pub(crate) fn is_without_power(&self) -> bool {
        self.0.lock().is_without_power()
    }

    /// The files that were written and not synced yet.
    pub(crate) fn unsynced(&self) -> Vec<PathBuf> {
        self.0.lock().unsynced()
    }

    /// Another disk, with nothing on it.
    pub(crate) fn renew(&self) {
        *self.0.lock() = MemoryFs::default();
    }

    /// Leaves so much room beyond what is used; `None`: as much as one likes.
    pub(crate) fn leave_room(&self, bytes: Option<u64>) {
        let disk = self.0.lock();
        disk.limit(bytes.map(|bytes| disk.used() + bytes));
    }
}
