//! A node's disk, which outlives its crashes.

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
