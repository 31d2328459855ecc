//! Who waits for which partition to grow. Fed by the metadata log right after each apply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use streamhouse_metadata::Changes;
use streamhouse_types::PartitionId;
use tokio::sync::watch;

/// The waiters for high watermarks. Clones share them. A partition that nobody waits for costs nothing.
#[derive(Debug, Clone, Default)]
pub struct HighWatermarks(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    waiting: AtomicUsize,
    closed: AtomicBool,
    partitions: Mutex<BTreeMap<PartitionId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    changed: watch::Sender<u64>,
    waiters: usize,
}

impl HighWatermarks {
    /// Nobody waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes those who wait for what a command changed. Called right after the command was applied; does not block.
    pub fn advanced(&self, changes: &Changes) {
        // Whoever subscribes after this load looks at the state afterwards, and sees the change there.
        if self.0.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let partitions = self.0.partitions.lock();
        let appended = changes.appended.iter().map(|(partition, _)| partition);
        for partition in appended.chain(&changes.trimmed).chain(&changes.deleted) {
            if let Some(entry) = partitions.get(partition) {
                entry.changed.send_modify(|version| *version += 1);
            }
        }
    }

    /// Wakes everyone: the whole state was replaced.
    pub fn replaced(&self) {
        for entry in self.0.partitions.lock().values() {
            entry.changed.send_modify(|version| *version += 1);
        }
    }

    /// Wakes everyone for the last time: the node stops.
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.replaced();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Subscribes to a partition. Subscribe first, look at the state then: no change is missed in between.
    pub(crate) fn subscribe(&self, partition: PartitionId) -> Subscription {
        let mut partitions = self.0.partitions.lock();
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let entry = partitions
            .entry(partition)
            .or_insert_with(|| Entry { changed: watch::Sender::new(0), waiters: 0 });
        entry.waiters += 1;
        let changed = entry.changed.subscribe();
        Subscription { registry: Arc::clone(&self.0), partition, changed }
    }
}

/// One who waits for a partition to change. Subscribe first, look at the state then: no change is missed in between.
#[derive(Debug)]
pub struct Subscription {
    registry: Arc<Registry>,
    partition: PartitionId,
    changed: watch::Receiver<u64>,
}

impl Subscription {
    /// Waits for the next change since the last one seen: records came, the log start moved, the topic was deleted, or
    /// the node stops. Cancel-safe.
    pub async fn changed(&mut self) {
        // The sender lives as long as the entry, and the entry as long as this subscription.
        let _ = self.changed.changed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut partitions = self.registry.partitions.lock();
        self.registry.waiting.fetch_sub(1, Ordering::SeqCst);
        if let Some(entry) = partitions.get_mut(&self.partition) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                partitions.remove(&self.partition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use streamhouse_types::{Offset, PartitionIndex, TopicId};

    use super::*;

    fn partition(index: u32) -> PartitionId {
        PartitionId::new(TopicId::new(1), PartitionIndex::new(index))
    }

    fn appended(index: u32) -> Changes {
        Changes { appended: vec![(partition(index), Offset::new(1))], ..Changes::default() }
    }

    #[tokio::test]
    async fn a_change_between_subscribing_and_waiting_is_not_missed() {
        let watermarks = HighWatermarks::new();
        let mut waiter = watermarks.subscribe(partition(0));
        watermarks.advanced(&appended(0));
        assert!(waiter.changed().now_or_never().is_some());
        assert!(waiter.changed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn only_the_partition_that_grew_wakes_its_waiters() {
        let watermarks = HighWatermarks::new();
        let mut waiter = watermarks.subscribe(partition(0));
        watermarks.advanced(&appended(1));
        assert!(waiter.changed().now_or_never().is_none());
        watermarks.advanced(&Changes { trimmed: vec![partition(0)], ..Changes::default() });
        assert!(waiter.changed().now_or_never().is_some());
    }

    #[test]
    fn a_partition_that_nobody_waits_for_is_forgotten() {
        let watermarks = HighWatermarks::new();
        let (first, second) = (watermarks.subscribe(partition(0)), watermarks.subscribe(partition(0)));
        drop(first);
        assert_eq!(watermarks.0.partitions.lock().len(), 1);
        drop(second);
        assert_eq!(watermarks.0.partitions.lock().len(), 0);
        assert_eq!(watermarks.0.waiting.load(Ordering::SeqCst), 0);
    }
}
