//! Which node sweeps: the one that leads, as far as the readers of all others allow.

use async_trait::async_trait;
use streamhouse_broker::SweepGate;
use streamhouse_cluster::Cluster;
use streamhouse_types::LogIndex;

/// The cluster as the sweep asks it.
pub(crate) struct ClusterGate(pub(crate) Cluster);

#[async_trait]
impl SweepGate for ClusterGate {
    fn is_ours(&self) -> bool {
        self.0.leads()
    }

    async fn floor(&self) -> Option<LogIndex> {
        self.0.pin_floor().await
    }
}
