//! What clients are told of nodes and homes. Pure but for the watch that says when to look again.

use std::collections::BTreeMap;

use streamhouse_broker::metadata::{State, Topic};
use streamhouse_proto::v1;
use streamhouse_types::TopicId;
use tokio::sync::watch;

/// Says when nodes or homes have changed. Clones are the same.
#[derive(Debug, Clone)]
pub struct Routing {
    moved: watch::Receiver<u64>,
}

/// The homes that a client was told, by partition: node and epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToldHomes(BTreeMap<u32, (u64, u32)>);

impl Routing {
    /// `moved` changes with every move of a node or a home.
    #[must_use]
    pub fn new(moved: watch::Receiver<u64>) -> Self {
        Self { moved }
    }

    /// A receiver that has seen everything up to now.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        let mut moved = self.moved.clone();
        moved.mark_unchanged();
        moved
    }
}

/// The nodes that take requests now, by id.
pub(crate) fn nodes(state: &State) -> Vec<v1::NodeAddress> {
    let address = |node: &streamhouse_broker::metadata::NodeEntry| {
        let grpc = node.address("grpc")?.to_owned();
        Some(v1::NodeAddress { node_id: node.id().get(), grpc })
    };
    state.eligible_homes().filter_map(address).collect()
}

/// The homes of a topic's partitions.
pub(crate) fn homes(topic: &Topic) -> Vec<v1::PartitionHome> {
    let home = |partition: &streamhouse_broker::metadata::Partition| v1::PartitionHome {
        partition: partition.id().index.get(),
        node_id: partition.home().get(),
        epoch: partition.epoch().get(),
    };
    topic.partitions().map(home).collect()
}

impl ToldHomes {
    /// The homes of a topic that were not told yet, which count as told from now on.
    pub(crate) fn news(&mut self, state: &State, topic: TopicId) -> Vec<v1::PartitionHome> {
        let Some(topic) = state.topic(topic) else { return Vec::new() };
        let mut news = homes(topic);
        news.retain(|home| {
            let told = (home.node_id, home.epoch);
            self.0.insert(home.partition, told) != Some(told)
        });
        news
    }
}
