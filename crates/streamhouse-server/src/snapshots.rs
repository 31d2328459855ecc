//! Copies of the metadata's snapshots in the object store, for the day on which a node's disk is gone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use streamhouse_env::Clock;
use streamhouse_raft::{SnapshotInfo, SnapshotSink};
use streamhouse_storage::layout::Named;
use streamhouse_storage::{Layout, ListError, Payload, Purpose, PutOptions, Store};
use streamhouse_types::NodeId;

/// How many of its newest snapshots a node keeps in the store.
const KEPT: usize = 2;
/// How long an upload is tried; the next snapshot is another chance.
const PATIENCE: Duration = Duration::from_secs(60);

/// Uploads each snapshot, and deletes this node's old ones.
pub(crate) struct StoreSnapshots {
    node: NodeId,
    store: Store,
    clock: Arc<dyn Clock>,
    /// Known once the node has agreed on its cluster, which it does before anything is worth a snapshot.
    layout: OnceLock<Layout>,
}

impl StoreSnapshots {
    pub(crate) fn new(node: NodeId, store: Store, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { node, store, clock, layout: OnceLock::new() })
    }

    /// Says under whose keys snapshots go; until then none is uploaded.
    pub(crate) fn belong_to(&self, layout: Layout) {
        // The cluster of a process never changes.
        self.layout.get_or_init(|| layout);
    }

    /// Deletes all of this node's snapshots but the newest.
    async fn drop_old(&self, layout: &Layout) -> Result<(), ListError> {
        let mine = |key| match layout.parse(&key) {
            Some(Named::Snapshot { index, node }) if node == self.node => Some((index, key)),
            _ => None,
        };
        let listed = self.store.list(&layout.snapshots_prefix(), Purpose::Meta);
        let mut found: Vec<_> =
            listed.try_filter_map(|meta| futures::future::ready(Ok(mine(meta.key)))).try_collect().await?;
        found.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
        futures::stream::iter(found.split_off(found.len().min(KEPT)))
            .for_each(async |(_, key)| {
                if let Err(error) = self.store.delete(&key, Purpose::Meta).await {
                    tracing::warn!(%key, error = &error as &dyn std::error::Error, "old snapshot was not deleted");
                }
            })
            .await;
        Ok(())
    }
}

#[async_trait]
impl SnapshotSink for StoreSnapshots {
    async fn put(&self, info: SnapshotInfo, bytes: Bytes) {
        let Some(layout) = self.layout.get() else { return };
        let key = layout.snapshot_key(info.index, self.node);
        let options = PutOptions { purpose: Purpose::Meta, deadline: self.clock.now() + PATIENCE };
        if let Err(error) = self.store.put(&key, &Payload::from(bytes), options).await {
            tracing::warn!(%key, error = &error as &dyn std::error::Error, "snapshot was not uploaded");
            return;
        }
        tracing::info!(%key, "snapshot uploaded");
        if let Err(error) = self.drop_old(layout).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old snapshots were not listed");
        }
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_env::Env;
    use streamhouse_storage::StoreSettings;
    use streamhouse_types::{ClusterId, LogIndex};

    use super::*;

    #[tokio::test]
    async fn the_store_holds_the_two_newest_snapshots_of_each_node() {
        let env = Env::system();
        let settings = StoreSettings { url: "memory://".to_owned(), ..StoreSettings::default() };
        let store = streamhouse_storage::open(&settings, &env).await.expect("memory opens");
        let layout = Layout::new(ClusterId::from_random_bytes([7; 16]));
        for node in [1, 2] {
            let sink = StoreSnapshots::new(NodeId::new(node), store.clone(), Arc::clone(&env.clock));
            sink.put(SnapshotInfo { index: LogIndex::new(1), term: 1 }, Bytes::from_static(b"whose?")).await;
            sink.belong_to(layout);
            for index in [9, 10, 100] {
                let bytes = Bytes::from(format!("snapshot {index} of {node}"));
                sink.put(SnapshotInfo { index: LogIndex::new(index), term: 1 }, bytes).await;
            }
        }
        let listed: Vec<_> =
            store.list(&layout.cluster_prefix(), Purpose::Meta).try_collect().await.expect("memory lists");
        let names: Vec<_> = listed.iter().map(|meta| layout.parse(&meta.key)).collect();
        let expected = [(10, 1), (10, 2), (100, 1), (100, 2)].map(|(index, node)| {
            Some(Named::Snapshot { index: LogIndex::new(index), node: NodeId::new(node) })
        });
        assert_eq!(names, expected);
        let newest = layout.snapshot_key(LogIndex::new(100), NodeId::new(2));
        assert_eq!(store.get(&newest, Purpose::Meta).await.expect("it is there"), "snapshot 100 of 2");
    }
}
